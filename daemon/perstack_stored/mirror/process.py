"""Starts and watches the mirror, in the server. Nothing waits for it but a stop, for some seconds."""

import time
from typing import Any

import structlog

from perstack_stored.journal.reader import LogPosition
from perstack_stored.observe.counters import PositionHistory
from perstack_stored.process.supervised import SupervisedChild, Times

from .channel import MirrorConfig, Report, server_end
from .worker import MIRROR_MODULE

_PAUSE_SECONDS = (0.5, 1.0, 5.0, 30.0)
_STABLE_SECONDS = 60.0
_SILENCE_SECONDS = 120.0  # several times what one request may take
_POLL_SECONDS = 0.01

_log = structlog.get_logger()


class MirrorProcess:
    """The mirror as the server sees it. `follow` is called about once a second."""

    def __init__(self, config: MirrorConfig) -> None:
        """Prepare it; no process starts yet. `config` is given to each process."""
        self._config = config
        times = Times(_PAUSE_SECONDS, _STABLE_SECONDS, _SILENCE_SECONDS)
        self._child = SupervisedChild("mirror", MIRROR_MODULE, server_end, times)
        self._report = Report()
        self._before = Report()  # sums of the processes that ended
        self._history = PositionHistory()
        self._is_over = False
        self.faults = 0
        self.place: LogPosition | None = None

    def follow(self, mark: LogPosition) -> None:
        """Collect reports, start the process if it does not run, and send the synced log position."""
        self._hear()
        if not self._is_over and self._child.is_due:
            self._child.start(self._config)
        self._child.send(mark)
        self._history.note(time.monotonic(), mark.position, 0 if self.place is None else self.place.position)

    def describe(self) -> dict[str, Any]:
        """State for `stats`, but for how far it is."""
        return {
            "enabled": True,
            "pieces": self._before.pieces + self._report.pieces,
            "bytes": self._before.logical_bytes + self._report.logical_bytes,
            "packedBytes": self._before.stored_bytes + self._report.stored_bytes,
            "replaced": self._before.replaced + self._report.replaced,
            "toReplace": self._report.to_replace,
            "fault": self._child.fault or self._report.fault or self._report.replace_fault,
            "faults": self.faults,
            "starts": self._child.starts,
        }

    def lag_seconds(self) -> float:
        """Age of the oldest record that is not in the bucket, as far as this daemon knows it."""
        position = 0 if self.place is None else self.place.position
        return self._history.lag_seconds(time.monotonic(), position)

    @property
    def pid(self) -> int | None:
        """Process id, None if it does not run."""
        return self._child.pid

    def finish(self, mark: LogPosition, seconds: float) -> None:
        """Ship up to a log position, if that takes no longer than some seconds, and end the process.

        The journal may be closed meanwhile: what it writes then comes after the position.
        """
        deadline = time.monotonic() + seconds
        while self._child.has_line:
            self._child.send(mark)
            self._hear()
            if self.place is not None and self.place.position >= mark.position:
                break
            if self._report.fault or time.monotonic() >= deadline:
                _log.warning("mirror_unfinished", reason="it did not end in time; the next start goes on")
                break
            time.sleep(_POLL_SECONDS)
        self.stop()

    def stop(self) -> None:
        """Kill the process: a piece that it has not finished is found at the next start."""
        self._child.stop()

    def _hear(self) -> None:
        reports, status = self._child.receive()
        for report in reports:
            if report.fault and report.fault != self._report.fault:
                self.faults += 1
            self._report = report
            if report.place is not None:
                self.place = LogPosition(*report.place)
            self._is_over = report.is_over
        if status is not None:
            self._note_end(status)

    def _note_end(self, status: int) -> None:
        reason = self._report.fault or f"ended with status {status}"
        before, last = self._before, self._report
        self._before = Report(
            pieces=before.pieces + last.pieces,
            stored_bytes=before.stored_bytes + last.stored_bytes,
            logical_bytes=before.logical_bytes + last.logical_bytes,
            replaced=before.replaced + last.replaced,
        )
        self._report = Report()
        if self._is_over:
            self._child.fault = reason
            _log.critical("mirror_stopped", reason=reason)
        else:
            self._child.failed(reason)
