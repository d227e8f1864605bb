"""The system's clock steps back and forth under a daemon: nothing that it promises hangs on it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.raw import Raw, event, session, setting
from tests.support import RunningDaemon, eventually

HOUR_MS = 3_600_000
RUN = {"jobId": "j1", "runId": "r1"}

# The real daemon, whose process sees the clock through a file: so many ms beside the truth.
_PROGRAM = """
import runpy, sys, time
real, path = time.time_ns, sys.argv.pop(1)
def shifted():
    with open(path) as file:
        return real() + int(file.read()) * 1_000_000
time.time_ns = shifted
time.time = lambda: shifted() / 1e9
runpy.run_module("perstack_stored", run_name="__main__", alter_sys=True)
"""


class Clock:
    """The daemon's idea of the time of day."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, shift_ms: int) -> None:
        """Let it be so many ms beside the truth from now on."""
        new = self.path.with_suffix(".new")
        new.write_text(str(shift_ms))
        new.rename(self.path)


@contextmanager
def shifted_daemon(base: Path, clock: Clock) -> Iterator[RunningDaemon]:
    """A ready daemon that lives by this clock."""
    daemon = RunningDaemon(base)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(clock.path), "serve", "--base-path", str(base)],
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ.copy(),
        )
    try:
        with Raw(daemon.endpoint) as raw:
            raw.send("ping")
            raw.receive(30)
        yield daemon
    finally:
        daemon.kill()


def _updated_at(raw: Raw) -> int:
    (found,) = raw.ask("getAllRuns").value
    return int(found["updatedAt"])


def test_positions_and_times_never_go_back_with_the_clock(tmp_path: Path) -> None:
    """Forth by an hour, back by two, and again over a kill: positions, times and updatedAt only grow."""
    clock = Clock(tmp_path / "clock")
    updated = [0]
    stored = 0
    for generation in range(2):
        with shifted_daemon(tmp_path / "base", clock) as daemon, Raw(daemon.endpoint) as raw:
            for shift in (0, HOUR_MS, -HOUR_MS, HOUR_MS // 2, -10 * HOUR_MS):
                clock.set(shift)
                stored += 1
                assert raw.store("storeRunSetting", setting(updatedAt=5)) == stored
                stored += 1
                assert raw.store("storeEvent", event(f"{generation}{shift}", timestamp=stored)) == stored
                updated.append(_updated_at(raw))
            records = raw.read_all()
            assert [record["position"] for record in records] == list(range(1, stored + 1))
            times = [record["time"] for record in records]
            assert times == sorted(times)
        clock.set(-48 * HOUR_MS)
    assert updated == sorted(updated)
    assert updated[-1] >= time.time() * 1000 + HOUR_MS - 60_000  # as far as the clock ever was


def test_a_session_and_the_waits_of_reads_do_not_hang_on_the_clock(tmp_path: Path) -> None:
    """A jump of two days: a repeat gets its position, a read is answered, a wait ends in time."""
    clock = Clock(tmp_path / "clock")
    key = session()
    with shifted_daemon(tmp_path / "base", clock) as daemon, Raw(daemon.endpoint) as raw:
        first = raw.ask("storeEvent", event("a"), session=key, seq=1).position
        for shift in (48 * HOUR_MS, -48 * HOUR_MS):
            clock.set(shift)
            assert raw.ask("storeEvent", event("a"), session=key, seq=1).position == first
            assert raw.ask("getEventsByRun", RUN, timeoutMs=5000).header["ok"]
            start = time.monotonic()
            waited = raw.ask("readAll", {"after": first, "waitMs": 300})
            assert json.loads(waited.body) == []
            assert 0.25 < time.monotonic() - start < 10
        part = raw.ask("storeEvent", b"{", session=key, seq=2, part=0, parts=2, bytes=20)
        assert part.header["ok"]
        clock.set(48 * HOUR_MS)
        eventually(lambda: raw.ask("stats").value["partsBytes"] == 1, "the part is kept")
