"""Power cuts on a real file system. `make soak` does the same two hundred times."""

import os
import random
from pathlib import Path

import pytest

from tests.crash.cuts import power_cuts
from tests.crash.rounds import Rounds
from tests.helpers.image import image, needs_images


def test_a_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    """The tool itself: a synced file is there after the cut, one that was only written is not."""
    needs_images()
    with image(tmp_path, 64 << 20) as disk:
        for name, synced in (("synced", True), ("written", False)):
            with (disk.path / name).open("wb") as file:
                file.write(b"x" * 10_000)
                if synced:
                    os.fsync(file.fileno())
        disk.cut_power()
        disk.unmount()
        disk.check()
        disk.mount()
        assert (disk.path / "synced").read_bytes() == b"x" * 10_000
        assert not (disk.path / "written").exists()


def test_the_disk_of_a_failure_is_kept(tmp_path: Path) -> None:
    """It is unmounted, and there to be looked at; that of a test that went well is gone."""
    needs_images()
    with pytest.raises(AssertionError, match="wrong"), image(tmp_path, 16 << 20, name="bad") as bad:
        raise AssertionError("wrong")
    with image(tmp_path, 16 << 20, name="good") as good:
        pass
    assert not bad.path.is_mount()
    assert not good.path.is_mount()
    assert [path.name for path in tmp_path.glob("*.img")] == ["bad.img"]


@pytest.mark.timeout(300)
def test_power_cuts_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    """Cut, file system check, mount, start; raw clients and ours go on through all of them."""
    needs_images()
    verdict = power_cuts(tmp_path, Rounds(3, random.Random(5)))
    assert not verdict.kinds, str(verdict)
    assert verdict.acknowledged > 200
