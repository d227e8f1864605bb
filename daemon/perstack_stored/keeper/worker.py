"""The keeper's process: erases what was deleted, packs complete segments, and ends when all is done.

It has the lowest priority, keeps to a rate, and waits while the disk is nearly full. A segment that can't be
written stays as it is, is reported, and is tried again later.
"""

import os
import socket
import sys
import time

import msgspec
import structlog

from perstack_stored.datadir.layout import DataDir, open_folders
from perstack_stored.datadir.shown_syncs import showing_syncs
from perstack_stored.errors import StoredError
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.packing import PackingError
from perstack_stored.journal.preallocation import SPARE_NAME
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.observe import log
from perstack_stored.process import interpreter
from perstack_stored.process.parent_death import die_with
from perstack_stored.process.worker_status import WorkerStatus

from .channel import KeeperConfig, KeeperEnd, Report
from .erase import SMALL_BYTES
from .eraser import Eraser
from .pack import Options, Pace, pack_segment, remove_left_overs

KEEPER_MODULE = __name__
LINGER_SECONDS = 60.0
_WAIT_SECONDS = 0.5
_RETRY_SECONDS = (10.0, 60.0, 600.0)
_FREE_SEGMENTS = 2
_NICE = 19
_NO_ROOM = "the disk is nearly full: packing and erasing wait"

_log = structlog.get_logger()


class _Retry:
    """When work that fails is tried again."""

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._not_before

    def failed(self) -> float:
        """Begin a pause, longer each time; returns its seconds."""
        pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
        self._failures += 1
        self._not_before = time.monotonic() + pause
        return pause

    def went_well(self) -> float:
        """Begin with the first pause again; returns 0."""
        self._failures = 0
        return 0.0


class Keeper:
    """Packs the segments of one journal, and erases in them."""

    def __init__(self, datadir: DataDir, config: KeeperConfig, line: KeeperEnd, status: WorkerStatus) -> None:
        self._files = datadir.files
        self._dir = datadir.folders.journal
        self._config = config
        self._line = line
        self._status = status
        self._chain: Chain | None = None
        self._looked_at: set[int] = set()
        self._report = Report()
        self._packing, self._erasing = _Retry(), _Retry()
        self._ahead = 0.0  # the time up to which the rate allows what was read
        self._pace = Pace(self._keep_pace, self._beat)
        self._eraser = Eraser(datadir, self._pace, packs=config.packs)

    def run(self) -> None:
        """Erase and pack until there has been nothing to do for some time.

        Raises:
            StoredError: the journal is damaged, or of a newer version.
            OSError: its folder can't be read.
        """
        remove_left_overs(self._files, self._dir)
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < LINGER_SECONDS:
            self._status.beat()
            self._line.wait(_WAIT_SECONDS)
            state = self._line.state
            if state.erases:
                idle_since = time.monotonic()
            if state.erases and self._erasing.is_due:
                self._erase()
            wants_packing = self._config.packs and state.segment > self._report.done_below
            if wants_packing and self._packing.is_due:
                self._pack_all()
                idle_since = time.monotonic()

    @property
    def _has_room(self) -> bool:
        return self._files.free_bytes(self._dir) >= _FREE_SEGMENTS * self._config.segment_bytes

    def _erase(self) -> None:
        """Erase what can be erased now."""
        if not self._has_room:
            self._note_erasing(_NO_ROOM)
            return
        outcome = self._eraser.run(self._opened(), self._line)
        report = self._report
        changed = msgspec.structs.replace(
            report,
            erased_to=max(outcome.erased_to, report.erased_to),
            erased_segments=report.erased_segments + outcome.segments,
            erased_records=report.erased_records + outcome.records,
            wants_segment=outcome.wants_segment,
        )
        if changed != report:
            self._report = changed
            self._tell()
        self._note_erasing(outcome.fault, outcome.passed_over)

    def _note_erasing(self, fault: str, passed_over: int = 0) -> None:
        """Report what holds erasing back, and log it when it begins and ends."""
        pause = self._erasing.failed() if fault else self._erasing.went_well()
        if not fault and passed_over:
            fault = (
                f"the tree passes over the deletion at position {passed_over}, so its files may be there:"
                " `rebuild --retry-blocked` tries it again"
            )
        before = self._report.erase_fault
        if fault == before:
            return
        if fault:
            _log.error("erasing_held_back", reason=fault, again_in_s=pause)
        else:
            _log.info("erasing_goes_on", after=before)
        self._tell(erase_fault=fault)

    def _pack_all(self) -> None:
        """Pack what is complete, until there is nothing left or something can't be done for now."""
        while (number := self._next()) is not None:
            if not self._has_room:
                self._fail(_NO_ROOM)
                return
            try:
                self._pack(number)
            except (OSError, PackingError) as error:
                self._looked_at.discard(number)
                self._fail(f"{segment_name(number)}: {error}")
                return
            self._packing.went_well()
            self._tell(fault="")
            if self._line.state.erases and self._erasing.is_due:
                return  # that goes first: it has a time to be done in
        self._tell(done_below=self._line.state.segment, fault="")

    def _opened(self) -> Chain:
        if self._chain is None:
            self._chain = Chain(self._files, self._dir, open_files_max=1)
        return self._chain

    def _next(self) -> int | None:
        """The newest complete segment that was not looked at, None if there is none."""
        self._line.wait(0)
        chain = self._opened()
        chain.refresh()
        for number in range(min(self._line.state.segment, chain.last) - 1, 0, -1):
            if number not in self._looked_at:
                return number
        return None

    def _pack(self, number: int) -> None:
        assert self._chain is not None
        self._looked_at.add(number)
        end = self._chain.end_of(number)
        assert end is not None
        file = self._chain.open(number)
        if file.is_packed:
            self._count(file.size(), file.file_bytes())
            return
        if end < SMALL_BYTES:
            return
        began = time.monotonic()
        # What waits to be erased may stand in the plain file: none is left over then.
        exchange = self._config.exchange and not self._line.state.erases
        options = Options(exchange, self._config.segment_bytes)
        packed = pack_segment(self._files, self._dir, (number, end), self._pace, options)
        self._chain.drop_replaced()
        self._count(packed.logical_bytes, packed.file_bytes)
        _log.info(
            "segment_packed",
            segment=number,
            bytes=packed.logical_bytes,
            packed_bytes=packed.file_bytes,
            seconds=round(time.monotonic() - began, 3),
        )

    def _count(self, logical_bytes: int, file_bytes: int) -> None:
        report = self._report
        self._report = msgspec.structs.replace(
            report,
            segments=report.segments + 1,
            logical_bytes=report.logical_bytes + logical_bytes,
            file_bytes=report.file_bytes + file_bytes,
        )

    def _fail(self, reason: str) -> None:
        pause = self._packing.failed()
        _log.error("segment_not_packed", reason=reason, again_in_s=pause)
        self._tell(fault=reason)

    def _tell(self, **changes: object) -> None:
        has_spare = SPARE_NAME in self._files.list_dir(self._dir)
        self._report = msgspec.structs.replace(self._report, has_spare=has_spare, **changes)
        self._line.report(self._report)

    def _keep_pace(self, size: int) -> None:
        """Sleep until the rate allows the bytes that were read."""
        self._status.beat()
        now = time.monotonic()
        self._ahead = max(self._ahead, now) + size / self._config.bytes_per_second
        while (pause := self._ahead - time.monotonic()) > 0:
            time.sleep(min(pause, _WAIT_SECONDS))
            self._line.wait(0)  # ends the process if the server is gone
            self._status.beat()

    def _beat(self, _size: int) -> None:
        self._status.beat()


def _run_late() -> None:
    """Run when nobody else wants to."""
    os.nice(_NICE)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # a container may forbid it: niceness stays
        _log.debug("keeper_not_idle", reason=str(error))


def main() -> None:
    """Entry point of the process; arguments: descriptor of the line, `KeeperConfig` as JSON."""
    line_fd, text = sys.argv[1:]
    interpreter.ignore_group_signals()
    config = msgspec.json.decode(text, type=KeeperConfig)
    die_with(config.parent)
    log.configure(json=config.log_json, level=config.log_level)
    structlog.contextvars.bind_contextvars(process="keeper")
    _run_late()
    line = KeeperEnd(socket.socket(fileno=int(line_fd)))
    status = WorkerStatus.of(config.status_fd)
    status.beat()
    files = showing_syncs(status.in_sync)
    try:
        folders = open_folders(files, config.base)
        Keeper(DataDir(config.base, files, folders), config, line, status).run()
    except (OSError, StoredError) as error:
        _log.error("keeper_failed", reason=str(error))
        line.report(Report(fault=str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
