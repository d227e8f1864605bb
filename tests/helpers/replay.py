"""Agent processes that replay captured runs, and what must be found then: by position, client and tree."""

import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from perstack_storage import Client
from tests.helpers.daemon import captured_run, under_other_job

METHODS = {
    "storeJob": "store_job",
    "storeCheckpoint": "store_checkpoint",
    "storeEvent": "store_event",
    "storeRunSetting": "store_run_setting",
}
_spawn = multiprocessing.get_context("spawn")
Call = tuple[str, dict[str, Any]]


class Sent(NamedTuple):
    """What one agent sent to one job, in order, and the position that each store was acknowledged with."""

    job: str
    calls: list[Call]
    positions: list[int]


def calls_of(run: str, job: str) -> list[Call]:
    """A captured run under another job id."""
    return [(op, under_other_job(value, job)) for op, value in captured_run(run)]


def _agent(endpoint: str, name: str, runs: str, results: Any) -> None:
    """Replay the runs one after the other."""
    done = []
    with Client(endpoint, timeout_s=90) as client:
        for n, run in enumerate(runs):
            job = f"{name}-{n}-{run}"
            with client.pipeline() as pipeline:
                for op, value in calls_of(run, job):
                    getattr(pipeline, METHODS[op])(value)
            done.append((job, run, pipeline.positions))
    results.put(done)


class Agents:
    """Agent processes that replay runs at the same time: for each a string such as "ab", its runs."""

    def __init__(self, endpoint: str, plans: list[str]) -> None:
        """Start them."""
        self._results: Any = _spawn.Queue()
        self._processes: list[BaseProcess] = [
            _spawn.Process(target=_agent, args=(endpoint, f"agent-{n}", runs, self._results))
            for n, runs in enumerate(plans)
        ]
        for process in self._processes:
            process.start()

    def join(self) -> list[Sent]:
        """Wait for them to come to an end."""
        done = [item for _ in self._processes for item in self._results.get(timeout=100)]
        for process in self._processes:
            process.join(timeout=120)
            assert process.exitcode == 0
        return [Sent(job, calls_of(run, job), positions) for job, run, positions in done]


def assert_all_stored_once_in_order(client: Client, sent: list[Sent]) -> None:
    """Every acknowledged store is at its position with its bytes, once, and each agent's order is kept."""
    by_position: dict[int, tuple[str, bytes]] = {}
    after = 0
    while page := client.read_all(after=after, limit=5000):
        for record in page:
            by_position[record["position"]] = (record["op"], orjson.dumps(record["value"]))
        after = page.next
    expected = {}
    for agent in sent:
        assert None not in agent.positions
        assert agent.positions == sorted(set(agent.positions)), (
            "the order of the calls is not the order stored"
        )
        for position, (op, value) in zip(agent.positions, agent.calls, strict=True):
            assert position not in expected
            expected[position] = (op, orjson.dumps(value))
    assert by_position == expected


def assert_reads_give_what_was_sent(client: Client, sent: list[Sent]) -> None:
    """Through the calls of the API: each event, checkpoint and job, in the order promised."""
    for agent in sent:
        events = [value for op, value in agent.calls if op == "storeEvent"]
        for run in {event["runId"] for event in events}:
            of_run = [event for event in events if event["runId"] == run]
            by_time = sorted(of_run, key=lambda event: event["timestamp"])
            assert client.get_event_contents(agent.job, run) == by_time
            by_step = sorted(of_run, key=lambda event: event["stepNumber"])
            metas = [{k: event[k] for k in ("timestamp", "stepNumber", "type")} for event in by_step]
            assert client.get_events_by_run(agent.job, run) == metas
        checkpoints = {value["id"]: value for op, value in agent.calls if op == "storeCheckpoint"}
        for id, value in checkpoints.items():
            assert client.retrieve_checkpoint(agent.job, id) == value
        found = client.get_checkpoints_by_job_id(agent.job)
        assert [c["stepNumber"] for c in found] == sorted(c["stepNumber"] for c in checkpoints.values())
        assert {c["id"] for c in found} == set(checkpoints)
        jobs = {value["id"]: value for op, value in agent.calls if op == "storeJob"}
        for id, value in jobs.items():
            assert client.retrieve_job(id) == value


def expected_tree(sent: list[Sent]) -> dict[str, bytes]:
    """The files that the documented tree must hold, from what was sent alone."""
    files: dict[str, bytes] = {}
    for agent in sent:
        for op, value in agent.calls:
            if op == "storeJob":
                files[f"jobs/{value['id']}/job.json"] = orjson.dumps(value, option=orjson.OPT_INDENT_2)
            elif op == "storeCheckpoint":
                files[f"jobs/{agent.job}/checkpoints/{value['id']}.json"] = orjson.dumps(value)
            else:
                folder = f"jobs/{agent.job}/runs/{value['runId']}"
                path = f"{folder}/event-{value['timestamp']}-{value['stepNumber']}-{value['type']}"
                n = 1
                name = f"{path}.json"
                while name in files:
                    n += 1
                    name = f"{path}.n{n:04d}.json"
                files[name] = orjson.dumps(value)
    return files


def tree_is_complete(client: Client) -> bool:
    """Whether the tree has caught up with the journal."""
    stats = client.stats()
    return bool(stats["tree"]["position"] == stats["position"])


def check_command(base: Path) -> list[str]:
    """The command that checks a base."""
    return [sys.executable, "-m", "perstack_stored", "check", "--base-path", str(base)]
