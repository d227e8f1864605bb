"""`backup`: copies the journal up to one position, from a served base or another one. It only reads the base.

A segment that was copied complete is not copied again: it never changes. The order of the steps makes it
safe: copies, synced, read back; the manifest that names them; last, removal of what it replaces.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from perstack_storage import Client, StorageError
from perstack_storage.protocol import resolve_base
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import open_folders
from perstack_stored.datadir.lock import holder_of
from perstack_stored.errors import BaseHeldError, ConfigError, DamageError
from perstack_stored.journal import entry_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.entry_format import SegmentHeader
from perstack_stored.journal.epochs import Epochs
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import BadEntryError, walk
from perstack_stored.model.checksum import crc32c
from perstack_stored.offline.check.journal import recover_only
from perstack_stored.offline.locked import Advance, locked_datadir, progress

from . import manifest as backup_folder
from .manifest import COPY_BYTES, Folder, Manifest, SegmentCopy, copy_name

_DAEMON_SECONDS = 30.0


class Done(NamedTuple):
    """Result of a backup."""

    manifest: Manifest
    copied_segments: int
    copied_bytes: int
    checked_bytes: int


class _Source(NamedTuple):
    base: str
    chain: Chain
    mark: LogPosition


def backup(
    base_path: str | None,
    target: str,
    *,
    endpoint: str | None,
    verify_all: bool,
    files: FileSystem | None = None,
) -> Done:
    """Bring the backup in `target` up to date with the base.

    Args:
        base_path: the base; None for the default.
        target: a folder of its own, new or with a backup of the same history.
        endpoint: endpoint of the base's daemon, which is asked for its last position; None to find it.
        verify_all: read back what earlier backups copied, too.
        files: the file system, if not the real one.

    Raises:
        ConfigError: base or target can't be used; nothing was changed.
        DamageError: the journal is damaged.
        BackupDamagedError: a copy differs when it is read back.
        OSError: the target can't be written; the earlier backup stays valid.
    """
    files = files or FileSystem()
    path = resolve_base(base_path)
    refuse_within_base(path, target)
    with (
        _source(files, base_path, path, endpoint) as source,
        backup_folder.open_folder(files, target, make=True) as folder,
    ):
        return _copy(source, folder, verify_all=verify_all)


def refuse_within_base(path: str, target: str) -> None:
    """Raise ConfigError if a folder for backups is the base `path`, or in what the daemon keeps there."""
    real = os.path.realpath(target)
    if real.startswith((f"{path}/jobs", f"{path}/.stored")) or real == path:
        raise ConfigError(f"a backup within the base itself is none: {target}")


@contextmanager
def _source(files: FileSystem, base_path: str | None, path: str, endpoint: str | None) -> Iterator[_Source]:
    """The journal, and the log position up to which it is on disk."""
    with contextlib.ExitStack() as stack:
        try:
            base = stack.enter_context(locked_datadir(base_path, "backup", reads_only=True))
        except BaseHeldError:
            folders = open_folders(files, path)
            for fd in folders:
                stack.callback(files.close, fd)
            mark = _served_mark(path, endpoint or _endpoint_of_holder(folders.stored))
        else:
            folders = base.folders
            found = recover_only(files, folders.journal)
            mark = LogPosition(found.position, found.number, found.end)
        chain = Chain(files, folders.journal)
        stack.callback(chain.close)
        yield _Source(path, chain, mark)


def _endpoint_of_holder(stored: int) -> str | None:
    """Endpoint of the daemon as it recorded itself: under systemd that is not the base's socket."""
    try:
        holder = holder_of(stored)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return None  # the lock can't be opened for more than a look
    endpoints = holder.endpoints if holder else ()
    return min(endpoints, key=lambda endpoint: not endpoint.startswith("ipc:"), default=None)


def _served_mark(path: str, endpoint: str | None) -> LogPosition:
    """Log position up to which the base's daemon has synced its journal.

    Raises:
        ConfigError: it does not answer, or serves another base.
    """
    try:
        with Client(endpoint, base_path=path, timeout_s=_DAEMON_SECONDS) as client:
            base, stats = client.hello()["base"], client.stats()
    except StorageError as error:
        raise ConfigError(f"the base {path} is held, but its daemon gave no position: {error}") from error
    if base != path:
        raise ConfigError(f"the daemon there serves {base}, not {path}; give its --endpoint")
    try:
        mark = LogPosition(stats["position"], stats["journal"]["segment"], stats["journal"]["offset"])
    except (KeyError, TypeError):
        mark = LogPosition(-1, 0, 0)
    if not all(type(part) is int and part >= 0 for part in mark):
        raise ConfigError(f"what answers for {path} is no daemon of this program")
    return mark


def _copy(source: _Source, folder: Folder, *, verify_all: bool) -> Done:
    chain, mark = source.chain, source.mark
    if not mark.position:
        raise ConfigError(f"{source.base} holds nothing yet")
    if mark.segment not in chain.headers or mark.offset > chain.open(mark.segment).size():
        raise ConfigError(f"the daemon reports a position that the journal of {source.base} does not have")
    store = chain.headers[1].store.hex()
    before = backup_folder.read_manifest(folder)
    left = backup_folder.left_overs(folder, before)
    if before is not None and before.store != store:
        raise ConfigError(f"{folder.path} is the backup of another history; use another folder")
    if before is not None and before.position > mark.position:
        raise ConfigError(
            f"{folder.path} goes up to position {before.position}, the base only to {mark.position}: records"
            " of the base are lost. Keep this backup, and use another folder"
        )
    epochs = _epochs(chain, mark)
    if before is not None and before.epoch and before.epoch != epochs.at(before.position):
        raise ConfigError(
            f"{folder.path} is the backup of another continuation of this history: the base was put back from"
            " a copy, or is one, and went on. Keep this backup, and use another folder"
        )
    for name in left:
        folder.files.unlink(name, dir_fd=folder.fd)
    had = {copy.file: copy for copy in before.segments} if before else {}
    wanted = [
        (header, mark.offset if number == mark.segment else chain.end_of(number) or 0)
        for number, header in sorted(chain.headers.items())
        if number <= mark.segment
    ]
    # Packing changes no logical byte: a segment that was copied before it was packed is not copied again.
    kept = {(header.number, end): copy for header, end in wanted if (copy := _had(had, header, end))}
    new = [(header, end) for header, end in wanted if (header.number, end) not in kept]
    with progress("copied (bytes)", sum(end for _, end in new)) as advance:
        made = {copy.number: copy for copy in [_copy_segment(chain, folder, *item, advance) for item in new]}
    folder.files.sync(folder.fd)
    segments = [kept.get((header.number, end)) or made[header.number] for header, end in wanted]
    manifest = Manifest(
        backup_folder.PACKED_FORMAT if any(copy.logicalBytes for copy in segments) else backup_folder.FORMAT,
        store,
        mark.position,
        time.time_ns() // 1_000_000,
        segments,
        epochs.at(mark.position) or "",
    )
    checked = _verify(folder, manifest, segments if verify_all else list(made.values()))
    backup_folder.write_manifest(folder, manifest)
    for name in had.keys() - {copy.file for copy in segments}:
        folder.files.unlink(name, dir_fd=folder.fd)
    return Done(manifest, len(made), sum(copy.bytes for copy in made.values()), checked)


def _had(had: dict[str, SegmentCopy], header: SegmentHeader, end: int) -> SegmentCopy | None:
    """The copy of a segment that an earlier backup made, packed or not."""
    plain, packed = copy_name(header, end), copy_name(header, end, packed=True)
    return had.get(plain) or had.get(packed)


def _epochs(chain: Chain, mark: LogPosition) -> Epochs:
    """The epochs of the journal up to a mark, from its last segment."""
    epochs = Epochs()
    try:
        for entry in walk(chain.file(mark.segment), entry_format.SEGMENT_HEADER_BYTES, mark.offset):
            epochs.apply(entry.header)
    except BadEntryError as error:
        raise DamageError(segment_name(mark.segment), error.offset, 0, error.reason) from None
    return epochs


def _copy_segment(
    chain: Chain, folder: Folder, header: SegmentHeader, end: int, advance: Advance
) -> SegmentCopy:
    files, source = folder.files, chain.open(header.number)
    is_packed = source.is_packed and source.size() >= end
    name = copy_name(header, end, packed=is_packed)
    size = source.file_bytes() if is_packed else end
    read = source.read_file if is_packed else source.read
    fd = files.create(f"{name}.part", backup_folder.FILE_MODE, dir_fd=folder.fd)
    crc = offset = 0
    try:
        while offset < size:
            data = read(min(COPY_BYTES, size - offset), offset)
            if not data:
                raise ConfigError(
                    f"segment {header.number} is shorter than {size} bytes: run check on the base"
                )
            files.write(fd, [data], offset)
            crc = crc32c(data, crc)
            offset += len(data)
            advance(len(data) * end // size)
        files.sync_data(fd)
    finally:
        files.close(fd)
    files.rename(f"{name}.part", name, source_dir=folder.fd, target_dir=folder.fd)
    return SegmentCopy(header.number, name, size, crc, header.first_position, end if is_packed else 0)


def _verify(folder: Folder, manifest: Manifest, copies: list[SegmentCopy]) -> int:
    """Read copies back from the disk; return the count of bytes."""
    total = sum(copy.bytes for copy in copies)
    nexts = {copy.number: copy.firstPosition for copy in manifest.segments}
    with progress("read back (bytes)", total) as advance:
        for copy in copies:
            last = nexts.get(copy.number + 1, manifest.position + 1) - 1
            verify_copy(folder, copy, last)
            advance(copy.bytes)
    return total


def verify_copy(folder: Folder, copy: SegmentCopy, last: int) -> None:
    """Read a copy from the disk, and test each entry.

    Raises:
        BackupDamagedError: it has changed, or does not reach the position `last`.
    """
    with backup_folder.open_copy(folder, copy) as (file, header):
        file.forget_cached()
        crc = offset = 0
        while offset < copy.bytes:
            data = file.read_file(min(COPY_BYTES, copy.bytes - offset), offset)
            crc = crc32c(data, crc)
            offset += len(data)
        if crc != copy.crc32c:
            raise backup_folder.damaged(folder, copy, "its checksum does not match")
        bad = next(file.bad_places(), None)
        if bad is not None:
            raise backup_folder.damaged(folder, copy, bad.reason)
        position = header.first_position - 1
        for entry in backup_folder.entries_of(folder, copy, file, header):
            entry_format.record_places(entry.data, entry.header)
            position = entry.header.position + entry.header.count - 1
        if position != last:
            raise backup_folder.damaged(folder, copy, f"it ends at position {position}, not {last}")
