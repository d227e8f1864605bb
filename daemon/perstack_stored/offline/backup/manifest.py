"""The folder of a backup, as in proto/journal.md: its manifest, and the files that it names.

The manifest is replaced in one step, when all that it names is on disk. So after an interrupted
backup the folder holds the earlier backup, complete, or none.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from perstack_stored.datadir.filesystem import FileSystem, atomic_replace, read_whole
from perstack_stored.errors import ConfigError, StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import EntryType, NotAnEntryError, SegmentHeader
from perstack_stored.journal.segment_file import OpenSegment, open_segment
from perstack_stored.journal.segment_walk import BadEntryError, Entry, SegmentFile, walk
from perstack_stored.model.checksum import crc32c

MANIFEST_NAME = "backup.json"
FORMAT = 1
PACKED_FORMAT = 2  # of a manifest that names a packed copy
COPY_BYTES = 1 << 20
FILE_MODE = 0o600  # as secret as the settings in it
_OURS = re.compile(r"[0-9]{10}-[0-9a-f]{8}-[0-9]+(-p)?\.segment(\.part)?|backup\.json\.new")
_COPY = re.compile(r"([0-9]{10})-[0-9a-f]{8}-([1-9][0-9]{0,18})(-p)?\.segment")
_STORE = re.compile(r"[0-9a-f]{32}")
_MANIFEST_BYTES_MAX = 256 << 20  # some 150 bytes a segment
_FOLDER_MODE = 0o700


class BackupDamagedError(StoredError):
    """A file that the manifest names is missing or has changed. Take another backup."""


class SegmentCopy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment up to its logical end. `logicalBytes` is that end if the copy is packed, else 0."""

    number: int
    file: str
    bytes: int
    crc32c: int
    firstPosition: int  # noqa: N815 - as in the manifest
    logicalBytes: int = 0  # noqa: N815

    @property
    def end(self) -> int:
        """Logical end of the segment."""
        return self.logicalBytes or self.bytes


class Manifest(msgspec.Struct, frozen=True):
    """Content of a backup: all records up to `position` of the history `store`."""

    format: int
    store: str
    position: int
    timeMs: int  # noqa: N815
    segments: list[SegmentCopy]
    epoch: str = ""  # of the position; "" in old backups


class _Signed(msgspec.Struct):
    crc32c: int
    manifest: msgspec.Raw


class Folder(NamedTuple):
    """An open backup folder."""

    path: str
    fd: int
    files: FileSystem


@contextmanager
def open_folder(files: FileSystem, path: str, *, make: bool) -> Iterator[Folder]:
    """Open and lock a backup folder.

    Raises:
        ConfigError: it can't be used, or another backup or restore uses it.
    """
    path = os.path.abspath(path)
    if make:
        os.makedirs(path, _FOLDER_MODE, exist_ok=True)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path} is no folder that can be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if make else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        yield Folder(path, fd, files)
    except BlockingIOError:
        raise ConfigError(f"another process is at the backup {path}") from None
    finally:
        os.close(fd)


def read_manifest(folder: Folder) -> Manifest | None:
    """Read the manifest; None if no backup was completed.

    Raises:
        BackupDamagedError: the manifest has changed.
        ConfigError: a newer version wrote it.
    """
    try:
        data = read_whole(folder.files, MANIFEST_NAME, dir_fd=folder.fd, most=_MANIFEST_BYTES_MAX)
    except OSError as error:
        raise BackupDamagedError(f"{folder.path}/{MANIFEST_NAME} can't be read: {error.strerror}") from error
    if data is None:
        return None
    try:
        signed = msgspec.json.decode(data, type=_Signed)
        if crc32c(bytes(signed.manifest)) != signed.crc32c:
            raise BackupDamagedError(f"{folder.path}/{MANIFEST_NAME} does not match its checksum")
        if msgspec.json.decode(signed.manifest)["format"] not in {FORMAT, PACKED_FORMAT}:
            raise ConfigError(f"the backup {folder.path} was written by a newer version of perstack-stored")
        manifest = msgspec.json.decode(signed.manifest, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise BackupDamagedError(f"{folder.path}/{MANIFEST_NAME} can't be read: {error}") from error
    wrong = _wrong(manifest)
    if wrong:
        raise BackupDamagedError(
            f"{folder.path}/{MANIFEST_NAME} is not as this program writes it: {wrong}. Nothing was touched"
        )
    return manifest


def _wrong(manifest: Manifest) -> str:
    """Describe what in a manifest this program can't have written; empty if nothing."""
    if _STORE.fullmatch(manifest.store) is None:
        return "the name of the history is none"
    if not manifest.segments:
        return "it names no segment"
    position = 0
    for number, copy in enumerate(manifest.segments, 1):
        name = _COPY.fullmatch(copy.file)
        if (
            name is None
            or (int(name[1]), int(name[2])) != (copy.number, copy.end)
            or bool(name[3]) != bool(copy.logicalBytes)
        ):
            return f"{copy.file!r} is not the name of the copy of segment {copy.number}"
        if copy.number != number:
            return f"segment {number} is missing in the row"
        if min(copy.bytes, copy.end) < entry_format.SEGMENT_HEADER_BYTES or copy.firstPosition < max(
            1, position
        ):
            return f"size or position of segment {number} can't be"
        position = copy.firstPosition
    if manifest.segments[0].firstPosition != 1 or manifest.position < position - 1:
        return "its positions can't be"
    return ""


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Replace the manifest. The files that it names must be on disk."""
    text = msgspec.json.encode(manifest)
    data = msgspec.json.encode(_Signed(crc32c(text), msgspec.Raw(text)))
    atomic_replace(folder.files, MANIFEST_NAME, data, FILE_MODE, dir_fd=folder.fd)


def left_overs(folder: Folder, manifest: Manifest | None) -> list[str]:
    """Files of earlier backups that the manifest does not name.

    Raises:
        ConfigError: the folder holds foreign files; the message names one.
    """
    counts = {MANIFEST_NAME, *(copy.file for copy in manifest.segments)} if manifest else set()
    names = set(folder.files.list_dir(folder.fd)) - counts
    foreign = sorted(name for name in names if not _OURS.fullmatch(name))
    if foreign:
        raise ConfigError(
            f"{folder.path} holds what is no backup, such as {foreign[0]!r}: use another folder"
        )
    return sorted(names)


def copy_name(header: SegmentHeader, end: int, *, packed: bool = False) -> str:
    """File name of a copy. A repair, or more records, give a new name."""
    return f"{header.number:010d}-{header.salt:08x}-{end}{'-p' if packed else ''}.segment"


@contextmanager
def open_copy(folder: Folder, copy: SegmentCopy) -> Iterator[tuple[OpenSegment, SegmentHeader]]:
    """Open a copy, and check its length and header.

    Raises:
        BackupDamagedError: it is missing, or has changed.
    """
    files = folder.files
    try:
        file = open_segment(files, copy.file, dir_fd=folder.fd)
    except OSError as error:
        raise damaged(folder, copy, str(error.strerror)) from error
    try:
        if not stat.S_ISREG(files.stat(copy.file, dir_fd=folder.fd).st_mode):
            raise damaged(folder, copy, "it is no regular file")
        if file.file_bytes() != copy.bytes:
            raise damaged(folder, copy, f"it has {file.file_bytes()} bytes, not {copy.bytes}")
        try:
            header = entry_format.decode_segment_header(file.read(entry_format.SEGMENT_HEADER_BYTES, 0))
        except NotAnEntryError as error:
            raise damaged(folder, copy, str(error)) from error
        name = copy_name(header, copy.end, packed=file.is_packed)
        if name != copy.file or file.size() < copy.end or header.first_position != copy.firstPosition:
            raise damaged(folder, copy, "it is another segment")
        yield file, header
    finally:
        file.close()


def is_shared(folder: Folder, copy: SegmentCopy) -> bool:
    """Whether a copy belongs to the journal of a replicated log: the head of each segment says so.

    Raises:
        BackupDamagedError: it is missing, or has changed.
    """
    with open_copy(folder, copy) as (file, header):
        segment = SegmentFile(file, header.salt, copy.number)
        try:
            for entry in walk(segment, entry_format.SEGMENT_HEADER_BYTES, copy.end):
                if entry.header.type == EntryType.LOG:
                    return True
                if entry.header.type == EntryType.RECORDS:
                    return False
        except BadEntryError as error:
            raise damaged(folder, copy, error.reason) from error
    return False


def entries_of(
    folder: Folder, copy: SegmentCopy, file: OpenSegment, header: SegmentHeader
) -> Iterator[Entry]:
    """Entries with records of a copy; each is tested, and their positions are consecutive.

    Raises:
        BackupDamagedError: one has changed.
    """
    due = header.first_position
    try:
        segment = SegmentFile(file, header.salt, copy.number)
        for entry in walk(segment, entry_format.SEGMENT_HEADER_BYTES, copy.end):
            if entry.header.type == EntryType.RECORDS:
                if entry.header.position != due:
                    raise damaged(folder, copy, f"position {due} is missing")
                due += entry.header.count
                yield entry
    except BadEntryError as error:
        raise damaged(folder, copy, f"at offset {error.offset}: {error.reason}") from error


def damaged(folder: Folder, copy: SegmentCopy, reason: str) -> BackupDamagedError:
    """Return the error that names a copy."""
    return BackupDamagedError(f"the backup is damaged: {folder.path}/{copy.file}: {reason}")
