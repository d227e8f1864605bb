"""`check`: what is a note and no finding, bases of killed daemons, and what can't be checked."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import eventually, running_daemon
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


def contents(base: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a base, with its time of change."""
    return {
        str(path.relative_to(base)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }


EVENT = f"{RUN}/event-1700000000001-0-startRun"


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


def test_no_room_for_the_temporary_index_is_reported(base: Path) -> None:
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
def test_an_invalid_address_is_named(base: Path, column: str, value: str) -> None:
    """Found by the campaign: a damaged index may hold anything, of any type."""
    change_index(base, f"UPDATE place SET {column} = {value}", f"UPDATE job SET {column} = {value}")
    checked = Checked(base)
    assert (checked.status, checked.names) == (1, {"index_wrong"})
