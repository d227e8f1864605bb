"""What an older version wrote is read by this one: samples are kept, and never made again.

`tests/data/base-format-1.tar.gz` was written by version 0.1.0 (journal format 1, index schema 2, backup
format 1): a base of four segments that holds each kind of record, colliding and repeated events, a session,
crashes and a gap after a repair; a backup of it; its answers and files.
"""

import json
import tarfile
from pathlib import Path

import pytest

from tests.helpers.daemon import DATA, eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, event
from tests.offline.bases import Checked, answers, run

SESSION = "5e" * 16  # stored the positions 21 to 25


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    with tarfile.open(DATA / "base-format-1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_older_base_is_clean_and_served_as_it_was(sample: Path) -> None:
    """The same answers and files; what is stored goes on, and its session is remembered."""
    expected = json.loads((sample / "expected.json").read_text())
    checked = Checked(sample / "base")
    assert (checked.findings, checked.note_names & {"index_older"}) == ([], {"index_older"})
    with running_daemon(sample / "base") as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        assert {name: body.decode() for name, body in answers(daemon).items()} == expected["answers"]
        assert {name: text.decode() for name, text in files_of(daemon.base).items()} == expected["files"]
        again = event("b4", timestamp=4)
        assert raw.ask("storeEvent", again, session=SESSION, seq=5).position == 25
        assert raw.store("storeEvent", event("goes on")) == 26
        assert daemon.stop() == 0
    assert Checked(sample / "base").findings == []


def test_an_older_index_vouches_for_lost_records(sample: Path) -> None:
    """It is all there is where a journal is found damaged after an update, before the first start."""
    segment = min((sample / "base/.stored/journal").glob("*.segment"))
    data = segment.read_bytes()
    place = data.index(b'"startRun"')
    segment.write_bytes(data[:place] + b'"startRuN"' + data[place + 10 :])
    repaired = run("repair", sample / "base")
    assert "the index has version" not in repaired.stdout + repaired.stderr
    expected = json.loads((sample / "expected.json").read_text())
    with running_daemon(sample / "base") as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        assert {name: body.decode() for name, body in answers(daemon).items()} == expected["answers"]


def test_an_older_backup_can_be_restored(sample: Path) -> None:
    """And gives the tree of the base that it was taken of."""
    expected = json.loads((sample / "expected.json").read_text())
    restored = run("restore", sample / "restored", str(sample / "backup"))
    assert restored.returncode == 0, restored.stderr
    with running_daemon(sample / "restored") as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        assert {name: text.decode() for name, text in files_of(daemon.base).items()} == expected["files"]
        assert daemon.stop() == 0
