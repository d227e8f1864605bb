"""`repair` takes back what the index vouches for, at its position, and names what is gone."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from crc32c import crc32c

from perstack_storage import Client
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, StoredError
from tests.helpers.daemon import files_of, running_daemon
from tests.helpers.datadir import SimulatedDisk
from tests.offline.bases import (
    SMALL_SEGMENTS,
    contents,
    copy_base,
    event,
    job,
    read,
    run,
    segments,
    store,
)
from tests.offline.damages import flip, flip_payload
from tests.offline.inprocess import Checked, Items, Repaired, Started

RUN = "jobs/j1/runs/r1"
CONFIG_STATUS = 78
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def expected(_stored_in_segments: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Items]:
    """The answers of the base that was not damaged."""
    return Started(copy_base(_stored_in_segments, tmp_path_factory.mktemp("whole") / "base")).answers


def untimed(answers: dict[str, Items]) -> dict[str, Items]:
    """The answers without the times of records that were written again."""
    read_all = [
        {name: value for name, value in item.items() if name != "time"} for item in answers["readAll"]
    ]
    return {**answers, "readAll": read_all}


def unlocked(base: Path) -> dict[str, bytes]:
    """All files of a base; the lock says who held it last."""
    return {name: content for name, (_, content) in contents(base).items() if name != ".stored/lock"}


def flip_head(number: int) -> Damage:
    return lambda base: flip(segments(base)[number], 80)


def flip_text(text: bytes) -> Damage:
    def damage(base: Path) -> None:
        for path in segments(base):
            place = path.read_bytes().rfind(text)
            if place >= 0:
                flip(path, place)

    return damage


def drop(number: int) -> Damage:
    return lambda base: segments(base)[number].unlink()


def cut(number: int, size: int) -> Damage:
    return lambda base: os.truncate(segments(base)[number], size)


def overwrite(number: int, content: bytes) -> Damage:
    return lambda base: segments(base)[number].write_bytes(content)


def drop_all_but_the_first(base: Path) -> None:
    for path in segments(base)[1:]:
        path.unlink()


def both(*damages: Damage) -> Damage:
    def damage(base: Path) -> None:
        for each in damages:
            each(base)

    return damage


def drop_file(path: str) -> Damage:
    return lambda base: (base / path).unlink()


def flips(number: int, *offsets: int) -> Damage:
    def damage(base: Path) -> None:
        for offset in offsets:
            flip(segments(base)[number], offset)

    return damage


# --- everything can be taken back ------------------------------------------------------------------


RECOVERABLE: dict[str, Damage] = {
    "an event's payload": lambda base: flip_payload(base, b"e3", segment=1),
    "a checkpoint's payload": lambda base: flip_payload(base, b"xxxx", segment=1),
    "the magic of an entry": lambda base: flip(
        segments(base)[0], segments(base)[0].read_bytes().index(b"PSE1", 200)
    ),
    "the snapshot of the sessions": flips(1, 100),
    "the snapshot of the last segment": flips(3, 100),
    "the version of a segment": flips(2, 8),
    "the number of a segment": flips(2, 12),
    "the store of a segment": flips(2, 20),
    "the first position of a segment": flips(2, 33),
    "the end before a segment": flips(2, 41),
    "the proven end of a segment": flips(2, 49),
    "the salt of a segment": flips(2, 57),
    "the checksum of a segment's header": flips(2, 61),
    "the header of the first segment": flips(0, 20),
    "the header of the last segment": flips(3, 20),
    "the salts of all segments": both(*(flips(n, 57) for n in range(4))),
}


@pytest.mark.parametrize("damage", RECOVERABLE.values(), ids=RECOVERABLE.keys())
def test_what_the_index_vouches_for_is_taken_back(
    base_of_segments: Path, damage: Damage, expected: dict[str, Items]
) -> None:
    """After a repair every answer is what it was, and every position; the damaged bytes are kept."""
    base = base_of_segments
    files = files_of(base)
    damage(base)
    damaged = {path.name: path.read_bytes() for path in segments(base)}
    before = unlocked(base)
    dry = Repaired(base, dry_run=True)
    assert unlocked(base) == before
    done = Repaired(base)
    assert done.damage
    assert (done.gone, done.findings) == (set(), 0)
    assert (done.lines, done.compared) == (dry.lines, dry.compared)
    assert done.done is not None
    kept = base / ".stored" / done.done.kept_in
    copies = {path.name.removesuffix(".damaged"): path.read_bytes() for path in kept.glob("*.damaged")}
    assert copies == {name: damaged[name] for name in done.done.segments}
    checked = Checked(base)
    assert (checked.findings, checked.notes) == (set(), {"index_missing"})
    assert Started(base).answers == expected
    assert files_of(base) == files
    assert not Checked(base).lines
    again = Repaired(base)
    assert (again.done, again.lines) == (None, [])


# --- what is gone ----------------------------------------------------------------------------------


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
        both(drop(1), drop_file(f"{RUN}/event-1700000000001-1-stream-Reasoning.json")),
        {8, 9},
    ),
    "a file is damaged too": (
        both(drop(1), lambda base: flip(base / "jobs/j1/checkpoints/c2.json", 9)),
        {9, 10},
    ),
    "the index is gone too": (
        both(lambda base: flip_payload(base, b"e3", segment=1), drop_file(".stored/index.sqlite")),
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


@pytest.mark.parametrize("damage", [flip_head(0), drop(1), flip_head(3)])
def test_a_repair_takes_over_the_epochs(base_of_segments: Path, damage: Damage) -> None:
    """An earlier subscriber goes on after it; new records are of another epoch."""
    base = base_of_segments
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        store(daemon.endpoint, [event("of the second start")])
        before = {record["position"]: record.get("epoch") for record in client.follow(idle_s=0)}
        assert daemon.stop() == 0
    assert len(set(before.values())) == 5
    damage(base)
    assert Repaired(base).done
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        store(daemon.endpoint, [event("new")])
        after = {record["position"]: record.get("epoch") for record in client.follow(idle_s=0)}
        new = after.popitem()
        assert after.items() <= before.items()
        assert new[1] not in before.values()
        assert list(client.follow(21, epoch=before[21], idle_s=0))


@pytest.mark.parametrize("damage", [flip_head(-1), flip_text(b"after the cursor")])
def test_a_repair_keeps_the_named_cursors(base_of_segments: Path, damage: Damage) -> None:
    """Those that were set in the damaged segment, and those at its head."""
    base = base_of_segments
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("early", 2)
        store(daemon.endpoint, [event("before the cursor")])
        assert daemon.stop() == 0
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("late", 5)
        store(daemon.endpoint, [event("after the cursor")])
        before = [(one["name"], one["position"]) for one in client.cursors()]
        assert before == [("early", 2), ("late", 5)]
        assert daemon.stop() == 0
    assert not Checked(base).findings
    damage(base)
    assert Repaired(base).done
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        found = [(one["name"], one["position"]) for one in client.cursors()]
        assert found == before
        assert daemon.stop() == 0


def test_a_start_that_finds_damage_names_the_repair(base: Path) -> None:
    flip_payload(base, b"e3")
    result = run("serve", base)
    assert result.returncode == CONFIG_STATUS
    reason = json.loads(result.stderr.splitlines()[-1])["reason"]
    assert reason.startswith("damage in journal segment 0000000001.segment at offset ")
    assert ", position 6: " in reason
    assert "`perstack-stored repair" in reason


def test_a_start_that_misses_the_end_names_the_repair(base_of_segments: Path) -> None:
    drop(3)(base_of_segments)
    for command, status in (("serve", CONFIG_STATUS), ("rebuild", 2)):
        result = run(command, base_of_segments)
        assert result.returncode == status
        assert "`perstack-stored repair`" in result.stderr
        assert "up to 20" in result.stderr


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


# --- sessions --------------------------------------------------------------------------------------


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


# --- refused ---------------------------------------------------------------------------------------


def test_what_a_repair_wrote_outlives_a_power_cut(base_of_segments: Path) -> None:
    """When it says that it is done, the new segments are on the disk, not in the page cache alone."""
    flip_payload(base_of_segments, b"e3", segment=1)
    disk = SimulatedDisk()
    Repaired(base_of_segments, files=disk)
    before = {path.name: path.read_bytes() for path in segments(base_of_segments)}
    disk.lose_data()
    assert {path.name: path.read_bytes() for path in segments(base_of_segments)} == before


def test_it_is_refused_while_a_daemon_runs(base: Path) -> None:
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        result = run("repair", base)
        assert result.returncode == 2
        assert f"process id {daemon.pid}" in result.stderr


def test_a_folder_that_is_no_base_is_refused(tmp_path: Path) -> None:
    assert run("repair", tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_base_without_a_journal_is_refused(base: Path) -> None:
    for path in segments(base):
        path.unlink()
    result = run("repair", base)
    assert result.returncode == 2
    assert "there is no journal to repair" in result.stderr


def change_header(path: Path, offset: int, byte: int) -> None:
    """Change a segment's header, and its checksum with it."""
    data = bytearray(path.read_bytes())
    data[offset] = byte
    data[60:64] = crc32c(bytes(data[:60])).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("command", ["serve", "repair", "check", "rebuild", "dump", "import"])
def test_a_journal_of_a_newer_version_is_refused_untouched(
    base_of_segments: Path, command: str, tmp_path: Path
) -> None:
    base = base_of_segments
    change_header(segments(base)[-1], 8, 3)  # its version
    before = contents(base)
    (tmp_path / "source/jobs").mkdir(parents=True)
    result = run(command, base, *([str(tmp_path / "source")] if command == "import" else []))
    assert result.returncode == {"serve": CONFIG_STATUS, "check": 1}.get(command, 2)
    assert "Traceback" not in result.stderr
    assert "version 3 of the journal's format is not known" in result.stdout + result.stderr
    after = contents(base)
    before.pop(".stored/lock")
    after.pop(".stored/lock")
    assert after == before


def test_segments_of_different_stores_are_refused(base_of_segments: Path) -> None:
    path = segments(base_of_segments)[0]
    change_header(path, 20, path.read_bytes()[20] ^ 1)
    before = unlocked(base_of_segments)
    result = run("repair", base_of_segments)
    assert result.returncode == 2
    assert "different stores" in result.stderr
    assert unlocked(base_of_segments) == before


# --- cut short -------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


class KilledFiles(FileSystem):
    """Real files whose user is killed before the call number `kill_at` that changes anything."""

    CHANGES = ("make_dir", "create", "give_name", "write", "sync_data", "sync", "rename", "unlink")

    def __init__(self, kill_at: int | None) -> None:
        super().__init__()
        self.calls = 0
        self._kill_at = kill_at

    def __getattribute__(self, name: str) -> Any:
        if name in KilledFiles.CHANGES:
            self.calls += 1
            if self.calls == self._kill_at:
                raise Killed
        return super().__getattribute__(name)


def damage_for_kills(base: Path) -> None:
    flip_payload(base, b'"e1"')
    flips(3, 20)(base)
    drop(1)(base)


def test_a_repair_that_is_killed_anywhere_can_be_run_again(base_of_segments: Path, tmp_path: Path) -> None:
    """In between a start is refused; after it all is as if it had not been interrupted."""
    whole = copy_base(base_of_segments, tmp_path / "whole")
    damage_for_kills(whole)
    counting = KilledFiles(None)
    gone = Repaired(whole, files=counting).gone
    assert gone == {9}
    answers = untimed(Started(whole).answers)
    refused = 0
    for kill_at in range(1, counting.calls + 1):
        base = copy_base(base_of_segments, tmp_path / str(kill_at))
        damage_for_kills(base)
        with pytest.raises(Killed):
            Repaired(base, files=KilledFiles(kill_at))
        if (base / ".stored/repaired-0001").exists():
            break  # only its name may not be on disk yet
        with pytest.raises(StoredError) as error:
            Started(base)
        refused += "run `perstack-stored repair` again" in str(error.value)
        with contextlib.suppress(ConfigError):  # the repair must be carried out first
            assert Repaired(base, dry_run=True).gone == gone
        Repaired(base)
        assert Repaired(base).lines == []
        assert not Checked(base).findings
        assert untimed(Started(base).answers) == answers
        assert [path.name for path in (base / ".stored").glob("repair*")] == ["repaired-0001"]
        shutil.rmtree(base)
    assert kill_at == counting.calls
    assert refused > 5
