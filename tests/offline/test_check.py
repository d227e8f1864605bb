"""`check` names each kind of damage, and nothing else."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.index.connection import cursor_crc
from perstack_stored.index.schema import SCHEMA_VERSION
from perstack_stored.journal.reader import LogPosition
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.offline.bases import (
    SMALL_SEGMENTS,
    Checked,
    change_index,
    checkpoint,
    event,
    job,
    one_of_each,
    run,
    segments,
    setting,
    store,
)

RUN = "jobs/j1/runs/r1"
Damage = Callable[[Path], object]


def contents(base: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a base, with its time of change."""
    return {
        str(path.relative_to(base)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def flip_payload(base: Path, text: bytes, segment: int = 0) -> None:
    path = segments(base)[segment]
    flip(path, path.read_bytes().index(text))


# --- nothing wrong ---------------------------------------------------------------------------------


def test_a_base_that_was_stopped_in_order_is_clean(base: Path) -> None:
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])
    assert checked.summary["records"] == 20
    assert checked.summary["files"] == len(files_of(base)) == 16


def test_a_base_of_several_segments_is_clean(base_of_segments: Path) -> None:
    """Recovery wrote records again, so the index holds addresses in what is void now."""
    checked = Checked(base_of_segments)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])


def test_what_lies_after_the_logical_end_of_a_segment_is_ignored(base_of_segments: Path) -> None:
    change_index(base_of_segments, "DELETE FROM cursor")  # or addresses there would be looked up
    first = segments(base_of_segments)[0]
    first.write_bytes(first.read_bytes() + b"PSE1 of long ago")
    assert Checked(base_of_segments).names == {"index_unusable"}


def test_check_changes_nothing_in_the_base_but_the_text_of_the_lock(base: Path) -> None:
    before = contents(base)
    assert Checked(base).status == 0
    after = contents(base)
    before.pop(".stored/lock")
    assert after.pop(".stored/lock")[1] == b""
    assert after == before


def test_check_for_people_says_clean(base: Path) -> None:
    result = run("check", base)
    assert result.returncode == 0
    assert result.stdout.startswith("clean; compared: 20 records, ")
    assert result.stderr == ""


def test_check_for_people_names_each_finding_in_a_line(base: Path) -> None:
    (base / "jobs/j1/job.json").unlink()
    (base / "jobs/a\nb").touch()
    result = run("check", base)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "finding tree_missing_file path=jobs/j1/job.json position=12"
    assert lines[1] == 'note tree_foreign_file path="jobs/a\\nb" kind=file'
    assert lines[-1].startswith("1 findings; compared: ")


# --- damage ----------------------------------------------------------------------------------------


def unlink(path: str) -> Damage:
    return lambda base: (base / path).unlink()


def replace(path: str, content: bytes) -> Damage:
    return lambda base: (base / path).write_bytes(content)


def move_cursor(base: Path, *, position: int = 0, offset: int = 0) -> None:
    """A cursor that is wrong, with the right checksum."""
    database = sqlite3.connect(base / ".stored/index.sqlite")
    store, *place = database.execute("SELECT store, position, segment, offset FROM cursor").fetchone()
    moved = LogPosition(place[0] + position, place[1], place[2] + offset)
    database.execute(
        "UPDATE cursor SET position = ?, offset = ?, crc = ?",
        (moved.position, moved.offset, cursor_crc(store, moved)),
    )
    database.commit()
    database.close()


def sql(*statements: str) -> Damage:
    return lambda base: change_index(base, *statements)


def link(path: str) -> Damage:
    """A symbolic link to the same content in the place of a file or folder."""

    def damage(base: Path) -> None:
        moved = base.parent / "moved"
        shutil.move(base / path, moved)
        (base / path).symlink_to(moved)

    return damage


def swap_for_folder(path: str) -> Damage:
    def damage(base: Path) -> None:
        (base / path).unlink()
        (base / path).mkdir()

    return damage


def swap_for_fifo(path: str) -> Damage:
    def damage(base: Path) -> None:
        (base / path).unlink()
        os.mkfifo(base / path)

    return damage


def swap_contents(one: str, other: str) -> Damage:
    def damage(base: Path) -> None:
        first, second = (base / one).read_bytes(), (base / other).read_bytes()
        (base / one).write_bytes(second)
        (base / other).write_bytes(first)

    return damage


def change_index_version(base: Path) -> None:
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 99')"
    subprocess.run([sys.executable, "-c", program, base / ".stored/index.sqlite"], check=True)


EVENT = f"{RUN}/event-1700000000001-0-startRun"
DAMAGES: dict[str, tuple[Damage, str, dict[str, Any]]] = {
    "a flipped byte in a payload": (
        lambda base: flip_payload(base, b"the third"),
        "journal_damage",
        {"segment": "0000000001.segment", "position": 6},
    ),
    "a flipped byte in the header of a segment": (
        lambda base: flip(segments(base)[0], 20),
        "journal_damage",
        {"segment": "0000000001.segment", "offset": 0},
    ),
    "a journal that is gone": (
        lambda base: segments(base)[0].unlink(),
        "journal_missing",
        {"left": "index.sqlite, tree.cursor"},
    ),
    "a segment that can't be opened": (
        link(".stored/journal/0000000001.segment"),
        "journal_damage",
        {"segment": "0000000001.segment"},
    ),
    "an index that is no database": (
        replace(".stored/index.sqlite", b"rubbish" * 1000),
        "index_unusable",
        {"reason": "file is not a database"},
    ),
    "an index of another version": (
        change_index_version,
        "index_unusable",
        {"reason": f"it has version 99, not {SCHEMA_VERSION}"},
    ),
    "an index of another journal": (
        sql("UPDATE cursor SET store = zeroblob(16)"),
        "index_unusable",
        {"reason": "the index belongs to another journal"},
    ),
    "an index that is a link": (link(".stored/index.sqlite"), "index_unusable", {}),
    "an index that is ahead": (
        lambda base: move_cursor(base, position=1),
        "index_ahead",
        {"position": 21, "journal": 20},
    ),
    "an index whose cursor was changed": (
        sql("UPDATE cursor SET position = 21"),
        "index_unusable",
        {"reason": "the checksum of the index's cursor does not match"},
    ),
    "an index with a wrong cursor": (
        lambda base: move_cursor(base, offset=-8),
        "index_wrong",
        {"table": "cursor"},
    ),
    "an index without a job": (
        sql("DELETE FROM job WHERE id = 'spaced'"),
        "index_missing_record",
        {"table": "job", "id": "spaced", "position": 19},
    ),
    "an index without a checkpoint": (
        sql("DELETE FROM checkpoint WHERE id = 'ç'"),
        "index_missing_record",
        {"table": "checkpoint", "job": "jöb 🚀", "id": "ç"},
    ),
    "an index without an event": (
        sql("DELETE FROM event WHERE position = 15"),
        "index_missing_record",
        {"table": "event", "job": "jöb 🚀", "run": "rün", "timestamp": 1700000000001, "n": 1},
    ),
    "an index without a setting": (
        sql("DELETE FROM setting WHERE position = 1"),
        "index_missing_record",
        {"table": "setting", "job": "j1", "run": "r1", "position": 1},
    ),
    "an index without a run": (
        sql("DELETE FROM run WHERE name = 'rün'"),
        "index_missing_record",
        {"table": "run", "job": "jöb 🚀", "run": "rün"},
    ),
    "an index that lost a twin": (
        sql("DELETE FROM twin WHERE n = 2"),
        "index_missing_record",
        {"table": "twin", "position": 4},
    ),
    "an index without its first place": (
        sql("DELETE FROM place"),
        "index_missing_record",
        {"table": "place", "position": 1},
    ),
    "an index with a place that holds nothing": (
        sql("INSERT INTO place VALUES (7, 1, 1000)"),
        "index_wrong",
        {"table": "place", "position": 7},
    ),
    "an index with a row too many": (
        sql("INSERT INTO job VALUES ('ghost', 1, 2, 1, 64, 10, 0)"),
        "index_extra_record",
        {"table": "job", "id": "ghost", "position": 2},
    ),
    "an index with a changed row": (
        sql("UPDATE job SET started_at = 5, length = 9 WHERE id = 'j1'"),
        "index_wrong",
        {"table": "job", "id": "j1", "position": 12, "columns": "started_at, length"},
    ),
    "an index with a wrong address": (
        sql("UPDATE checkpoint SET offset = offset + 8 WHERE id = 'c2'"),
        "index_wrong",
        {"table": "checkpoint", "job": "j1", "id": "c2", "columns": "segment, offset"},
    ),
    "an index with the address of a segment that is not there": (
        sql("UPDATE checkpoint SET segment = 77 WHERE id = 'c2'"),
        "index_wrong",
        {"table": "checkpoint", "id": "c2", "columns": "segment, offset"},
    ),
    "a setting that counts as written once": (
        sql("UPDATE setting SET rewritten = 0 WHERE position = 1"),
        "index_wrong",
        {"table": "setting", "job": "j1", "run": "r1", "columns": "rewritten"},
    ),
    "a tree without an event": (
        unlink(f"{EVENT}.json"),
        "tree_missing_file",
        {"path": f"{EVENT}.json", "position": 3},
    ),
    "a tree without a twin": (
        unlink(f"{EVENT}.n0003.json"),
        "tree_missing_file",
        {"path": f"{EVENT}.n0003.json", "position": 6},
    ),
    "a tree without a setting": (
        unlink(f"{RUN}/run-setting.json"),
        "tree_missing_file",
        {"path": f"{RUN}/run-setting.json", "position": 1},
    ),
    "a tree with a changed event": (
        replace(f"{EVENT}.json", b"{}"),
        "tree_wrong_content",
        {"path": f"{EVENT}.json", "position": 3},
    ),
    "a tree with a flipped byte": (
        lambda base: flip(base / "jobs/j1/checkpoints/c2.json", 500),
        "tree_wrong_content",
        {"path": "jobs/j1/checkpoints/c2.json", "reason": "other bytes"},
    ),
    "a tree with a job that is not indented": (
        replace("jobs/spaced/job.json", job("spaced")[1]),
        "tree_wrong_content",
        {"path": "jobs/spaced/job.json"},
    ),
    "a tree with a changed setting": (
        lambda base: flip(base / RUN / "run-setting.json", 10),
        "tree_wrong_content",
        {"path": f"{RUN}/run-setting.json"},
    ),
    "a tree with a folder in the place of a file": (
        swap_for_folder("jobs/j1/job.json"),
        "tree_wrong_type",
        {"path": "jobs/j1/job.json"},
    ),
    "a tree with a pipe in the place of a file": (
        swap_for_fifo("jobs/j1/job.json"),
        "tree_wrong_type",
        {"path": "jobs/j1/job.json"},
    ),
    "a tree with a link in the place of a file": (
        link(f"{EVENT}.n0002.json"),
        "tree_symlink",
        {"path": f"{EVENT}.n0002.json"},
    ),
    "a tree with a link in the place of a folder": (
        link("jobs/j1/runs"),
        "tree_symlink",
        {"path": "jobs/j1/runs"},
    ),
    "a tree whose jobs are a link": (link("jobs"), "tree_symlink", {"path": "jobs"}),
    "a cursor of the tree that was changed": (
        lambda base: flip(base / ".stored/tree.cursor", 30),
        "tree_cursor_damage",
        {},
    ),
    "a cursor of the tree that was cut": (
        lambda base: os.truncate(base / ".stored/tree.cursor", 5),
        "tree_cursor_damage",
        {},
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_named_alone_and_gives_status_1(base: Path, what: str) -> None:
    damage, name, facts = DAMAGES[what]
    damage(base)
    checked = Checked(base)
    assert checked.names == {name}, checked.findings
    found = checked.only(name)
    assert facts.items() <= found.items(), found
    assert checked.status == 1


def test_a_twin_swapped_with_its_twin_is_two_findings(base: Path) -> None:
    swap_contents(f"{EVENT}.json", f"{EVENT}.n0002.json")(base)
    checked = Checked(base)
    assert [line["name"] for line in checked.findings] == ["tree_wrong_content"] * 2


def test_each_damaged_place_of_a_journal_is_named(base_of_segments: Path) -> None:
    flip_payload(base_of_segments, b"startRun", 0)
    flip_payload(base_of_segments, b"sk-provider", 0)
    flip_payload(base_of_segments, b"proceeding", 1)
    checked = Checked(base_of_segments)
    assert checked.names == {"journal_damage"}
    assert [(line["segment"], line["position"]) for line in checked.findings] == [
        ("0000000001.segment", 1),
        ("0000000001.segment", 3),
        ("0000000002.segment", 9),
    ]
    assert checked.note_names == {"index_not_compared", "tree_not_compared"}


def test_a_missing_segment_is_damage(base_of_segments: Path) -> None:
    segments(base_of_segments)[1].unlink()
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["reason"]) == ("0000000002.segment", "it is missing")


def test_missing_first_segments_are_damage(base_of_segments: Path) -> None:
    for path in segments(base_of_segments)[:2]:
        path.unlink()
    found = Checked(base_of_segments).only("journal_damage")
    assert found["segment"] == "0000000001.segment to 0000000002.segment"


def test_a_missing_last_segment_is_seen_by_what_was_made_of_it(base_of_segments: Path) -> None:
    segments(base_of_segments)[-1].unlink()
    checked = Checked(base_of_segments)
    assert checked.names == {"index_ahead", "tree_ahead"}
    assert "tree_foreign_file" in checked.note_names


def test_a_cut_within_a_segment_is_damage(base_of_segments: Path) -> None:
    os.truncate(segments(base_of_segments)[1], 20_000)
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["position"]) == ("0000000002.segment", 10)


def test_a_cut_at_the_end_is_seen_by_what_was_made_of_it(base: Path) -> None:
    """Nothing that is left of the journal proves that there was more."""
    os.truncate(segments(base)[0], 3000)
    checked = Checked(base)
    assert checked.status == 1
    assert checked.names >= {"index_ahead", "tree_ahead"}


def test_a_segment_in_the_place_of_another_is_damage(base_of_segments: Path) -> None:
    shutil.copy(segments(base_of_segments)[0], segments(base_of_segments)[2])
    found = Checked(base_of_segments).only("journal_damage")
    assert (found["segment"], found["reason"]) == ("0000000003.segment", "it says that it is number 1")


# --- notes -----------------------------------------------------------------------------------------


def test_what_is_not_ours_is_a_note(base: Path) -> None:
    foreign = {
        "jobs/notes.txt": "file",
        "jobs/j1/link": "symbolic link",
        "jobs/j1/checkpoints/c1.json.bak": "file",
        f"{RUN}/event-01700000000001-0-startRun.json": "file",
        f"{RUN}/event-1700000000001-0-startRun.n0009.json": "file",
        f"{RUN}/event-99999999999999999999-0-startRun.json": "file",
        f"{RUN}/pipe": "special file",
        "jobs/j1/runs/r2": "folder",
        "jobs/unknown": "folder",
        "jobs/not utf-8 \udcff": "file",
        "jobs/events only/job.json": "file",
    }
    for path, kind in foreign.items():
        match kind:
            case "file":
                (base / path).write_bytes(b"{}")
            case "folder":
                (base / path).mkdir()
                (base / path / "inner").touch()
            case "symbolic link":
                (base / path).symlink_to("job.json")
            case _:
                os.mkfifo(base / path)
    checked = Checked(base)
    assert {line["path"]: line["kind"] for line in checked.notes} == foreign
    assert checked.note_names == {"tree_foreign_file"}
    assert checked.status == 0
    assert run("check", base).returncode == 0


def test_bytes_of_an_unfinished_write_at_the_end_are_a_note(base: Path) -> None:
    path = segments(base)[0]
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.rindex(b"PSE1") + 64)  # after the mark of the stop
        file.write(b"PSE1" + bytes(range(1, 200)))
    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"journal_torn_tail"})
    assert checked.only("journal_torn_tail")["segment"] == "0000000001.segment"


def test_an_imported_base_is_clean(base: Path) -> None:
    shutil.rmtree(base / ".stored")
    with running_daemon(base) as daemon:
        daemon.stop()
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])
    assert checked.summary["records"] == 16


def test_an_import_that_was_cut_short_is_a_note(base: Path) -> None:
    (base / ".stored/import.state").touch()
    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"import_unfinished"})


def test_an_index_that_is_gone_is_a_note(base: Path) -> None:
    (base / ".stored/index.sqlite").unlink()
    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"index_missing"})


def test_a_base_without_any_record_is_clean(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "base") as daemon:
        daemon.stop()
    checked = Checked(tmp_path / "base")
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])


def test_a_journal_without_a_segment_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "base/.stored/journal").mkdir(parents=True)
    checked = Checked(tmp_path / "base")
    assert (checked.status, checked.note_names) == (0, {"journal_empty"})


def test_a_tree_without_its_cursor_is_written_by_the_next_start(base: Path) -> None:
    (base / ".stored/tree.cursor").unlink()
    shutil.rmtree(base / "jobs")
    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"tree_behind"})
    assert checked.only("tree_behind")["files"] == 16


def test_a_tree_that_lags_is_distinguished_from_one_that_lost_a_file(base: Path, tmp_path: Path) -> None:
    """The tree's folder and cursor of an earlier moment stand for a daemon that was killed."""
    later = [setting(), job(status="failed"), event("late", stepNumber=9), checkpoint("c1", stepNumber=5)]
    old = tmp_path / "old"
    shutil.copytree(base / "jobs", old / "jobs")
    shutil.copy(base / ".stored/tree.cursor", old)
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, later)
        daemon.stop()
    shutil.rmtree(base / "jobs")
    shutil.move(old / "jobs", base)
    shutil.move(old / "tree.cursor", base / ".stored/tree.cursor")

    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"tree_behind"})
    assert checked.only("tree_behind") == {
        "name": "tree_behind",
        "note": True,
        "position": 20,
        "journal": 24,
        "files": 4,
    }
    (base / f"{EVENT}.json").unlink()
    (base / "jobs/jöb 🚀/runs/rün/run-setting.json").unlink()
    checked = Checked(base)
    assert checked.status == 1
    assert [line["position"] for line in checked.findings] == [17, 3]


def test_an_index_that_is_behind_is_compared_as_far_as_it_goes(base: Path, tmp_path: Path) -> None:
    old = tmp_path / "index.sqlite"
    shutil.copy(base / ".stored/index.sqlite", old)
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        store(daemon.endpoint, [event("late"), job("later")])
        daemon.stop()
    shutil.move(old, base / ".stored/index.sqlite")
    checked = Checked(base)
    assert (checked.status, checked.note_names) == (0, {"index_behind"})
    assert checked.only("index_behind")["position"] == 20
    change_index(base, "DELETE FROM job WHERE id = 'j1'")
    checked = Checked(base)
    assert (checked.status, checked.names) == (1, {"index_missing_record"})


# --- a daemon that was killed ----------------------------------------------------------------------


def test_a_daemon_killed_under_load_leaves_a_base_without_findings(tmp_path: Path) -> None:
    base = tmp_path / "base"
    load = (
        "import sys; from tests.offline.bases import *\n"
        "for i in range(10**6):\n"
        "  calls = [event(f'e{i}'), event(f't{i}', timestamp=i), checkpoint(f'c{i % 7}', stepNumber=i),\n"
        "           job(totalSteps=i), setting()]\n"
        "  store(sys.argv[1], calls)\n"
    )
    for expected_starts in range(1, 4):
        with running_daemon(base, *SMALL_SEGMENTS) as daemon:
            loader = subprocess.Popen(
                [sys.executable, "-c", load, daemon.endpoint], stderr=subprocess.DEVNULL
            )
            try:
                written = base / "jobs/j1/runs/r1"
                eventually(
                    lambda: written.exists() and len(list(written.iterdir())) > 60 * expected_starts,  # noqa: B023
                    "the tree grows",
                    30,
                )
                daemon.kill()
            finally:
                loader.kill()
                loader.wait()
        checked = Checked(base)
        assert checked.status == 0, checked.findings
        assert checked.note_names <= {"journal_unproven", "journal_torn_tail", "index_behind", "tree_behind"}
    with running_daemon(base, *SMALL_SEGMENTS) as daemon:
        assert daemon.stop() == 0
    checked = Checked(base)
    assert (checked.status, checked.findings, checked.notes) == (0, [], [])


# --- what can't be checked -------------------------------------------------------------------------


def test_a_base_that_is_served_is_refused_and_the_daemon_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with running_daemon(base) as daemon:
        store(daemon.endpoint, one_of_each())
        for command in ("check", "rebuild", "dump"):
            result = run(command, base)
            assert result.returncode == 2
            assert result.stdout == ""
            assert f"process id {daemon.pid}" in result.stderr
            assert daemon.endpoint in result.stderr
        assert daemon.stop() == 0


@pytest.mark.parametrize("command", ["check", "rebuild", "dump"])
@pytest.mark.parametrize("made", ["", "base", "base/.stored"])
def test_nothing_is_made_in_a_folder_that_is_no_base(tmp_path: Path, command: str, made: str) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    result = run(command, tmp_path / "base")
    assert result.returncode == 2
    assert "is not the base of a daemon" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["rebuild", "dump"])
def test_without_a_journal_there_is_nothing_to_do(base: Path, command: str) -> None:
    segments(base)[0].unlink()
    before = contents(base)
    result = run(command, base)
    assert (result.returncode, result.stdout) == (2, "")
    assert "has no journal" in result.stderr
    after = contents(base)
    assert before.pop(".stored/lock")
    assert after.pop(".stored/lock")
    assert after == before


def test_no_room_for_the_temporary_index_is_said(base: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "perstack_stored", "check", "--base-path", str(base)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        preexec_fn=_small_files_only,
    )
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr


def _small_files_only() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_checkpoints_are_identified_by_their_job(base: Path) -> None:
    """The same checkpoint id in two jobs is two files."""
    with running_daemon(base) as daemon:
        store(daemon.endpoint, [checkpoint("c1", jobId="spaced")])
        daemon.stop()
    (base / "jobs/spaced/checkpoints/c1.json").unlink()
    assert Checked(base).only("tree_missing_file")["path"] == "jobs/spaced/checkpoints/c1.json"


@pytest.mark.parametrize("value", ["'x'", "-1", "9223372036854775807", "x'00'"])
@pytest.mark.parametrize("column", ["segment", "offset"])
def test_an_address_that_is_none_is_named(base: Path, column: str, value: str) -> None:
    """Found by the campaign: a damaged index may hold anything, of any type."""
    change_index(base, f"UPDATE place SET {column} = {value}", f"UPDATE job SET {column} = {value}")
    checked = Checked(base)
    assert (checked.status, checked.names) == (1, {"index_wrong"})
