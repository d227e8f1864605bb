"""A campaign of hostile frames against a living daemon, beside a client that behaves.

python -m tests.hostile.fuzz --frames 200000 --seed 7    exit status 1, with the seed, if anything is wrong
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, event
from tests.helpers.replay import check_command
from tests.helpers.watching import MEMORY_MIB_MAX, Pings, memory_mib
from tests.hostile.frames import Frames

# As proto/wire.md lists them; DAMAGED and INTERNAL would be faults of the daemon.
REFUSALS = {
    "BAD_FRAME", "UNSUPPORTED_VERSION", "UNKNOWN_OPERATION", "BAD_REQUEST", "BAD_JSON", "BAD_VALUE",
    "TOO_LARGE",
    "NOT_FOUND", "SEQUENCE_OLD", "SEQUENCE_GAP", "BUSY", "DEADLINE", "READ_GONE", "POSITION_GONE",
    "CONFLICT",
}  # fmt: skip
IN_FLIGHT_MAX = 64
BEHAVE_EVERY = 500
PING_P99_MS_MAX = 100


class Figures(NamedTuple):
    """What a campaign came to."""

    frames: int
    seconds: float
    answers: dict[str, int]  # "ok" and the codes
    memory_mib: float  # the most, beyond what it was at the start
    ping_p99_ms: float  # of a client that behaves, all the while


class Campaign:
    """Sends frames, and holds each answer against the protocol."""

    def __init__(self, daemon: RunningDaemon, seed: int) -> None:
        self._daemon = daemon
        self._frames = Frames(seed)
        self.answers: Counter[str] = Counter()
        self.acknowledged: set[int] = set()

    def run(self, count: int, progress: Callable[[int], None] = lambda _done: None) -> Figures:
        """Send `count` messages; AssertionError says what is wrong."""
        started = time.monotonic()
        memory = memory_mib(self._daemon)
        most = memory
        pings = Pings(self._daemon.endpoint)
        with pings, Raw(self._daemon.endpoint) as hostile, Raw(self._daemon.endpoint) as good:
            in_flight = 0
            for n in range(count):
                hostile.socket.send_multipart(self._frames.message())
                in_flight += 1
                while in_flight >= IN_FLIGHT_MAX:
                    self._take(hostile, good)
                    in_flight -= 1
                if n % BEHAVE_EVERY == 0:
                    self._behave(good, n)
                    most = max(most, memory_mib(self._daemon))
                    progress(n)
            for _ in range(in_flight):
                self._take(hostile, good)
            assert not hostile.socket.poll(200), "an answer that nobody asked for"
            self._behave(good, count)
            self._compare(good)
        assert most - memory < MEMORY_MIB_MAX, f"memory grew by {most - memory:.0f} MiB"
        seconds = time.monotonic() - started
        return Figures(count, seconds, dict(self.answers), most - memory, pings.p99 * 1000)

    def _take(self, raw: Raw, good: Raw) -> None:
        if not raw.socket.poll(20_000):
            self._daemon.assert_alive()
            raise AssertionError(f"a message was not answered: {good.ask('stats').value}")
        frames = raw.socket.recv_multipart()
        assert len(frames) == 1 or (len(frames) == 2 and not frames[0])
        header = json.loads(frames[-1].split(b"\n", 1)[0])
        assert header["v"] == 1
        if not header["ok"]:
            code = header["error"]["code"]
            assert code in REFUSALS, header
            self.answers[code] += 1
            return
        self.answers["ok"] += 1
        if "results" in header:
            results = header["results"]
            self.acknowledged |= {result for result in results if isinstance(result, int)}
            self.answers.update(result["code"] for result in results if not isinstance(result, int))
        elif "position" in header and not frames[-1].count(b"\n"):
            self._acknowledge(header)

    def _acknowledge(self, header: dict[str, Any]) -> None:
        first = header["position"]
        self.acknowledged |= set(range(first, first + header.get("count", 1)))

    def _behave(self, raw: Raw, n: int) -> None:
        """A client that behaves is served all the while, and reads what it stored."""
        value = event(f"good-{n}", jobId="good", timestamp=n)
        self.acknowledged.add(raw.store("storeEvent", value))
        body, _ = raw.whole("getEventContents", {"jobId": "good", "runId": "r1"})
        assert json.loads(body)[-1] == value

    def _compare(self, raw: Raw) -> None:
        """What was acknowledged is there, and nothing else; nothing was logged as a fault."""
        stats = raw.ask("stats").value
        assert self.acknowledged == set(range(1, stats["position"] + 1))
        assert sum(stats["stored"].values()) == stats["position"]
        for code, number in self.answers.items():
            if code != "ok":
                assert stats["refused"][code] == number, (code, number, stats["refused"])
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
        stats = raw.ask("stats").value
        assert (stats["index"]["starts"], stats["tree"]["starts"]) == (1, 1)
        assert (stats["index"]["fault"], stats["tree"]["fault"], stats["tree"]["blocked"]) == ("", "", 0)
        for line in self._daemon.log.read_text().splitlines():
            assert line.startswith("{"), line
            assert json.loads(line)["level"] in {"info", "warning"}, line


def campaign(
    base: Path, seed: int, count: int, progress: Callable[[int], None] = lambda _done: None
) -> Figures:
    """A daemon on a new base, hostile frames from a seed, and a look through the base at the end."""
    with running_daemon(base) as daemon:
        figures = Campaign(daemon, seed).run(count, progress)
        assert daemon.stop() == 0
    checked = subprocess.run(check_command(base), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return figures


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    told = parser.parse_args()
    print(f"fuzz: {told.frames} frames, seed {told.seed}", flush=True)

    def progress(done: int) -> None:
        if done % 20_000 == 0:
            print(f"fuzz: {done} frames", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = campaign(Path(folder) / "base", told.seed, told.frames, progress)
        except AssertionError as error:
            print(f"fuzz: seed {told.seed}: {error}", file=sys.stderr)
            return 1
    print(json.dumps(figures._asdict()))
    if figures.ping_p99_ms > PING_P99_MS_MAX:
        print(f"fuzz: ping p99 {figures.ping_p99_ms:.0f} ms, more than {PING_P99_MS_MAX}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
