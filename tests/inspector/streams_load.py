"""Five hundred clients of streams that come and go while agents store: no gap, no repeat, bounded memory.

    python -m tests.inspector.streams_load [--clients 500] [--seconds 30]

Exits with status 1 if a client missed a record or got one twice, or the gateway grew beyond its bound.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from perstack_storage import Client
from tests.helpers.daemon import running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.inspector.runs import completed
from tests.inspector.storing import store

RATE = 200
"""Jobs of some 200 records are stored one after the other, at most this many records a second."""
MEMORY_MAX_MB = 160


class Listener:
    """One client: it listens, goes away, and comes again with the id of the last event."""

    def __init__(self, inspector: Inspector, number: int) -> None:
        self._inspector = inspector
        self._random = random.Random(number)
        self.last = 0
        self.got = self.connections = 0
        self.wrong: list[str] = []

    async def listen(self, until: asyncio.Event, end: list[int]) -> None:
        """Listen until the last record is here."""
        while not (until.is_set() and end and self.last >= end[0]):
            try:
                async with asyncio.timeout(60):
                    await self._once(until, end)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.2)

    async def _once(self, until: asyncio.Event, end: list[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._inspector.port, limit=1 << 22)
        self.connections += 1
        leave = self._random.randrange(20, 2000)
        try:
            head = (
                f"GET /api/stream?after=0&form=heads HTTP/1.1\r\nHost: 127.0.0.1:{self._inspector.port}\r\n"
                f"Authorization: Bearer {self._inspector.token}\r\nLast-Event-ID: {self.last}\r\n\r\n"
            )
            writer.write(head.encode())
            status = await reader.readline()
            if b"200" not in status:
                await asyncio.sleep(0.5)
                return
            record = False
            while leave and not (until.is_set() and end and self.last >= end[0]):
                line = await reader.readline()
                if not line:
                    return
                if line.startswith(b"id: "):
                    position = int(line[4:])
                elif line.startswith(b"event: "):
                    record = line == b"event: record\n"
                elif line.startswith(b"data: ") and record:
                    self._take(position)
                    leave -= 1
        finally:
            writer.close()

    def _take(self, position: int) -> None:
        if position != self.last + 1:
            self.wrong.append(f"{position} came after {self.last}")
        self.last = position
        self.got += 1


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def _agent(endpoint: str, seconds: float, end: list[int], done: threading.Event) -> None:
    started, number = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        calls = completed(f"job-{number}", 1_700_000_000_000 + number)
        store(endpoint, calls)
        number += 1
        time.sleep(len(calls) / RATE)
    with Client(endpoint) as client:
        end.append(int(client.stats()["position"]))
    done.set()


async def _run(inspector: Inspector, endpoint: str, clients: int, seconds: float) -> list[Listener]:
    end: list[int] = []
    stored, until = threading.Event(), asyncio.Event()
    threading.Thread(target=_agent, args=(endpoint, seconds, end, stored)).start()
    listeners = [Listener(inspector, number) for number in range(clients)]
    tasks = [asyncio.create_task(listener.listen(until, end)) for listener in listeners]
    await asyncio.to_thread(stored.wait)
    until.set()
    await asyncio.gather(*tasks)
    return listeners


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        running_daemon(Path(temporary) / "base") as daemon,
        running_inspector(daemon) as inspector,
    ):
        listeners = asyncio.run(_run(inspector, daemon.endpoint, given.clients, given.seconds))
        memory = _memory_mb(inspector.process.pid)
    wrong = [line for listener in listeners for line in listener.wrong]
    connections = sum(listener.connections for listener in listeners)
    got = sum(listener.got for listener in listeners)
    print(f"{len(listeners)} clients, {connections:,} connections, {got:,} records, gateway {memory:.0f} MB")
    print(f"missing or repeated: {len(wrong)}")
    return 1 if wrong or memory > MEMORY_MAX_MB else 0


if __name__ == "__main__":
    sys.exit(main())
