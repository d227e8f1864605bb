"""An index that can't be opened for the moment is no damaged one."""

import sqlite3
from pathlib import Path

import pytest

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.connection import connect, may_pass


def test_what_may_pass_is_distinguished_from_damage(tmp_path: Path) -> None:
    """No room, no permission and no way to open it may pass; other bytes than SQLite's do not."""
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "not there" / "index.sqlite")
    assert may_pass(caught.value)

    small = sqlite3.connect(tmp_path / "small.sqlite")
    small.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        small.executescript("CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x)")
    small.close()
    assert may_pass(full.value)

    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 1000)
    damaged = sqlite3.connect(tmp_path / "damaged.sqlite")
    with pytest.raises(sqlite3.DatabaseError) as found:
        damaged.execute("SELECT * FROM sqlite_master").fetchall()
    damaged.close()
    assert not may_pass(found.value)


def test_a_schema_that_is_no_text_is_damage(tmp_path: Path) -> None:
    """SQLite's message quotes its bytes, and Python fails to decode them."""
    path = str(tmp_path / "index.sqlite")
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE a (x); PRAGMA writable_schema = 1;"
        "UPDATE sqlite_master SET name = CAST(x'61b7' AS TEXT), sql = 'CREATE TABLE ('"
    )
    database.close()
    with pytest.raises(IndexUnusableError):
        connect(path, read_only=False)
