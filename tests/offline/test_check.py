"""`check` names each kind of damage, and nothing else."""

import os
import shutil
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
from tests.helpers.daemon import files_of
from tests.offline.bases import (
    Checked,
    change_index,
    job,
    run,
    segments,
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


def test_bytes_after_the_logical_end_of_a_segment_are_ignored(base_of_segments: Path) -> None:
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
    "an index with an event at another place": (
        sql("UPDATE event SET offset = offset + 8 WHERE position = 15"),
        "index_wrong",
        {"table": "event", "run": "rün", "position": 15, "columns": "segment, offset"},
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
    "an index with a wrong count of a run": (
        sql("UPDATE run_count SET events = events + 1 WHERE run = 1"),
        "index_wrong",
        {"table": "run_count", "columns": "events"},
    ),
    "an index with a wrong status of a run": (
        sql("UPDATE run SET status = 'other' WHERE id = (SELECT run FROM checkpoint LIMIT 1)"),
        "index_wrong",
        {"table": "run", "columns": "status"},
    ),
    "an index that lost a job without a Job": (
        sql("DELETE FROM known_job WHERE id = 1"),
        "index_missing_record",
        {"table": "known_job"},
    ),
    "an index that passes over records of a job": (
        sql("DELETE FROM job_span WHERE job = 'j1'"),
        "index_missing_record",
        {"table": "job_span"},
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
