"""The demo's processes: agents that store, and readers that read back what was acknowledged to the agents."""

import multiprocessing
import random
import signal
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

from perstack_storage import Client, StorageError
from tests.demo.compare import Difference, Item, compare, item_of
from tests.demo.workload import Call, Jobs, interleaved

STORES = {
    "storeJob": "store_job",
    "storeCheckpoint": "store_checkpoint",
    "storeEvent": "store_event",
    "storeRunSetting": "store_run_setting",
}
READERS = 4
READER_PAUSE_SECONDS = 0.02
_FORK = multiprocessing.get_context("fork")


class Witnessed(NamedTuple):
    """What a reader saw while others wrote."""

    reads: int
    values: int
    differences: list[Difference]


class Agents:
    """All processes: forked before the daemon starts; they begin when it is ready."""

    def __init__(self, endpoint: str, agents: list[Jobs]) -> None:
        turns = [interleaved(jobs) for jobs in agents]
        self.total = sum(map(len, turns))
        self._acknowledged: Any = _FORK.RawArray("q", len(turns))
        self._finished_at: Any = _FORK.RawArray("d", len(turns))
        self._ready = _FORK.Semaphore(0)
        self._go = _FORK.Event()
        self._stop = _FORK.Event()
        self._results: list[Connection[Any, Any]] = []
        self._processes = [
            *(
                self._start(f"reader {n + 1}", _witness, endpoint, turns, self._acknowledged, n)
                for n in range(READERS)
            ),
            *(
                self._start(
                    f"agent {n + 1}", _store, endpoint, calls, n, self._acknowledged, self._finished_at
                )
                for n, calls in enumerate(turns)
            ),
        ]

    def _start(self, name: str, work: Any, *arguments: Any) -> Any:
        ours, theirs = _FORK.Pipe(duplex=False)
        self._results.append(ours)
        process = _FORK.Process(
            name=name, target=_process, args=(theirs, self._ready, self._go, self._stop, work, *arguments)
        )
        process.start()
        theirs.close()
        return process

    def go(self) -> float:
        """Let all begin once each is connected; returns the time of it, by the monotonic clock."""
        for _ in self._processes:
            while not self._ready.acquire(timeout=0.1):
                self._fail_if_ended()
        self._go.set()
        return time.monotonic()

    def acknowledged(self) -> int:
        """How many stores were acknowledged so far."""
        self._fail_if_ended()
        return sum(self._acknowledged)

    def stop_reading(self) -> None:
        """Ask the readers to end."""
        self._stop.set()

    def finish(self) -> tuple[float, Witnessed]:
        """Wait for their end; returns when the last store was acknowledged, and what the readers saw."""
        results = [self._result(n) for n in range(len(self._processes))]
        seen: list[Witnessed] = results[:READERS]
        for process in self._processes:
            process.join()
        differences = [difference for each in seen for difference in each.differences]
        witnessed = Witnessed(
            sum(each.reads for each in seen), sum(each.values for each in seen), differences
        )
        return max(self._finished_at), witnessed

    def _fail_if_ended(self) -> None:
        for n, process in enumerate(self._processes):
            if process.exitcode is not None and (process.exitcode or not self._go.is_set()):
                self._result(n)

    def _result(self, n: int) -> Any:
        try:
            result = self._results[n].recv()
        except EOFError:
            result = f"ended with status {self._processes[n].exitcode}"
        if isinstance(result, str):
            raise AgentFailed(f"{self._processes[n].name}: {result}")
        return result

    def terminate(self) -> None:
        """End the processes that still run."""
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        for process in self._processes:
            process.join()


class AgentFailed(Exception):  # noqa: N818 - what happened
    """A process of the demo ended with an error."""


def _process(
    result: Any, ready: Any, go: Event, stop: Event, work: Any, endpoint: str, *arguments: Any
) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach the demo itself, which ends all others
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Client(endpoint) as client:
            client.ping()
            ready.release()
            go.wait()
            result.send(work(client, stop, *arguments))
    except StorageError as error:
        result.send(str(error))
        raise SystemExit(1) from None
    except Exception:  # noqa: BLE001 - whatever it is, the demo prints it
        result.send(traceback.format_exc())
        raise SystemExit(1) from None


def _store(
    client: Client, _stop: Event, turns: list[tuple[str, Call]], n: int, acknowledged: Any, at: Any
) -> None:
    """An agent: stores its calls as the runtime does, without awaiting any."""
    with client.pipeline() as pipeline:
        stores = {op: getattr(pipeline, method) for op, method in STORES.items()}
        for _, call in turns:
            stores[call.op](call.value)
            acknowledged[n] = len(pipeline.positions)
    at[n] = time.monotonic()
    acknowledged[n] = len(pipeline.positions)


def _witness(
    client: Client, stop: Event, agents: list[list[tuple[str, Call]]], acknowledged: Any, seed: int
) -> Witnessed:
    """A reader: each value that was acknowledged before the read must be in the answer."""
    choice = random.Random(seed)
    reads = values = 0
    differences: list[Difference] = []
    while not stop.wait(READER_PAUSE_SECONDS):
        n = choice.randrange(len(agents))
        job = choice.choice(agents[n])[0]
        known = [call for owner, call in agents[n][: acknowledged[n]] if owner == job]
        events = [call.value for call in known if call.op == "storeEvent"]
        if not events:
            continue
        run = choice.choice(events)["runId"]
        sent = [item_of(event) for event in events if event["runId"] == run]
        # One process makes all events of a run, and their times ascend: what was acknowledged comes first.
        found = [item_of(event) for event in client.get_event_contents(job, run)[: len(sent)]]
        differences += _compared(f"read while {job}/{run} was written", sent, found)
        checkpoints = [item_of(call.value) for call in known if call.op == "storeCheckpoint"][-1:]
        for checkpoint in checkpoints:
            answer = item_of(client.retrieve_checkpoint(job, checkpoint.name))
            differences += _compared(f"read while {job} was written", [checkpoint], [answer])
        reads += 1 + len(checkpoints)
        values += len(sent) + len(checkpoints)
    return Witnessed(reads, values, differences)


def _compared(section: str, sent: list[Item], found: list[Item]) -> list[Difference]:
    return compare({section: sent}, {section: found})
