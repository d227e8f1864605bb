"""Damages of a base: bytes, files, and rows of its index."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from perstack_stored.index.connection import cursor_crc
from perstack_stored.journal.reader import LogPosition
from tests.offline.bases import change_index, segments

Damage = Callable[[Path], object]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def flip_payload(base: Path, text: bytes, segment: int = 0) -> None:
    """Damage the first record that holds a text, which is too long to stand in a checksum by chance."""
    assert len(text) >= 4
    path = segments(base)[segment]
    flip(path, path.read_bytes().index(text))


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
