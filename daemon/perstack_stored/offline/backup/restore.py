"""`restore`: makes a base from a backup, up to its end or an earlier position.

The history gets a new name, but for one that daemons share through a replicated log.
Everything is written to a temporary folder, synced, and renamed to `.stored` last: an interrupted restore
leaves no base. A daemon builds index and tree at its start.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from perstack_storage.protocol import resolve_base
from perstack_stored.datadir.filesystem import FILE_MODE, FOLDER_MODE, STORED_MODE, FileSystem
from perstack_stored.datadir.layout import STORED_NAME
from perstack_stored.errors import ConfigError
from perstack_stored.journal import entry_format, packed_format
from perstack_stored.journal.entry_format import Record, SegmentHeader
from perstack_stored.journal.packed_format import BadBlockError, Block, compressor
from perstack_stored.journal.segment_file import OpenSegment, PackedSegment
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import Entry
from perstack_stored.model.checksum import crc32c
from perstack_stored.offline.locked import progress
from perstack_stored.tree.cursor import Cursor, save_cursor

from . import manifest as backup_folder
from .copy import verify_copy
from .deletion_list import Listed, apply_list
from .generations import newest as newest_in
from .manifest import COPY_BYTES, BackupDamagedError, Folder, Manifest, SegmentCopy

PART_NAME = ".stored.restore"
_BASE_MODE = 0o750


class Restored(NamedTuple):
    """Result of a restore."""

    base: str
    position: int
    store: str


class _Cut(NamedTuple):
    """Where a segment is cut: at `offset`, and after it the first `records` records of `entry`.

    `last` is the last position before the cut.
    """

    offset: int
    entry: Entry | None
    records: int
    last: int


def restore(
    source: str,
    base_path: str | None,
    *,
    to_position: int | None,
    deletions: Sequence[Listed] = (),
    files: FileSystem | None = None,
) -> Restored:
    """Make a base from a backup.

    Args:
        source: the folder of the backup; it is only read.
        base_path: the base; None for the default. It must be empty, or not there yet.
        to_position: the last position to restore; None for all. In the middle of an atomic batch the
            restored history ends before the batch.
        deletions: what was deleted since the backup; it is deleted here before there is a base.
        files: the file system, if not the real one.

    Raises:
        ConfigError: the backup has no such position, or the base is not empty.
        BackupDamagedError: the backup has changed; there is no base then.
        OSError: the base can't be written.
    """
    files = files or FileSystem()
    path = resolve_base(base_path)
    with backup_folder.open_folder(files, source, make=False) as folder:
        manifest, last = what_it_holds(folder, to_position)
        with _new_base(files, path) as (base_dir, part_dir):
            # The history of a replicated log has one name everywhere: its stream orders what comes after.
            is_shared = backup_folder.is_shared(folder, manifest.segments[0])
            if is_shared and deletions:
                raise ConfigError("records of a replicated log are deleted by its daemons, not in a restore")
            store = bytes.fromhex(manifest.store) if is_shared else uuid.uuid4().bytes
            last = _write(files, folder, manifest, last, store, part_dir)
            last += _delete(files, part_dir, deletions)
            files.sync(part_dir)
            files.rename(PART_NAME, STORED_NAME, source_dir=base_dir, target_dir=base_dir)
            files.sync(base_dir)
    return Restored(path, last, store.hex())


def what_it_holds(folder: Folder, to_position: int | None) -> tuple[Manifest, int]:
    """The manifest of a backup, and the last position to restore.

    Raises:
        ConfigError: it is no backup, or does not have the position.
        BackupDamagedError: the manifest has changed.
    """
    manifest = backup_folder.read_manifest(folder)
    if manifest is None:
        raise ConfigError(_no_backup(folder))
    last = manifest.position if to_position is None else to_position
    if not 1 <= last <= manifest.position:
        raise ConfigError(f"the backup holds the positions 1 to {manifest.position}, not {last}")
    return manifest, last


def copies_up_to(manifest: Manifest, last: int) -> list[tuple[SegmentCopy, int]]:
    """The copies that hold the positions 1 to `last`, each with the last position in it."""
    copies = [copy for copy in manifest.segments if copy.firstPosition <= last or copy.number == 1]
    ends = [copy.firstPosition - 1 for copy in manifest.segments[1:]] + [manifest.position]
    return list(zip(copies, ends, strict=False))


def _no_backup(folder: Folder) -> str:
    """Say what a folder holds instead of a backup."""
    newest = newest_in(folder)
    if newest is None:
        return f"{folder.path} holds no backup that was completed"
    return f"{folder.path} holds several backups: name one, such as {folder.path}/{newest}, the newest"


@contextmanager
def _new_base(files: FileSystem, path: str) -> Iterator[tuple[int, int]]:
    """Folder of the base, and the one that becomes its `.stored`; the latter is removed on an error."""
    os.makedirs(path, _BASE_MODE, exist_ok=True)
    base_dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        there = sorted(set(files.list_dir(base_dir)) - {PART_NAME})
        if there:
            raise ConfigError(f"{path} is not empty: it holds {there[0]!r}. Restore into a folder of its own")
        part = os.path.join(path, PART_NAME)
        if os.path.lexists(part):  # of an interrupted restore
            shutil.rmtree(part)
        files.make_dir(PART_NAME, STORED_MODE, dir_fd=base_dir)
        part_dir = files.open_dir(PART_NAME, dir_fd=base_dir)
        try:
            yield base_dir, part_dir
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(part)
            raise
        finally:
            files.close(part_dir)
    finally:
        files.close(base_dir)


def _delete(files: FileSystem, part_dir: int, deletions: Sequence[Listed]) -> int:
    """Delete what was deleted since the backup; returns the count of records."""
    if not deletions:
        return 0
    journal_dir = files.open_dir("journal", dir_fd=part_dir)
    try:
        return apply_list(files, journal_dir, deletions)
    finally:
        files.close(journal_dir)


def _write(
    files: FileSystem, folder: Folder, manifest: Manifest, last: int, store: bytes, part_dir: int
) -> int:
    """Write the journal and an empty cursor; returns the last position that was restored."""
    files.make_dir("journal", FOLDER_MODE, dir_fd=part_dir)
    journal_dir = files.open_dir("journal", dir_fd=part_dir)
    try:
        copies, restored = copies_up_to(manifest, last), 0
        with progress("restored (bytes)", sum(copy.bytes for copy, _ in copies)) as advance:
            for copy, end in copies:
                verify_copy(folder, copy, end)
                restored = _restore_segment(files, folder, copy, min(last, end), store, journal_dir)
                advance(copy.bytes)
        files.sync(journal_dir)
    finally:
        files.close(journal_dir)
    # The tree must be written from the beginning: it has no files yet.
    save_cursor(files, part_dir, store, Cursor(0, clean=True))
    return restored


def _restore_segment(
    files: FileSystem, folder: Folder, copy: SegmentCopy, last: int, store: bytes, journal_dir: int
) -> int:
    """Write a segment that ends with the position `last`, or before; returns its last position."""
    with backup_folder.open_copy(folder, copy) as (source, header):
        cut = _cut(folder, copy, source, header, last)
        fd = files.create(segment_name(copy.number), FILE_MODE, dir_fd=journal_dir)
        try:
            if isinstance(source, PackedSegment) and cut.offset == copy.end == source.size():
                try:
                    _write_packed(files, fd, source, header._replace(store=store, proven=copy.end))
                except BadBlockError as error:
                    raise backup_folder.damaged(folder, copy, str(error)) from None
                return cut.last
            offset = entry_format.SEGMENT_HEADER_BYTES
            while offset < cut.offset:
                data = source.read(min(COPY_BYTES, cut.offset - offset), offset)
                if not data:
                    raise BackupDamagedError(f"the backup is damaged: {copy.file} became shorter")
                files.write(fd, [data], offset)
                offset += len(data)
            if cut.entry is not None:
                buffers, size = _beginning(cut.entry, cut.records, header.salt)
                files.write(fd, buffers, offset)
                offset += size
            # On disk before the base exists, so bad bytes found later are damage.
            files.write(
                fd, [entry_format.encode_segment_header(header._replace(store=store, proven=offset))], 0
            )
            files.sync_data(fd)
        finally:
            files.close(fd)
    return cut.last


def _write_packed(files: FileSystem, fd: int, source: PackedSegment, header: SegmentHeader) -> None:
    """Write a packed segment with another header: the first block is packed again, the others are copied.

    Raises:
        BadBlockError: a block has changed since the copy was tested.
    """
    table = source.table
    assert table is not None
    first = entry_format.encode_segment_header(header) + source.unpack(0)[entry_format.SEGMENT_HEADER_BYTES :]
    start = packed_format.table_bytes(len(table.blocks))
    blocks: list[Block] = []
    for number in range(len(table.blocks)):
        stored = source.stored(number) if number else packed_format.pack_block(first, compressor())
        offset = packed_format.place_after(blocks, start)
        files.write(fd, [stored], offset)
        blocks.append(Block(offset, len(stored), crc32c(stored)))
    files.write(fd, [packed_format.encode_table(header, table.block_bytes, table.size, blocks)], 0)
    files.sync_data(fd)


def _cut(folder: Folder, copy: SegmentCopy, source: OpenSegment, header: SegmentHeader, last: int) -> _Cut:
    for entry in backup_folder.entries_of(folder, copy, source, header):
        if entry.header.position + entry.header.count - 1 > last:
            # A batch that is all or nothing is not cut in two: the journal ends before it.
            is_atomic = entry.header.flags & entry_format.ATOMIC
            records = 0 if is_atomic else last + 1 - entry.header.position
            before = entry.header.position - 1
            return _Cut(entry.offset, entry if records else None, records, before + records)
    return _Cut(copy.end, None, 0, last)


def _beginning(entry: Entry, count: int, salt: int) -> tuple[list[bytes | bytearray | memoryview], int]:
    """An entry of the first `count` records of another one: a batch that is cut in two."""
    records = [
        Record(place.kind, place.flags, entry.data[place.start : place.start + place.length])
        for place in entry_format.record_places(entry.data, entry.header)[:count]
    ]
    header = entry.header
    fields = entry_format.EntryFields(
        header.position, header.time_ms, header.synced, header.seq, header.session
    )
    return entry_format.encode_entry(salt, records, fields)
