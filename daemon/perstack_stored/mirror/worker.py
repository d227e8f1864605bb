"""The mirror's process: ships what is synced, a piece each second or 4 MiB, and nothing while idle.

Segments that were erased in are replaced in the bucket when there is nothing else to ship.

While the bucket does not answer it tries again, ever more rarely. If the bucket holds another history, it
reports that and ends for good.
"""

import os
import socket
import sqlite3
import sys
import time

import msgspec
import structlog

from perstack_stored.config.mirror_url import parse_url
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, open_folders
from perstack_stored.datadir.shown_syncs import showing_syncs
from perstack_stored.errors import ConfigError, StoredError
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.observe import log
from perstack_stored.process import interpreter
from perstack_stored.process.backoff import Backoff
from perstack_stored.process.parent_death import die_with
from perstack_stored.process.worker_status import WorkerStatus

from .channel import MirrorConfig, MirrorEnd, Report
from .extra import require_library
from .replacer import Replacer
from .shipper import MirrorConflictError, Shipper
from .tree_shipper import TreeShipper

MIRROR_MODULE = __name__
OVER_STATUS = 3  # another history is in the bucket, or the settings can't be used
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_SECONDS = 30.0
_WAIT_SECONDS = 0.5
_LOOK_SECONDS = 5.0
_NICE = 10

_log = structlog.get_logger()


class Replacing:
    """When the replacer works, and what it meets. A fault delays no shipping."""

    def __init__(self, replacer: Replacer) -> None:
        self._replacer = replacer
        self._backoff = Backoff(RETRY_SECONDS, _STABLE_SECONDS)
        self._went_well = time.monotonic()
        self._look_at = self._not_before = 0.0
        self._fault = ""

    @property
    def facts(self) -> tuple[int, int, str]:
        """Segments that were replaced, those to replace, and why one is not; empty if nothing is wrong."""
        return self._replacer.replaced, self._replacer.waiting, self._fault or self._replacer.fault

    def step(self, place: LogPosition) -> bool:
        """Do a small step; returns whether there was one.

        Args:
            place: up to where the journal was shipped. What it stands in, or at the beginning of, waits.

        Raises:
            MirrorConflictError: another mirror does the same.
        """
        now = time.monotonic()
        if now < self._not_before:
            return False
        try:
            if now >= self._look_at:
                self._replacer.look()
                self._look_at = now + _LOOK_SECONDS
            is_busy = self._replacer.step(place.segment if place.offset else place.segment - 1)
        except MirrorConflictError:
            raise
        except (OSError, StoredError) as error:
            self._replacer.close()
            pause = self._backoff.pause(now - self._went_well)
            self._not_before = now + pause
            if str(error) != self._fault:
                self._fault = str(error)
                _log.error("mirror_not_replaced", reason=self._fault, again_in_s=pause)
            return False
        self._went_well, self._fault = now, ""
        return is_busy


class Mirror:
    """Ships one journal, or its tree."""

    def __init__(
        self,
        shipper: Shipper | TreeShipper,
        replacer: Replacer | None,
        line: MirrorEnd,
        status: WorkerStatus,
    ) -> None:
        self._shipper = shipper
        self._replacing = None if replacer is None else Replacing(replacer)
        self._line = line
        self._status = status
        self._report = Report()
        self._backoff = Backoff(RETRY_SECONDS, _STABLE_SECONDS)
        self._went_well = time.monotonic()
        self._not_before = 0.0

    def run(self) -> None:
        """Ship until the server is gone.

        Raises:
            MirrorConflictError: another history is in the bucket.
        """
        while True:
            self._status.beat()
            self._line.wait(_WAIT_SECONDS)
            if self._line.state is None or time.monotonic() < self._not_before:
                continue
            try:
                self._ship_all()
                if self._replacing is not None:
                    self._replace(self._replacing)
            except MirrorConflictError:
                raise
            except (OSError, StoredError, sqlite3.Error) as error:
                self._fail(str(error))

    def _ship_all(self) -> None:
        """Ship all that is synced."""
        assert self._line.state is not None
        if self._report.place is None:
            place = self._shipper.find(self._line.state)
            _log.info("mirror_found", position=place.position, segment=place.segment, offset=place.offset)
            self._tell(place=tuple(place))
        while (shipped := self._shipper.ship(self._line.state)) is not None:
            self._status.beat()
            report = self._report
            self._tell(
                place=tuple(shipped.place),
                pieces=report.pieces + shipped.objects,
                stored_bytes=report.stored_bytes + shipped.stored_bytes,
                logical_bytes=report.logical_bytes + shipped.logical_bytes,
            )
            self._line.wait(0)

    def _replace(self, replacing: Replacing) -> None:
        """Replace segments, until there is none left; what is stored meanwhile goes first."""
        is_busy = True
        while is_busy:
            assert self._report.place is not None
            is_busy = replacing.step(LogPosition(*self._report.place))
            self._status.beat()
            replaced, to_replace, fault = replacing.facts
            report = msgspec.structs.replace(
                self._report, replaced=replaced, to_replace=to_replace, replace_fault=fault
            )
            if report != self._report:
                self._report = report
                self._line.report(report)
            self._line.wait(0)
            self._ship_all()

    def _fail(self, reason: str) -> None:
        pause = self._backoff.pause(time.monotonic() - self._went_well)
        self._not_before = time.monotonic() + pause
        if reason != self._report.fault:
            _log.error("mirror_waits", reason=reason, again_in_s=pause)
            self._report = msgspec.structs.replace(self._report, fault=reason)
            self._line.report(self._report)

    def _tell(self, **changes: object) -> None:
        if self._report.fault:
            _log.info("mirror_goes_on", after=self._report.fault)
        self._went_well = time.monotonic()
        self._report = msgspec.structs.replace(self._report, fault="", **changes)
        self._line.report(self._report)


def _open_shipper(config: MirrorConfig, files: FileSystem) -> tuple[Shipper | TreeShipper, Replacer | None]:
    require_library()
    from .bucket import Access, Bucket  # noqa: PLC0415 - an extra, which may be missing

    place, folders = parse_url(config.url), open_folders(files, config.base)
    bucket = Bucket(place, Access(config.endpoint, config.credentials))
    if config.is_of_tree:
        reader = JournalReader(files, folders.journal)
        datadir = DataDir(config.base, files, folders)
        return TreeShipper(bucket, datadir, reader, str(place), place.prefix), None
    chain = Chain(files, folders.journal, open_files_max=2)
    store = chain.headers[1].store
    replacer = Replacer(bucket, files, folders.journal, place.prefix, store)
    return Shipper(bucket, chain, place.prefix), replacer


def main() -> None:
    """Entry point of the process; arguments: descriptor of the line, `MirrorConfig` as JSON."""
    line_fd, text = sys.argv[1:]
    interpreter.ignore_group_signals()
    config = msgspec.json.decode(text, type=MirrorConfig)
    die_with(config.parent)
    log.configure(json=config.log_json, level=config.log_level)
    structlog.contextvars.bind_contextvars(process="mirror-tree" if config.is_of_tree else "mirror")
    os.nice(_NICE)
    line = MirrorEnd(socket.socket(fileno=int(line_fd)))
    status = WorkerStatus.of(config.status_fd)
    status.beat()
    files = showing_syncs(status.in_sync)
    try:
        Mirror(*_open_shipper(config, files), line, status).run()
    except (MirrorConflictError, ConfigError) as error:
        line.report(Report(fault=str(error), is_over=True))
        sys.exit(OVER_STATUS)
    except (OSError, StoredError) as error:
        line.report(Report(fault=str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
