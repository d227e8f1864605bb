"""A backup that is damaged is refused, and no base is made of it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import StoredError
from perstack_stored.offline.backup.manifest import BackupDamagedError
from tests.offline.backups import back_up, bring_back, manifest_of


def test_a_backup_that_is_damaged_is_refused_and_leaves_no_base(original: Path, tmp_path: Path) -> None:
    """Any byte of any file, a file cut or missing, a manifest that is none; the damage is named."""
    target = tmp_path / "backup"
    back_up(original, target)
    random = Random(7)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])

    ways: list[Callable[[Path], object]] = [
        flip,
        flip,
        flip,
        cut,
        Path.unlink,
        lambda p: p.write_bytes(b"{}"),
    ]
    for path in sorted(target.iterdir()):
        for number, damage in enumerate(ways):
            damaged = tmp_path / f"{path.name}-{number}"
            shutil.copytree(target, damaged)
            damage(damaged / path.name)
            base = tmp_path / f"base-{path.name}-{number}"
            with pytest.raises(StoredError) as caught:
                bring_back(damaged, base)
            if damage is not Path.unlink or path.name != "backup.json":
                assert isinstance(caught.value, BackupDamagedError)
                assert path.name in str(caught.value)
            assert not base.exists() or not list(base.iterdir())


def test_a_manifest_with_another_time_or_position_is_refused(original: Path, tmp_path: Path) -> None:
    """It can still be read, and says what was never written: its checksum tells."""
    back_up(original, tmp_path / "backup")
    path = tmp_path / "backup" / "backup.json"
    good = path.read_text()
    for field in ("timeMs", "position"):
        path.write_text(re.sub(rf'("{field}":\d*)(\d)', lambda m: f"{m[1]}{9 - int(m[2])}", good))
        assert path.read_text() != good
        with pytest.raises(BackupDamagedError, match="does not match its checksum"):
            manifest_of(tmp_path / "backup")


def test_a_copy_that_reads_back_wrong_does_not_count(original: Path, tmp_path: Path) -> None:
    """What the disk makes of it is looked at before the manifest names it."""

    class Forgetful(FileSystem):
        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            if source.endswith(".part") and "00000003-" in source:
                fd = self.open(source, dir_fd=source_dir, write=True)
                self.write(fd, [b"\0"], 200)
                self.close(fd)
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    with pytest.raises(BackupDamagedError, match="0000000003-"):
        back_up(original, tmp_path / "backup", Forgetful())
    assert manifest_of(tmp_path / "backup") is None
