"""The files of the tree are the documented ones, for any id that is allowed."""

import stat

import pytest

from perstack_stored.model import json_text
from perstack_stored.model.kinds import Kind
from perstack_stored.tree.write import event_name
from tests.helpers.datadir import Base, checkpoint, dumps, event, job, setting
from tests.unit.tree.growing import RUN, grown


@pytest.mark.parametrize(
    ("timestamp", "step", "type", "n", "name"),
    [
        (1700000000000, 3, "startRun", 1, "event-1700000000000-3-startRun.json"),
        (1700000000000.75, 3.0, "a-b", 1, "event-1700000000000-3-a-b.json"),
        (0, 0, "x", 2, "event-0-0-x.n0002.json"),
        (-0.0, 0, "x", 12345, "event-0-0-x.n12345.json"),
        (
            9007199254740991.0,
            9007199254740991,
            "y" * 100,
            9999,
            f"event-9007199254740991-9007199254740991-{'y' * 100}.n9999.json",
        ),
    ],
)
def test_an_event_is_named_as_the_reference_names_it(
    timestamp: float, step: float, type: str, n: int, name: str
) -> None:
    """Timestamp by its whole part, step, type; a twin has its number before the suffix; any name fits."""
    assert event_name(timestamp, step, type, n) == name
    assert len(name) < 255


def test_the_files_are_the_documented_ones(base: Base) -> None:
    """job.json is indented, all else is byte for byte what was sent, each at its place, with its modes."""
    odd = b' {"x" : 1e400, "y":"\\ud800", ' + dumps(event(id="odd", type="a-b"))[1:] + b"\n"
    a_job = b'{"big":123456789012345678901234567890,' + dumps(job())[1:]
    base.store((Kind.JOB, a_job), (Kind.CHECKPOINT, checkpoint()), (Kind.EVENT, event()), (Kind.EVENT, odd))
    base.store((Kind.RUN_SETTING, setting()), (Kind.EVENT, event(id="twin")), (Kind.EVENT, event()))
    grown(base)
    assert base.files() == {
        "jobs/job-1/job.json": json_text.indent(a_job),
        "jobs/job-1/checkpoints/cp-1.json": dumps(checkpoint()),
        f"{RUN}/run-setting.json": dumps(setting()),
        f"{RUN}/event-1700000000000-0-startRun.json": dumps(event()),
        f"{RUN}/event-1700000000000-0-startRun.n0002.json": dumps(event(id="twin")),
        f"{RUN}/event-1700000000000-0-a-b.json": odd,
    }
    for path in (base.path / "jobs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)
    assert not list((base.path / ".stored" / "staging").iterdir())


def test_of_a_setting_the_tree_has_what_the_index_has(base: Base) -> None:
    """A setting stored again has its first content, the time of the last store, and no defaults."""
    first = {k: v for k, v in setting().items() if k != "maxSteps"}
    base.store((Kind.RUN_SETTING, first))
    made = grown(base)
    base.store((Kind.RUN_SETTING, setting(model="other")))
    base.grow(made)
    (updated_at,) = base.database.execute("SELECT updated_at FROM setting").fetchone()
    assert base.files() == {f"{RUN}/run-setting.json": dumps(first | {"updatedAt": updated_at})}
    assert updated_at > first["updatedAt"]


def test_any_id_that_is_allowed_has_a_file(base: Base) -> None:
    """The longest ids, dots, spaces, quotes and other scripts all work as names."""
    for i, name in enumerate(
        ["x" * 200, "é" * 100, "...", ".hidden", "a b", "a'\"b", "日本", "-rf", "~", "%2F", "job.json"]
    ):
        base.store(
            (Kind.JOB, job(id=name)),
            (Kind.CHECKPOINT, checkpoint(id=name, jobId=name)),
            (Kind.EVENT, event(jobId=name, runId=name)),
        )
        grown(base)
        assert {f"jobs/{name}/job.json", f"jobs/{name}/checkpoints/{name}.json"} <= set(base.files())
        assert len(base.files()) == 3 * (i + 1)
