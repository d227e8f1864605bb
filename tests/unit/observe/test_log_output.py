"""Lines that can't be written harm nothing, and are counted."""

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from perstack_stored.observe import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def _configure(
    monkeypatch: pytest.MonkeyPatch, stream: io.TextIOBase
) -> structlog.typing.FilteringBoundLogger:
    monkeypatch.setattr("sys.stderr", stream)
    log.configure(json=True, level="info")
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def test_lines_that_a_full_disk_does_not_take_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream, open("/dev/full", "w") as full:
        kept = os.dup(stream.fileno())
        logger = _configure(monkeypatch, stream)
        logger.info("first")
        os.dup2(full.fileno(), stream.fileno())
        logger.info("lost")
        logger.error("lost as well", text="\udcff")
        os.dup2(kept, stream.fileno())
        os.close(kept)
        logger.info("next")
        logger.info("last")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line.get("lines_lost")) for line in lines] == [
        ("first", None), ("next", 2), ("last", None),
    ]  # fmt: skip


def test_a_line_that_was_cut_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that fills up takes the beginning of a line."""
    path = tmp_path / "log"
    write, left = os.write, [5]

    def fill_up(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        count = write(descriptor, data[: left[0]])
        left[0] -= count
        return count

    with path.open("w") as stream:
        logger = _configure(monkeypatch, stream)
        with monkeypatch.context() as patched:
            patched.setattr("perstack_stored.observe.log_output.os.write", fill_up)
            logger.info("cut")
            logger.info("lost")
        logger.info("next")
    cut, line = path.read_text().splitlines()
    assert len(cut) == 5
    assert json.loads(line)["lines_lost"] == 2


def test_a_reader_that_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        logger = _configure(monkeypatch, stream)
        os.close(reader)
        logger.warning("nobody reads this")
