"""Imports a tree that Perstack wrote itself, at the first start of the daemon on its base.

Every valid file becomes a record of the journal; the tree does not change. An interrupted import is
resumed: a marker states that it began, the journal what is stored already.
"""

import time
from collections import Counter, OrderedDict

import structlog

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem, atomic_replace
from perstack_stored.datadir.layout import DataDir, Folders
from perstack_stored.errors import ConfigError
from perstack_stored.journal import entry_format
from perstack_stored.journal.entry_format import FLAG_IMPORTED, NO_SESSION, Record
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model import values
from perstack_stored.model.kinds import Kind
from perstack_stored.progress import Working, no_progress

from .existing import identity_of
from .plan import Path, Plan, Planned, digest_of
from .survey import Account, SkipError, TreeSurvey, checked, read_file, unreadable

MARKER_NAME = "import.state"
_MARKER = b"The tree is being imported. A start of the daemon goes on with it, and removes this file.\n"
BATCH_RECORDS_MAX = 512
BATCH_BYTES_MAX = 4 << 20
_FOLDERS_OPEN_MAX = 256

_log = structlog.get_logger()


def import_wanted(datadir: DataDir, journal: JournalWriter) -> bool:
    """Whether there is a tree to import: an import was begun, or the journal is empty.

    Raises:
        ConfigError: there may be a tree, but it can't be read.
    """
    files, folders = datadir.files, datadir.folders
    if MARKER_NAME in files.list_dir(folders.stored):
        return True
    if journal.mark.position:
        return False
    try:
        jobs = files.open_dir("jobs", dir_fd=folders.base)
    except FileNotFoundError:
        return False
    except OSError as error:
        # Once a record is stored the tree is never imported: refusing to start is better.
        raise ConfigError(f"jobs/ in the base must be a folder, and not a link: {error.strerror}") from error
    try:
        return bool(files.list_dir(jobs))
    finally:
        files.close(jobs)


def import_tree(datadir: DataDir, journal: JournalWriter, working: Working = no_progress) -> None:
    """Store the files of the tree. The daemon serves no client meanwhile, and no worker runs.

    Raises:
        StorageFullError: the journal has no room; the next start goes on.
        JournalFailedError: writing the journal failed.
        DamageError: an import is resumed, and the journal is damaged.
    """
    files, folders = datadir.files, datadir.folders
    started = time.monotonic()
    atomic_replace(files, MARKER_NAME, _MARKER, FILE_MODE, dir_fd=folders.stored)
    before = journal.mark.position
    _log.info("import_begun", records=before)
    existing = _existing(files, folders, journal, working)
    account = Account(working)
    plan = TreeSurvey(files, account).run(folders.base)
    with Storing(files, folders.base, journal, account) as storing:
        _store_all(storing, plan, existing, account)
    files.unlink(MARKER_NAME, dir_fd=folders.stored)
    files.sync(folders.stored)
    _log.info(
        "import_done",
        files=account.files,
        imported=dict(account.imported),
        taken_up=before,
        skipped=dict(account.skipped),
        position=journal.mark.position,
        seconds=round(time.monotonic() - started, 3),
    )


def _existing(
    files: FileSystem, folders: Folders, journal: JournalWriter, working: Working
) -> Counter[bytes]:
    """Digests of what an interrupted import has stored."""
    existing: Counter[bytes] = Counter()
    if not journal.mark.position:
        return existing
    newest: dict[tuple[str, ...], bytes] = {}
    reader = JournalReader(files, folders.journal)
    for entry in reader.entries(reader.start(), journal.mark):
        working(f"importing the tree: reading what is stored, position {entry.header.position}")
        for place in entry_format.record_places(entry.data, entry.header):
            if place.kind in {Kind.GAP, Kind.DELETION}:
                continue
            payload = entry.data[place.start : place.start + place.length]
            digest = digest_of(place.kind, payload)
            if place.kind != Kind.EVENT:
                identity = identity_of(values.decode(place.kind, payload))
                # If a file changed between two attempts, only the last stored value counts: the file
                # may have changed back.
                existing.pop(newest.get(identity, b""), None)
                newest[identity] = digest
            existing[digest] += 1
    reader.close()
    return existing


def _store_all(storing: "Storing", plan: Plan, existing: Counter[bytes], account: Account) -> None:
    """Store all files that are not in the journal yet."""
    for done, planned in enumerate(plan):
        account.progress("storing", files=done, of=len(plan))
        if existing[planned.digest]:
            existing[planned.digest] -= 1
            account.imported[_name(planned.kind)] += 1
            continue
        try:
            payload, _ = storing.read(planned)
        except SkipError as skip:
            account.skip(planned.path, skip)
            continue
        storing.add(planned.kind, payload)


class Storing:
    """Reads planned files again, and stores them in batches of bounded size; the exit stores the last one."""

    def __init__(self, files: FileSystem, base_dir: int, journal: JournalWriter, account: Account) -> None:
        self._files = files
        self._base = base_dir
        self._journal = journal
        self._account = account
        self._folders: OrderedDict[Path, int] = OrderedDict()
        self._batch: list[Record] = []
        self._batch_bytes = 0

    def __enter__(self) -> "Storing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            while self._folders:
                self._files.close(self._folders.popitem()[1])

    def read(self, planned: Planned) -> tuple[bytes, int]:
        """Content as surveyed, or as changed since, and the time of the last write in ms.

        Raises:
            SkipError: it can't be stored any more.
        """
        payload, written_ms = read_file(self._files, self._folder(planned.path[:-1]), planned.path[-1])
        if digest_of(planned.kind, payload) != planned.digest:
            checked(planned.kind, planned.path, payload)
        return payload, written_ms

    def add(self, kind: int, payload: bytes) -> None:
        """Add a value to the batch."""
        full = len(self._batch) >= BATCH_RECORDS_MAX or self._batch_bytes + len(payload) > BATCH_BYTES_MAX
        if self._batch and full:
            self._flush()
        self._batch.append(Record(kind, FLAG_IMPORTED, payload))
        self._batch_bytes += len(payload)

    def _flush(self) -> None:
        if self._batch:
            self._journal.append([Append(NO_SESSION, 0, self._batch)])
            self._account.imported.update([_name(item.kind) for item in self._batch])
            self._batch, self._batch_bytes = [], 0

    def _folder(self, path: Path) -> int:
        """An open folder, reached step by step, so that no link leads out of the base."""
        fd = self._folders.get(path)
        if fd is not None:
            self._folders.move_to_end(path)
            return fd
        parent = self._folder(path[:-1]) if len(path) > 1 else self._base
        try:
            fd = self._folders[path] = self._files.open_dir(path[-1], dir_fd=parent)
        except OSError as error:
            raise unreadable(error) from None
        if len(self._folders) > _FOLDERS_OPEN_MAX:
            self._files.close(self._folders.popitem(last=False)[1])
        return fd


def _name(kind: int) -> str:
    return Kind(kind).name.lower()
