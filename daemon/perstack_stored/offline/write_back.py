"""`tree --write`: brings a job back into the tree, by the daemon of the base, or without one."""

import contextlib
import os
import sqlite3
import time

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, TreeModes, open_base
from perstack_stored.datadir.lock import holder_of
from perstack_stored.datadir.probe import probe
from perstack_stored.errors import ConfigError, Refusal, StartFailedError
from perstack_stored.index.connection import connect, position_of
from perstack_stored.index.job_ends import job_end
from perstack_stored.journal.reader import JournalReader
from perstack_stored.tree.options import TreeOptions, umask_for
from perstack_stored.tree.requests import Requests
from perstack_stored.tree.sweep import write_back
from perstack_stored.tree.writer import TreeWriter

from .locked import locked_datadir

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


def write_job(path: str, settings: Settings, job: str) -> bool:
    """Write a job back into the tree; returns whether its daemon did it.

    Args:
        path: of the base.
        settings: modes of files and folders, for a base that is not served.
        job: id of the job.

    Raises:
        ConfigError: the base can't be used, or has no such job.
        StartFailedError: the daemon did not come to it in time.
        OSError, sqlite3.Error, StoredError: index, journal or tree can't be read or written.
    """
    files = FileSystem()
    datadir = open_base(files, path)
    owner = os.stat(".", dir_fd=datadir.folders.stored).st_uid
    if owner != os.geteuid():
        raise ConfigError(
            f"what this user writes the daemon can't remove: run this as the user with id {owner}"
        )
    holder = holder_of(datadir.folders.stored)
    if holder is not None and holder.role == "daemon":
        _refuse_unknown(datadir, job)
        _ask(Requests(files, datadir.folders.stored), job)
        return True
    with locked_datadir(settings.base_path or None, "tree --write", reads_only=False) as held:
        _refuse_unknown(held, job)
        _write(held, settings, job)
    return False


def _refuse_unknown(datadir: DataDir, job: str) -> None:
    try:
        with contextlib.closing(connect(datadir.index_path, read_only=True)) as database:
            known = job_end(database, job) is not None
    except sqlite3.OperationalError as error:
        raise ConfigError(f"the index can't be read ({error}); a start of the daemon builds it") from error
    if not known:
        raise ConfigError("the base has no such job, or it was deleted")


def _ask(requests: Requests, job: str) -> None:
    name = requests.ask(job)
    until = time.monotonic() + _WAIT_SECONDS
    while name in [pending for pending, _ in requests.pending()]:
        if time.monotonic() > until:
            raise StartFailedError(
                "the daemon has not written it yet: it does when its tree goes on; its log says more"
            )
        time.sleep(_POLL_SECONDS)


def _write(datadir: DataDir, settings: Settings, job: str) -> None:
    files, folders = datadir.files, datadir.folders
    modes = TreeModes(settings.file_mode, settings.folder_mode)
    umask_for(modes)
    reader = JournalReader(files, folders.journal)
    stores = [header.store for header in reader.chain.headers.values()]
    if not stores or position_of(datadir.index_path, store := stores[0]) is None:
        raise ConfigError("the index is of another journal; a start of the daemon builds it")
    with contextlib.closing(connect(datadir.index_path, read_only=True)) as database:
        options = TreeOptions(modes, probe(files, folders, datadir.path))
        tree = TreeWriter(datadir, database, reader, store, options)
        failed: list[str] = []
        tree.on_blocked = lambda write, error: failed.append(f"{write.path}: {error.strerror or error}")
        try:
            write_back(tree, job, time.time_ns() // 1_000_000)
        except Refusal as error:
            raise ConfigError(str(error)) from error
        finally:
            tree.close()
            reader.close()
    if failed:
        raise ConfigError(f"{len(failed)} files can't be written; the first is {failed[0]}")
