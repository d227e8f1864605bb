"""`audit` names what is wrong in a tree that no daemon ever saw, and touches nothing."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.offline.audit import audit as audit_module
from perstack_stored.offline.audit.missing_events import Seen, crowding, signs
from perstack_stored.offline.audit.torn_files import how_torn
from perstack_stored.offline.findings import Report
from perstack_stored.tree import left_out
from perstack_stored.tree.left_out import LeftOut
from tests.helpers import commands, signals
from tests.helpers.daemon import captured_run, eventually, running_daemon
from tests.helpers.datadir import checkpoint, dumps, event, job, setting
from tests.import_tree.test_first_start import DAMAGED
from tests.import_tree.trees import START_MS, path_of, put, put_golden, snapshot, store

Call = tuple[str, dict[str, Any]]
RUN = "jobs/job-1/runs/run-1"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `perstack-stored audit`."""
    return commands.run("audit", *arguments)


class Audited:
    """What `audit --json` says of a tree."""

    def __init__(self, tree: Path) -> None:
        process = run("--json", str(tree))
        assert process.stderr == ""
        self.status = process.returncode
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        self.summary = lines.pop()
        self.findings = [line for line in lines if not line["note"]]
        self.notes = [line for line in lines if line["note"]]


def audit_here(tree: Path) -> tuple[list[tuple[str, dict[str, object]]], dict[str, int]]:
    """The same without a process: the findings, and what was read."""
    found: list[tuple[str, dict[str, object]]] = []
    report = Report(lambda finding: found.append(finding[:2]), audit_module.FINDINGS, audit_module.NOTES)
    fd = os.open(tree, os.O_RDONLY)
    audit_module.audit(fd, report)
    os.close(fd)
    return [item for item in found if item[0] in audit_module.FINDINGS], report.compared


# --- whole trees -----------------------------------------------------------------------------------


def put_whole(tree: Path, calls: list[Call]) -> int:
    """Write every event, as this daemon does; returns how many would have been overwritten without it."""
    names: Counter[str] = Counter()
    for op, value in calls:
        path = path_of(op, value)
        names[path] += op == "storeEvent"
        if names[path] > 1:
            put(tree, f"{path[:-5]}.n{names[path]:04d}.json", dumps(value))
        else:
            store(tree, op, value)
    return names.total() - len(+names)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_real_run_of_which_nothing_is_lost_is_clean(tmp_path: Path, name: str) -> None:
    shared = put_whole(tmp_path, captured_run(name))
    before = snapshot(tmp_path)
    audited = Audited(tmp_path)
    assert (audited.status, audited.findings, audited.notes) == (0, [], [])
    assert audited.summary["numbered"] == shared
    assert audited.summary["presumed_lost"] == 0
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_of_a_real_run_about_as_many_events_are_missed_as_the_reference_lost(
    tmp_path: Path, name: str
) -> None:
    """Where each event overwrote the one of its millisecond. The text that was streamed tells it."""
    calls = captured_run(name)
    for op, value in calls:
        store(tmp_path, op, value)
    events = [path_of(op, value) for op, value in calls if op == "storeEvent"]
    lost = len(events) - len(set(events))
    audited = Audited(tmp_path)
    assert audited.status == 1
    assert {line["name"] for line in audited.findings} == {"gap_deltas"}
    assert {line["name"] for line in audited.notes} == {"crowded"}
    assert abs(audited.summary["presumed_lost"] - lost) < 0.2 * lost
    assert 0 < sum(line["estimate"] for line in audited.notes) < lost


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_run_that_goes_on_is_clean_at_any_moment(tmp_path: Path, name: str) -> None:
    """What comes next is not missing yet."""
    calls = captured_run(name)
    for start in range(0, len(calls), 23):
        put_whole_more(tmp_path, calls[:start], calls[start : start + 23])
        assert audit_here(tmp_path)[0] == [], f"after {start + 23} calls"


def put_whole_more(tree: Path, before: list[Call], calls: list[Call]) -> None:
    """Go on with `put_whole`."""
    names = Counter(path_of(op, value) for op, value in before if op == "storeEvent")
    for op, value in calls:
        path = path_of(op, value)
        names[path] += op == "storeEvent"
        twin = names[path] > 1
        if twin:
            put(tree, f"{path[:-5]}.n{names[path]:04d}.json", dumps(value))
        else:
            store(tree, op, value)


def test_the_tree_of_a_daemon_is_clean_while_it_is_served(tmp_path: Path) -> None:
    """No lock is taken."""
    base = tmp_path / "base"
    put_golden(base)
    put_whole(base, captured_run("a"))
    with running_daemon(base):
        audited = Audited(base)
    assert not [line for line in audited.findings if not line["name"].startswith("gap_")]
    assert not [line for line in audited.findings if "job1/" in line.get("path", "")]


# --- damage ----------------------------------------------------------------------------------------

OTHERS = {
    "bad_value": "invalid_value",
    "link": "symbolic_link",
    "not_a_file": "wrong_type",
    "not_ours": "foreign_file",
    "empty": "torn_file",
}
NOT_TORN = ("event-1-0-list.json", "event-1-0-latin.json")


def test_each_kind_of_damage_is_named_with_its_path(tmp_path: Path) -> None:
    """Each once; what is foreign is no finding; and nothing is changed."""
    store(tmp_path, "storeJob", job())
    store(tmp_path, "storeCheckpoint", checkpoint())
    store(tmp_path, "storeRunSetting", setting(env={"KEY": "sk-do-not-show"}))
    store(tmp_path, "storeEvent", event())
    store(tmp_path, "storeEvent", event(jobId="no-job"))
    put(tmp_path, f"{RUN}/event-1-0-named.json", dumps(event(timestamp=2, type="named")))
    expected = {(f"{RUN}/event-1-0-named.json", "wrong_name"), ("jobs/no-job", "no_job")}
    for path, make, reason in DAMAGED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        make(tmp_path / path)
        name = OTHERS.get(reason, reason)
        if reason == "not_json":
            name = "invalid_value" if path.endswith(NOT_TORN) else "torn_file"
        expected.add((path, name))
    (tmp_path / RUN / "event-1-0-large.json").rename(tmp_path / "aside")
    before = snapshot(tmp_path)
    (tmp_path / "aside").rename(tmp_path / RUN / "event-1-0-large.json")
    audited = Audited(tmp_path)
    lines = [line for line in (*audited.findings, *audited.notes) if not line["name"].startswith("gap_")]
    assert len(lines) == len(expected)
    assert {(line["path"], line["name"]) for line in lines} == expected
    assert audited.status == 1
    assert {line["name"] for line in audited.notes} == {"foreign_file", "no_job"}
    assert "sk-do-not-show" not in json.dumps(lines)
    (tmp_path / RUN / "event-1-0-large.json").unlink()
    assert {k: v[3] for k, v in snapshot(tmp_path).items()} == {k: v[3] for k, v in before.items()}


TEAR = """
import sys, os
base, seed, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import json
n = seed
while True:
    n += 1
    number = n % files
    value = json.loads(sys.argv[4])
    value.update(id=f"c{number}", messages=[{"text": "x" * (3000 * (n * 7 % 11))}])
    data = json.dumps(value).encode()
    # As node's writeFile: the file is cut to nothing, then written in pieces.
    fd = os.open(f"{base}/jobs/job-1/checkpoints/c{number}.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(data), 1024):
        os.write(fd, data[start:start + 1024])
    os.close(fd)
"""


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def test_what_several_writers_of_one_file_tore_is_named(tmp_path: Path) -> None:
    """Four processes rewrite the same five files, none of them by rename, and are killed."""
    store(tmp_path, "storeJob", job())
    store(tmp_path, "storeEvent", event())
    folder = tmp_path / "jobs/job-1/checkpoints"
    folder.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TEAR, str(tmp_path), str(seed), "5", json.dumps(checkpoint())]
        )
        for seed in range(4)
    ]

    def torn() -> list[str]:
        for writer in writers:
            signals.stop(writer.pid)
        found = [str(path.relative_to(tmp_path)) for path in sorted(folder.iterdir()) if not is_json(path)]
        if len(found) < 2:
            for writer in writers:
                os.kill(writer.pid, signal.SIGCONT)
        return found

    eventually(lambda: len(torn()) >= 2, "two files are torn")
    for writer in writers:
        writer.kill()
        writer.wait()
    found = [str(path.relative_to(tmp_path)) for path in sorted(folder.iterdir()) if not is_json(path)]
    assert found
    audited = Audited(tmp_path)
    assert audited.status == 1
    named = [line["path"] for line in audited.findings if line["name"] == "torn_file"]
    assert named == found
    assert not [line for line in audited.findings if line["name"] == "invalid_value"]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty"),
        (bytes(40), "nothing but zeros"),
        (b'{"id":"x","text":"abc', "cut short"),
        (b'{"id":"x",', "cut short"),
        (b'{"id":', "cut short"),
        (b'{"id":"x"', "cut short"),
        (b'{"id":"x"}"text":"longer"}', "end of a longer version"),
        (b'{"id":"x"}\n}', "end of a longer version"),
        (b'{"id":"x"' + bytes(20), "zeros in it"),
        (b'{"id":"x","text":ab"}', "two versions"),
        (b"hello", None),
        (b'["a"', None),
        (b'{"a":' * 5000, None),
    ],
)
def test_how_a_file_was_torn_is_seen_from_its_bytes(payload: bytes, says: str | None) -> None:
    told = how_torn(payload)
    assert (told is None) if says is None else (told is not None and says in told)


# --- gaps ------------------------------------------------------------------------------------------


def without(calls: list[Call], *dropped: tuple[int, str]) -> list[Call]:
    """The calls without the events of these steps and types."""
    return [
        (op, value)
        for op, value in calls
        if op != "storeEvent" or (value["stepNumber"], value["type"]) not in dropped
    ]


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        ([(1, "startRun")], [("gap_state", 1, "startRun")]),
        ([(3, "startGeneration")], [("gap_state", 3, "startGeneration")]),
        ([(3, "callTools")], [("gap_state", 3, "callTools")]),
        ([(7, "continueToNextStep")], [("gap_state", 7, "continueToNextStep")]),
        ([(2, "startStreamingReasoning")], [("gap_stream", 2, "0 startStreamingReasoning")]),
        ([(2, "completeStreamingReasoning")], [("gap_stream", 2, "0 completeStreamingReasoning")]),
        ([(8, "completeStreamingRunResult")], [("gap_stream", 8, "0 completeStreamingRunResult")]),
        ([(5, "streamReasoning")], [("gap_deltas", 5, "are in no streamReasoning")]),
        (
            [(2, "startStreamingReasoning"), (2, "completeStreamingReasoning")],
            [("gap_stream", 2, "without startStreamingReasoning")],
        ),
    ],
)
def test_each_gap_is_named_with_its_step(
    tmp_path: Path, dropped: list[tuple[int, str]], expected: list[tuple[str, int, str]]
) -> None:
    """Nothing else is, of a real run."""
    put_whole(tmp_path, without(captured_run("a"), *dropped))
    found, read = audit_here(tmp_path)
    assert [(name, facts["step"]) for name, facts in found] == [(name, step) for name, step, _ in expected]
    assert expected[0][2] in str(found[0][1]["reason"])
    assert read["presumed_lost"] > 0


def test_a_step_without_any_event_is_a_gap(tmp_path: Path) -> None:
    calls = [
        (op, value)
        for op, value in captured_run("a")
        if op != "storeEvent" or value["stepNumber"] not in {3, 4, 6}
    ]
    put_whole(tmp_path, calls)
    found = [facts["reason"] for name, facts in audit_here(tmp_path)[0] if name == "gap_step"]
    assert found == ["there is no event of step 3 to 4", "there is no event of step 6"]


def test_a_checkpoint_that_an_event_names_must_be_there(tmp_path: Path) -> None:
    """One whose file is torn is there."""
    calls = captured_run("a")
    put_whole(tmp_path, calls)
    paths = [path_of(op, value) for op, value in calls if op == "storeCheckpoint"]
    (tmp_path / paths[2]).unlink()
    (tmp_path / paths[4]).write_bytes(b"{")
    found, _ = audit_here(tmp_path)
    assert [name for name, _ in found] == ["torn_file", "gap_checkpoint"]
    assert found[1][1]["checkpoint"] == Path(paths[2]).stem


def test_a_run_with_checkpoints_and_no_events_is_a_gap(tmp_path: Path) -> None:
    store(tmp_path, "storeJob", job())
    store(tmp_path, "storeCheckpoint", checkpoint(runId="lost"))
    assert audit_here(tmp_path)[0] == [("gap_run", {"path": "jobs/job-1/runs/lost"})]


def test_a_torn_event_is_damaged_and_not_lost(tmp_path: Path) -> None:
    """Its name says what it was."""
    calls = captured_run("a")
    put_whole(tmp_path, calls)
    path = next(path_of(op, value) for op, value in calls if value.get("type") == "continueToNextStep")
    (tmp_path / path).write_bytes(b'{"type":')
    assert [name for name, _ in audit_here(tmp_path)[0]] == ["torn_file"]


@pytest.mark.parametrize("type", sorted({value["type"] for _, value in captured_run("a") if "type" in value}))
def test_what_a_daemon_leaves_out_is_no_loss(tmp_path: Path, type: str) -> None:
    """The record of it lies beside the tree; without it there are signs of lost events."""
    put_whole(tmp_path, [call for call in captured_run("a") if call[1].get("type") != type])
    signs_of_loss = audit_here(tmp_path)[0]
    unneeded = {"finishToolCall", "resolveToolResults", "attemptCompletion", "completeRun"}
    assert bool(signs_of_loss) == (type not in unneeded)
    os.mkdir(tmp_path / ".stored")
    fd = os.open(tmp_path / ".stored", os.O_RDONLY)
    left_out.save(FileSystem(), fd, bytes(16), LeftOut().changed(4, [type]).changed(9, []))
    os.close(fd)
    assert audit_here(tmp_path)[0] == []
    (tmp_path / ".stored" / left_out.FILE_NAME).write_bytes(b"rubbish")
    assert audit_here(tmp_path)[0] == signs_of_loss


def test_signs_and_crowding_of_nothing_are_none() -> None:
    assert list(signs([])) == []
    assert crowding([]) == (0, 0, 0.0)


def test_crowding_counts_neighbours_and_estimates_what_they_hide() -> None:
    """In 6 of 8 milliseconds: as many as 11 events, one by one at random, would have hit."""
    times = (0, 1, 2, 4, 6, 7)
    found = crowding([Seen(START_MS + time, 1, "streamReasoning") for time in times])
    assert found.neighbours == 3
    assert found.numbered == 0
    assert round(found.expected_lost, 1) == 5.1


# --- the command -----------------------------------------------------------------------------------


def test_for_people_each_name_is_explained(tmp_path: Path) -> None:
    put(tmp_path, f"{RUN}/event-{START_MS}-0-x.json", b"{")
    done = run(str(tmp_path))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'finding torn_file path={RUN}/event-{START_MS}-0-x.json reason="it is cut')
    assert any(line.startswith("gap_state: 1; a sign of lost events") for line in lines)
    assert lines[-1].startswith("2 findings; read: 1 files")


@pytest.mark.parametrize("path", ["", "nowhere"])
def test_what_is_no_tree_is_refused(tmp_path: Path, path: str) -> None:
    done = run(str(tmp_path / path))
    assert done.returncode == 2
    assert "jobs/" in done.stderr or "No such file" in done.stderr
