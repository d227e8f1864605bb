"""`check` names each kind of damage, and nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.index.schema import SCHEMA_VERSION
from tests.offline.bases import Checked, job, segments
from tests.offline.damages import (
    Damage,
    change_index_version,
    flip,
    flip_payload,
    link,
    move_cursor,
    replace,
    sql,
    swap_contents,
    swap_for_fifo,
    swap_for_folder,
    unlink,
)

RUN = "jobs/j1/runs/r1"
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
