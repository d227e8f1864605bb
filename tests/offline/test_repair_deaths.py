"""A repair outlives a power cut, and one that is killed anywhere can be run again."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError, StoredError
from tests.helpers.datadir import SimulatedDisk
from tests.offline.bases import copy_base, segments
from tests.offline.damages import flip_payload
from tests.offline.inprocess import Checked, Repaired, Started, untimed
from tests.offline.segment_damages import drop, flips


def test_what_a_repair_wrote_outlives_a_power_cut(base_of_segments: Path) -> None:
    """When it says that it is done, the new segments are on the disk, not in the page cache alone."""
    flip_payload(base_of_segments, b'"e3"', segment=1)
    disk = SimulatedDisk()
    Repaired(base_of_segments, files=disk)
    before = {path.name: path.read_bytes() for path in segments(base_of_segments)}
    disk.lose_data()
    assert {path.name: path.read_bytes() for path in segments(base_of_segments)} == before


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
