"""Records that were lost keep their positions, and events their names."""

from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

from perstack_stored.journal.entry_format import FLAG_RESTORED
from perstack_stored.journal.epochs import Epochs
from perstack_stored.model import gaps
from perstack_stored.model.gaps import Gap, GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames
from perstack_stored.read import window
from tests.helpers.datadir import Base, dumps, event, job, setting

LOST = event(id="lost", note="gone")


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def gap_of(value: dict[str, Any], n: int) -> bytes:
    """The gap that an event leaves behind."""
    payload = dumps(value)
    return gaps.encode(
        Gap(
            op="storeEvent",
            jobId=value["jobId"],
            runId=value["runId"],
            timestamp=value["timestamp"],
            stepNumber=value["stepNumber"],
            type=value["type"],
            n=n,
            length=len(payload),
            crc=crc32c(payload),
        )
    )


def files(base: Base) -> dict[str, bytes]:
    tree = base.open_tree()
    base.grow(tree)
    tree.close()
    return base.files()


RUN = "jobs/job-1/runs/run-1"
PLAIN = f"{RUN}/event-1700000000000-0-startRun"


def test_a_gap_without_facts_is_empty() -> None:
    assert gaps.encode(Gap()) == b""
    assert gaps.decode(b"") == Gap()


def test_a_lost_event_keeps_its_name(base: Base) -> None:
    """Those after it keep the numbers that they had, and it is in no answer."""
    base.store((Kind.GAP, gap_of(LOST, 1)))
    second = event(id="second")
    base.store((Kind.EVENT, second))
    assert files(base) == {f"{PLAIN}.n0002.json": dumps(second)}
    assert base.ask("getEventContents", jobId="job-1", runId="run-1")[0] == [second]
    assert len(base.ask("getEventsByRun", jobId="job-1", runId="run-1")[0]) == 1


def test_a_lost_event_of_a_higher_number_keeps_it(base: Base) -> None:
    first, third = event(id="first"), event(id="third")
    base.store((Kind.EVENT, first))
    base.store((Kind.GAP, gap_of(LOST, 2)))
    base.store((Kind.EVENT, third))
    assert files(base) == {f"{PLAIN}.json": dumps(first), f"{PLAIN}.n0003.json": dumps(third)}


@pytest.mark.parametrize("n", [1, 2])
def test_a_lost_event_that_is_stored_again_gets_its_name_back(base: Base, n: int) -> None:
    """It is stored once, at its new position; once more, and it is a repeat."""
    if n == 2:
        base.store((Kind.EVENT, event(id="first")))
    base.store((Kind.GAP, gap_of(LOST, n)))
    base.store((Kind.EVENT, event(id="behind")))
    before = files(base)
    base.store((Kind.EVENT, LOST))
    base.store((Kind.EVENT, LOST))
    name = f"{PLAIN}.json" if n == 1 else f"{PLAIN}.n0002.json"
    assert files(base) == before | {name: dumps(LOST)}
    contents, _ = base.ask("getEventContents", jobId="job-1", runId="run-1")
    assert [item["id"] for item in contents] == ["first", "behind", "lost"][2 - n :]


def test_a_subscriber_learns_what_was_lost(base: Base) -> None:
    base.store((Kind.JOB, job()))
    for _ in range(3):
        base.store((Kind.GAP, b""))
    base.store((Kind.JOB, job(id="job-2")))
    items, fields = base.ask("readAll")
    assert [item["position"] for item in items] == [1, 5]
    assert fields == {"next": 5, "gaps": [GapRange(2, 4)]}
    assert base.ask("readAll", after=2, limit=1)[1] == {"next": 3, "gaps": [GapRange(3, 3)]}
    assert base.ask("readAll", after=4)[1] == {"next": 5}
    for arguments in ({"jobId": "job-1"}, {"waitMs": 0}):
        assert base.ask("readAll", **arguments)[1] == {"next": 5, "gaps": [GapRange(2, 4)]}
    assert base.ask("readAll", after=3, jobId="x")[1] == {"next": 5, "gaps": [GapRange(4, 4)]}


def test_a_setting_keeps_the_time_of_a_lost_store(base: Base) -> None:
    """`updatedAt` never goes back."""
    base.store((Kind.RUN_SETTING, setting()))
    base.store((Kind.GAP, gaps.encode(Gap(isOlder=True, touched=[("job-1", "run-1", 1800000000000)]))))
    (found,), _ = base.ask("getAllRuns")
    assert found["updatedAt"] == 1800000000000


def test_a_restored_setting_is_the_one_that_counts(base: Base) -> None:
    base.store((Kind.RUN_SETTING, setting(model="first")))
    base.store((Kind.RUN_SETTING, setting(model="restored")), flags=FLAG_RESTORED)
    (found,), _ = base.ask("getAllRuns")
    assert (found["model"], found["updatedAt"]) == ("restored", 1700000000000)


@pytest.mark.parametrize("arguments", [{}, {"jobId": "job-1"}, {"waitMs": 0}])
def test_an_answer_names_a_bounded_count_of_gaps_and_the_next_one_the_others(
    base: Base, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """Every second record was lost: the header of an answer would outgrow its bound."""
    monkeypatch.setattr(window, "GAPS_MAX", 7)
    count = 60
    for i in range(count):
        base.store((Kind.EVENT, event(id=f"e{i}", timestamp=i)) if i % 2 else (Kind.GAP, gaps.encode(Gap())))
    after, found, lost = 0, [], []
    while after < count:
        answer: tuple[Any, Any] = base.ask("readAll", after=after, **arguments)
        records, fields = answer
        assert len(fields["gaps"]) <= 7
        assert fields["next"] > after
        assert all(after < record["position"] <= fields["next"] for record in records)
        found += [record["position"] for record in records]
        lost += [gap.first for gap in fields["gaps"]]
        after = fields["next"]
    assert (found, lost) == (list(range(2, count + 1, 2)), list(range(1, count + 1, 2)))


@pytest.mark.parametrize("arguments", [{}, {"jobId": "job-1"}, {"types": ["startRun"]}, {"waitMs": 0}])
def test_scattered_gaps_and_many_epochs_fit_into_the_header_of_an_answer(
    base: Base, arguments: dict[str, Any]
) -> None:
    """As after a repair of a base that was started often. The real header, with the longest positions too."""
    count = 6_000
    kinds = [(Kind.EVENT, dumps(event(id=f"e{i}"))) if i % 2 else (Kind.GAP, b"") for i in range(count)]
    base.store(*kinds)
    epochs = Epochs()
    for position in range(0, count, 3):
        epochs.begin(position)
    after, lost = 0, []
    while after < count:
        answer: tuple[Any, Any] = base.ask("readAll", after=after, **arguments)
        fields = answer[1] | epochs.between(after, answer[1]["next"])
        header = frames.read_answer(2**53 - 1, b"", position=count, **fields)
        longest = len(header) + (2 * len(fields["gaps"]) + len(fields.get("epochs", ()))) * 14
        assert longest <= frames.HEADER_BYTES_MAX
        lost += [gap.first for gap in fields["gaps"]]
        after = fields["next"]
    assert lost == list(range(1, count + 1, 2))
