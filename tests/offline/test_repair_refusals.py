"""A start that finds damage names the repair, and a repair that can't be right is refused."""

import json
from pathlib import Path

import pytest
from crc32c import crc32c

from tests.helpers.daemon import running_daemon
from tests.offline.bases import SMALL_SEGMENTS, contents, run, segments, unlocked
from tests.offline.damages import flip_payload
from tests.offline.segment_damages import drop

CONFIG_STATUS = 78


def test_a_start_that_finds_damage_names_the_repair(base: Path) -> None:
    flip_payload(base, b'"e3"')
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
