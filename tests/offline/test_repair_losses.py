"""What nothing vouches for is named by `repair` and becomes a gap; the base goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.helpers.daemon import files_of, running_daemon
from tests.offline.bases import SMALL_SEGMENTS, event, job, read, run, store
from tests.offline.damages import Damage, flip, flip_payload, unlink
from tests.offline.inprocess import Checked, Items, Repaired, Started, untimed
from tests.offline.segment_damages import both, cut, drop, drop_all_but_the_first, overwrite

RUN = "jobs/j1/runs/r1"
LOSSES: dict[str, tuple[Damage, set[int]]] = {
    # Positions that a later version replaced, that repeat, or whose file is of another layout, are gone.
    "the second segment is missing": (drop(1), {9}),
    "the last segment is missing": (drop(3), {19}),
    "the first segment is missing": (drop(0), {2}),
    "all but the first are missing": (drop_all_but_the_first, {9, 13, 19}),
    "a segment is empty": (overwrite(2, b""), {13}),
    "a segment holds rubbish": (overwrite(1, b"rubbish" * 2000), {9}),
    "a segment is cut": (cut(1, 400), {9}),
    "a file is gone too": (
        both(drop(1), unlink(f"{RUN}/event-1700000000001-1-stream-Reasoning.json")),
        {8, 9},
    ),
    "a file is damaged too": (
        both(drop(1), lambda base: flip(base / "jobs/j1/checkpoints/c2.json", 9)),
        {9, 10},
    ),
    "the index is gone too": (
        both(lambda base: flip_payload(base, b'"e3"', segment=1), unlink(".stored/index.sqlite")),
        {6},
    ),
    "the index is damaged too": (
        both(drop(1), lambda base: (base / ".stored/index.sqlite").write_bytes(b"rubbish" * 1000)),
        set(range(6, 12)),
    ),
}


@pytest.mark.parametrize(("damage", "gone"), LOSSES.values(), ids=LOSSES.keys())
def test_what_nothing_vouches_for_is_named_and_becomes_a_gap(
    base_of_segments: Path, damage: Damage, gone: set[int], expected: dict[str, Items]
) -> None:
    """All that is not named is there, at its position, and nothing else."""
    base = base_of_segments
    damage(base)
    files = files_of(base)
    assert Repaired(base, dry_run=True).gone == gone
    done = Repaired(base)
    assert done.gone == gone
    assert done.compared["gone"] == len(gone)
    assert files_of(base) == files
    checked = Checked(base)
    assert checked.positions("journal_gap") == gone
    assert "journal_damage" not in checked.findings
    started = Started(base)
    wanted = [item for item in untimed(expected)["readAll"] if item["position"] not in gone]
    assert untimed(started.answers)["readAll"] == wanted
    assert started.mark.position == 20
    assert Repaired(base).done is None


def test_a_base_with_gaps_goes_on(base_of_segments: Path) -> None:
    """New records get new positions; dump, rebuild and check know gaps, and a subscriber learns of them."""
    base = base_of_segments
    drop(1)(base)
    (base / f"{RUN}/event-1700000000001-1-stream-Reasoning.json").unlink()
    assert Repaired(base).gone == {8, 9}
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        assert lost_to_a_subscriber(daemon.endpoint) == {8, 9}
        assert store(daemon.endpoint, [event("new")]) == [21]
        assert daemon.stop() == 0
    dumped = [json.loads(line) for line in run("dump", base).stdout.splitlines()]
    assert [line["position"] for line in dumped] == list(range(1, 22))
    lost = {line["position"]: line["gap"].get("op") for line in dumped if "gap" in line}
    assert lost == {8: "storeEvent", 9: None}
    assert {line["position"] for line in dumped if line.get("restored")} == {6, 7, 10, 11}
    assert run("rebuild", base).returncode == 0
    assert not Checked(base).findings


def lost_to_a_subscriber(endpoint: str) -> set[int]:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(endpoint)
        socket.send(b'{"v":1,"op":"readAll","id":1}\n{"waitMs":0}')
        header = json.loads(socket.recv().partition(b"\n")[0])
    return {position for first, last in header.get("gaps", []) for position in range(first, last + 1)}


def test_the_report_for_people_names_what_is_gone(base_of_segments: Path) -> None:
    base = base_of_segments
    drop(1)(base)
    (base / f"{RUN}/event-1700000000001-1-stream-Reasoning.json").unlink()
    result = run("repair", base)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert (
        'note journal_damage segment=0000000002.segment offset=64 position=6 reason="the segment is missing"'
        in lines
    )
    assert (
        f"finding record_gone position=8 op=storeEvent file={RUN}/event-1700000000001-1-stream-Reasoning.json"
        in lines
    )
    assert "finding older_gone first=9 last=9" in lines
    assert any(line.startswith("rewritten: ") and ".stored/repaired-0001" in line for line in lines)
    assert lines[-1] == "2 findings; now: 4 segments, 20 records, 4 restored, 2 gone"


def test_a_lost_event_that_is_stored_again_is_where_it_was(base: Path) -> None:
    """Its file has the name that it had, and those of the same name have theirs."""
    files = files_of(base)
    flip_payload(base, b'"e2"')
    (base / f"{RUN}/event-1700000000001-0-startRun.n0002.json").unlink()
    assert Repaired(base).gone == {4}
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [event("e2")])
        assert daemon.stop() == 0
    assert files_of(base) == files
    assert not Checked(base).findings


def test_a_lost_event_that_was_stored_twice_is_still_there(base: Path) -> None:
    """Answers come from its second record; its file is written by a rebuild."""
    files = files_of(base)
    before = Started(base).answers
    flip_payload(base, b'"e1"')
    (base / f"{RUN}/event-1700000000001-0-startRun.json").unlink()
    assert Repaired(base).gone == {3}
    assert Checked(base).findings == {"tree_missing_file"}
    after = Started(base).answers
    for answer in (before, after):
        (contents_of_run,) = [
            items for name, items in answer.items() if name.startswith("getEventContents j1")
        ]
        assert sorted(item["id"] for item in contents_of_run) == ["e1", "e2", "e3", "e4", "e5", "e6"]
    assert run("rebuild", base).returncode == 0
    assert files_of(base) == files


def test_a_job_whose_newest_version_is_gone_falls_back_and_is_named(base: Path) -> None:
    """The file in the tree is left as it is, and named."""
    flip_payload(base, b"1700000009999")
    (base / "jobs/j1/job.json").write_bytes(b"{}")
    done = Repaired(base)
    assert ("record_gone", {"position": 12, "op": "storeJob", "file": "jobs/j1/job.json"}) in done.lines
    assert Checked(base).findings == {"tree_wrong_content"}
    assert Started(base).answers["job j1"]["status"] == "running"  # type: ignore[call-overload]


def talk(endpoint: str, *stores: tuple[int, tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Stores of one session by their numbers."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(endpoint)
        found = []
        for seq, (op, value) in stores:
            header = {"v": 1, "op": op, "id": seq, "session": "ab" * 16, "seq": seq}
            socket.send(json.dumps(header).encode() + b"\n" + value)
            found.append(json.loads(socket.recv().split(b"\n", 1)[0]))
    return found


@pytest.mark.parametrize("starts", [0, 1], ids=["in the last segment", "in the segment before"])
def test_a_lost_store_that_is_sent_again_is_not_answered_as_if_it_were_there(
    tmp_path: Path, starts: int
) -> None:
    """It is not stored after those that came later either; a record taken back keeps its answer."""
    base = tmp_path / "base"
    stores = [(1, event("e1")), (2, job("old")), (3, job("old", totalSteps=5)), (4, event("e4"))]
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        assert [answer["position"] for answer in talk(daemon.endpoint, *stores)] == [1, 2, 3, 4]
        if not starts:
            assert daemon.stop() == 0
        daemon.make_sure_it_ended()
    for _ in range(starts):
        with running_daemon(base, *SMALL_SEGMENTS) as daemon:
            assert daemon.stop() == 0
    flip_payload(base, b'"totalSteps": 1')
    flip_payload(base, b'"e4"')
    assert Repaired(base).gone == {2}
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        first, second, third, fourth = talk(daemon.endpoint, *stores)
        assert [answer["position"] for answer in (first, third, fourth)] == [1, 3, 4]
        assert second["error"]["code"] == "SEQUENCE_OLD"
        assert talk(daemon.endpoint, (5, event("e5")))[0]["position"] == 5
        assert json.loads(read(daemon.endpoint, "retrieveJob", jobId="old"))["totalSteps"] == 5
