"""The agents of one round.

    python -m tests.bench.agent DRIVER ADDRESS FIRST PROCESSES IN_FLIGHT SECONDS RATE

Each is a process of its own, forked from this one before anything is connected. It says "ready" when all are
connected, begins at a line on stdin, and prints JSON: for each agent the events acknowledged, its last
answer's time (of the steady clock), and a sample of latencies in ms. With a RATE above 0 an agent stores RATE
events a second, one after the other, and a latency counts from the moment at which its event was due: it
includes the wait for a late event before it.
"""

import asyncio
import os
import random
import sys
import time
from typing import Any

import orjson

from tests.bench.drivers import DRIVERS, Driver
from tests.bench.load import RESERVOIR, Load, event


class Sample:
    """A sample of fixed size of any number of values (reservoir sampling)."""

    def __init__(self, size: int) -> None:
        self.values: list[float] = []
        self._size = size
        self._seen = 0

    def add(self, value: float) -> None:
        """Takes a value."""
        self._seen += 1
        if len(self.values) < self._size:
            self.values.append(value)
        elif (place := int(random.random() * self._seen)) < self._size:
            self.values[place] = value


async def as_fast_as_it_goes(
    driver: Driver, agent: int, in_flight: int, seconds: float, sample: Sample
) -> int:
    """Stores what may be in flight, again and again; returns the number of events."""
    end = time.monotonic() + seconds
    i = 0
    while time.monotonic() < end:
        before = time.perf_counter()
        await driver.store([event(agent, n) for n in range(i, i + in_flight)])
        sample.add(1000 * (time.perf_counter() - before))
        i += in_flight
    return i


async def at_a_rate(driver: Driver, agent: int, rate: float, seconds: float, sample: Sample) -> int:
    """Stores one event each 1/rate seconds; returns the number of events."""
    begin = time.monotonic() + random.random() / rate
    i = 0
    while i < seconds * rate:
        due = begin + i / rate
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)  # noqa: ASYNC251 - one event is under way at a time
        await driver.store([event(agent, i)])
        sample.add(1000 * (time.monotonic() - due))
        i += 1
    return i


async def run_agent(name: str, address: str, agent: int, load: Load, gate: int, ready: int) -> dict[str, Any]:
    """One agent: connects, says so, waits, works."""
    driver = DRIVERS[name]()
    await driver.connect(address, agent, load.in_flight)
    os.write(ready, b".")
    os.read(gate, 1)  # ends when the parent closes its end
    sample = Sample(RESERVOIR)
    if load.rate:
        count = await at_a_rate(driver, agent, load.rate, load.seconds, sample)
    else:
        count = await as_fast_as_it_goes(driver, agent, load.in_flight, load.seconds, sample)
    await driver.finish()
    return {"count": count, "end": time.monotonic(), "latencies": sample.values}


def main() -> None:
    """Fork, wait for the start, collect."""
    name, address = sys.argv[1:3]
    first, processes, in_flight = map(int, sys.argv[3:6])
    load = Load(processes, in_flight, *map(float, sys.argv[6:8]))
    gate_out, gate_in = os.pipe()
    ready_out, ready_in = os.pipe()
    pipes = []
    for agent in range(first, first + processes):
        results_out, results_in = os.pipe()
        if os.fork() == 0:
            os.close(gate_in)
            found = asyncio.run(run_agent(name, address, agent, load, gate_out, ready_in))
            with os.fdopen(results_in, "wb") as results:
                results.write(orjson.dumps(found))
            os._exit(0)
        os.close(results_in)
        pipes.append(results_out)
    os.close(ready_in)
    waiting = processes
    while waiting:
        some = os.read(ready_out, waiting)
        if not some:
            raise SystemExit("an agent ended before it was connected")
        waiting -= len(some)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    os.close(gate_in)
    agents = []
    for pipe in pipes:
        with os.fdopen(pipe, "rb") as results:
            agents.append(orjson.loads(results.read()))
    print(orjson.dumps({"begin": begin, "agents": agents}).decode())


if __name__ == "__main__":
    main()
