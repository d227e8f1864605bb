"""Compares a copy of the index with a fresh index made from the journal, for `check`. Reads only.

The copy is what SQLite opens: even a read-only connection makes files beside a database. Segments and offsets
may differ, since recovery writes records again in the next segment; then the bytes at the address count.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from perstack_stored.datadir.layout import INDEX_NAME, DataDir
from perstack_stored.errors import IndexUnusableError
from perstack_stored.index.connection import connect, read_cursor
from perstack_stored.index.schema import SCHEMA_VERSION
from perstack_stored.index.summaries import COUNT_COLUMNS, JOB_COLUMNS, RUN_COLUMNS
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import NotAnEntryError
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.checksum import crc32c
from perstack_stored.model.gaps import GapRange
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import Advance, progress, slices

from .erased import as_if_never_stored, check_erased
from .index_events import EventComparison
from .journal import JournalEnd

FRESH_NAME = "fresh.sqlite"
_COPY_NAME = "copy.sqlite"
_COPY_BYTES = 1 << 20
_SQLITE_FAULTS_MAX = 20
# Errors of an invalid address: of another type, negative, or out of bounds.
_NO_ADDRESS = (OSError, TypeError, ValueError, OverflowError)


class _Table(NamedTuple):
    """What is compared of a table: by `key`, the `values`, and the bytes at the address if it has one."""

    name: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    has_address: bool = True

    @property
    def position(self) -> str:
        """SQL of the position to report."""
        return "position" if "position" in (*self.key, *self.values) else "NULL"


_PLACE = ("position", "length", "crc")
_SPANS = _Table("job_span", ("job", "span"), (), has_address=False)
_TABLES = (
    _Table("run", ("job", "name"), ("id", *RUN_COLUMNS), has_address=False),
    _Table("run_count", ("run",), COUNT_COLUMNS, has_address=False),
    _Table("known_job", ("name",), ("id", *JOB_COLUMNS), has_address=False),
    _Table("job", ("id",), ("started_at", *_PLACE)),
    _Table("checkpoint", ("job", "id"), ("step", "run", *_PLACE)),
    _Table("older", ("job", "kind", "id", "position"), ("until", "step", "run", "length", "crc")),
    _Table("setting", ("run",), ("updated_at", "rewritten", "lacks", "sent_at", *_PLACE)),
    _Table("twin", ("position",), ("n",), has_address=False),
    _Table("gap", ("first",), ("last",), has_address=False),
    _Table(
        "deletion",
        ("position",),
        ("time", "job", "run", "value", "crc", "last_run", "is_redaction"),
        has_address=False,
    ),
    _Table("deleted_checkpoint", ("deletion", "id"), ("id",), has_address=False),
)


def check_index(base: DataDir, end: JournalEnd, reader: JournalReader, scratch: str, report: Report) -> str:
    """Report how the index differs from the journal. Returns the path of a complete fresh index."""
    fresh_path = os.path.join(scratch, FRESH_NAME)
    fresh = IndexWriter(fresh_path, reader, end.store)
    with progress("index (records)", end.mark.position) as advance:
        place = _open_copy(base, end, scratch, report)
        until = end.mark.position if place is None else min(place.position, end.mark.position)
        rest = reader.entries(fresh.place, end.mark)
        _apply(fresh, takewhile(lambda e: e.header.position + e.header.count - 1 <= until, rest), advance)
        if place is not None and place.position <= end.mark.position:
            copy_path = os.path.join(scratch, _COPY_NAME)
            check_erased(copy_path, end, reader, report)
            comparison = _Comparison(fresh_path, copy_path, reader, report, end.erased)
            comparison.run(place, fresh.place)
        _apply(fresh, reader.entries(fresh.place, end.mark), advance)
    fresh.close()
    return fresh_path


def _apply(fresh: IndexWriter, entries: Iterable[Entry], advance: Advance) -> None:
    for portion in slices(entries):
        fresh.apply(portion)
        advance(sum(entry.header.count for entry in portion))


# --- the base's own index --------------------------------------------------------------------------


def _open_copy(base: DataDir, end: JournalEnd, scratch: str, report: Report) -> LogPosition | None:
    """Copy the index and return its log position; None if it can't be compared."""
    try:
        path = copy_index(base, scratch)
    except OSError as error:
        report.add("index_unusable", reason=error.strerror)
        return None
    if not os.path.exists(path):
        report.add("index_missing")
        return None
    try:
        database = connect(path, read_only=False)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        place = None
        if version == SCHEMA_VERSION:
            place = read_cursor(database, end.store)
        database.close()
    except (sqlite3.Error, IndexUnusableError) as error:
        report.add("index_unusable", reason=str(error))
        return None
    if version == 0:
        report.add("index_missing")
    elif 0 < version < SCHEMA_VERSION:
        report.add("index_older", version=version)
    elif place is None:
        report.add("index_unusable", reason=f"it has version {version}, not {SCHEMA_VERSION}")
    else:
        return _tell_place(place, end, report)
    return None


def _tell_place(place: LogPosition, end: JournalEnd, report: Report) -> LogPosition:
    if place.position > end.mark.position:
        report.add("index_ahead", position=place.position, journal=end.mark.position)
    elif place.position < end.mark.position:
        report.add("index_behind", position=place.position, journal=end.mark.position)
    return place


def copy_index(base: DataDir, scratch: str) -> str:
    """Copy the index into a folder, to be opened there; return the path. There may be no index."""
    path = os.path.join(scratch, _COPY_NAME)
    for suffix in ("", "-wal"):
        _copy(base, INDEX_NAME + suffix, path + suffix)
    return path


def _copy(base: DataDir, name: str, path: str) -> None:
    try:
        fd = base.files.open(name, dir_fd=base.folders.stored)
    except FileNotFoundError:
        return
    try:
        with open(path, "wb") as copy:
            offset = 0
            while data := base.files.read(fd, _COPY_BYTES, offset):
                copy.write(data)
                offset += len(data)
    finally:
        base.files.close(fd)


class _Comparison:
    """Compares the copy of the index with a fresh one that ends at the same position."""

    def __init__(
        self,
        fresh_path: str,
        copy_path: str,
        reader: JournalReader,
        report: Report,
        erased: Sequence[GapRange],
    ) -> None:
        self._database = connect(fresh_path, read_only=False)
        self._database.execute("ATTACH ? AS copy", (copy_path,))
        self._reader = reader
        self._report = report
        self._erased = erased

    def run(self, place: LogPosition, fresh_place: LogPosition) -> None:
        """Report every difference."""
        rows = 0
        try:
            self._faults()
            self._cursor(place, fresh_place)
            self._places()
            if self._erased:
                as_if_never_stored(self._database, self._erased)
            for table in _TABLES:
                self._one_sided(table, "main", "copy", "index_missing_record")
                self._one_sided(table, "copy", "main", "index_extra_record")
                self._different(table)
                if table.has_address:
                    self._addresses(table)
                rows += self._database.execute(f"SELECT count(*) FROM copy.{table.name}").fetchone()[0]  # noqa: S608
            # One too many costs a read some time: those of a deleted run stay until its job goes.
            self._one_sided(_SPANS, "main", "copy", "index_missing_record")
            rows += self._events()
        except sqlite3.Error as error:
            self._report.add("index_damage", reason=str(error))
        self._report.compared["index rows"] = rows
        self._database.close()

    def _faults(self) -> None:
        for (text,) in self._database.execute(f"PRAGMA copy.integrity_check({_SQLITE_FAULTS_MAX})"):
            if text != "ok":
                self._report.add("index_damage", reason=text)

    def _cursor(self, place: LogPosition, fresh_place: LogPosition) -> None:
        chain = self._reader.chain
        end = chain.end_of(place.segment)
        is_void = end is not None and place.offset > end
        if place.position != fresh_place.position or (place != fresh_place and not is_void):
            self._report.add("index_wrong", table="cursor", **place._asdict())

    def _places(self) -> None:
        """Check the places where `readAll` begins to read: each must hold the entry that it names."""
        first = "SELECT EXISTS (SELECT 1 FROM {}.place WHERE position = 1)"
        wanted, found = (
            self._database.execute(first.format(name)).fetchone()[0] for name in ("main", "copy")
        )
        if wanted and not found:
            self._report.add("index_missing_record", table="place", position=1)
        for position, segment, offset in self._database.execute(
            "SELECT position, segment, offset FROM copy.place"
        ):
            try:
                data = self._reader.payload(segment, offset, entry_format.ENTRY_HEADER_BYTES)
                is_right = entry_format.decode_header(data).position == position
            except (*_NO_ADDRESS, NotAnEntryError):
                is_right = False
            if not is_right:
                self._report.add(
                    "index_wrong", table="place", position=position, segment=segment, offset=offset
                )

    # --- rows --------------------------------------------------------------------------------------

    def _one_sided(self, table: _Table, there: str, lacking: str, name: str) -> None:
        """Report rows of one side whose key is missing on the other."""
        select = (
            f"SELECT {table.position}, {_list('a', table.key)} FROM {there}.{table.name} a"  # noqa: S608
            f" WHERE NOT EXISTS (SELECT 1 FROM {lacking}.{table.name} b WHERE {_same(table.key)})"
        )
        for position, *key in self._database.execute(select):
            self._report.add(name, table=table.name, **self._key(table, key), position=position)

    def _different(self, table: _Table) -> None:
        select = (
            f"SELECT {_list('a', table.key)}, {_list('a', table.values)}, {_list('b', table.values)}"
            f" {_joined(table)}"
            f" WHERE {' OR '.join(f'a.{column} IS NOT b.{column}' for column in table.values)}"
        )
        keys, values = len(table.key), len(table.values)
        for row in self._database.execute(select):
            wanted, found = row[keys : keys + values], row[keys + values :]
            differing = [c for c, a, b in zip(table.values, wanted, found, strict=True) if a != b]
            position = dict(zip(table.values, wanted, strict=True)).get("position")
            key = self._key(table, row[:keys])
            self._report.add(
                "index_wrong", table=table.name, **key, position=position, columns=", ".join(differing)
            )

    def _addresses(self, table: _Table) -> None:
        same_values = " AND ".join(f"a.{column} IS b.{column}" for column in table.values)
        select = (
            f"SELECT b.segment, b.offset, b.length, b.crc, b.position, {_list('a', table.key)}"
            f" {_joined(table)} WHERE (a.segment != b.segment OR a.offset != b.offset) AND {same_values}"
        )
        for segment, offset, length, crc, position, *key in self._database.execute(select):
            try:
                is_right = crc32c(self._reader.payload(segment, offset, length)) == crc
            except _NO_ADDRESS:
                is_right = False
            if not is_right:
                named = self._key(table, key)
                self._report.add(
                    "index_wrong", table=table.name, **named, position=position, columns="segment, offset"
                )

    def _events(self) -> int:
        """Compare the events of each run; return the count of those of the copy."""
        count = 0
        runs = (
            "SELECT id FROM main.run UNION SELECT run FROM copy.event UNION SELECT run FROM copy.event_block"
        )
        for (run,) in self._database.execute(runs).fetchall():
            events = EventComparison(self._database, run)
            try:
                count += events.run(self._reader)
            except IndexUnusableError as error:
                self._report.add("index_damage", reason=str(error))
            for name, event, differing in events.differences:
                key = ("run", "timestamp", "step", "type", "n")
                named = dict(self._named((column, getattr(event, column)) for column in key))
                columns = {"columns": ", ".join(differing)} if differing else {}
                self._report.add(name, table="event", **named, position=event.position, **columns)
        return count

    def _key(self, table: _Table, key: Iterable[object]) -> dict[str, object]:
        """The key of a row for people: job and run instead of the run's number."""
        return dict(self._named(zip(table.key, key, strict=True)))

    def _named(self, key: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
        for column, value in key:
            if column == "position":
                continue
            if column != "run":
                yield ("run" if column == "name" else column), value
                continue
            for schema in ("main", "copy"):
                found = self._database.execute(
                    f"SELECT job, name FROM {schema}.run WHERE id = ?",  # noqa: S608
                    (value,),
                ).fetchone()
                if found is not None:
                    yield from zip(("job", "run"), found, strict=True)
                    break
            else:
                yield column, value


def _list(alias: str, columns: Iterable[str]) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns)


def _same(columns: Iterable[str]) -> str:
    return " AND ".join(f"a.{column} = b.{column}" for column in columns)


def _joined(table: _Table) -> str:
    return f"FROM main.{table.name} a JOIN copy.{table.name} b ON {_same(table.key)}"
