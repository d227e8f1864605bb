"""The TypeScript client, in a Node process, with the methods of the Python one: one suite runs on all."""

import atexit
import json
import os
import shutil
import subprocess
import threading
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from perstack_storage import (
    CheckpointNotFound,
    ClosedError,
    DaemonUnavailable,
    JobTakenOver,
    OutcomeUnknown,
    Page,
    Refused,
    StorageError,
    TooMuchOutstanding,
)
from perstack_storage._core.calls import NowaitStores, Stores

TYPESCRIPT = Path(__file__).parents[3] / "client" / "typescript"
BUILT = TYPESCRIPT / "dist" / "index.js"
BRIDGE = Path(__file__).with_name("bridge.mjs")
ANSWER_SECONDS = 100.0
_STATES: dict[str, type[StorageError]] = {
    kind.__name__: kind for kind in (ClosedError, DaemonUnavailable, OutcomeUnknown, TooMuchOutstanding)
}


def missing() -> str | None:
    """What has to be there for a `NodeClient`, and is not."""
    if shutil.which("node") is None:
        return "node 20 or newer"
    return (
        None if BUILT.is_file() and (TYPESCRIPT / "node_modules").is_dir() else "the built TypeScript client"
    )


class Bridge:
    """A Node process that has a storage, and another one after it: a start costs 0.15 s of CPU time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(BRIDGE), str(BUILT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={key: value for key, value in os.environ.items() if not key.startswith("PERSTACK_STORED")},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[str, Future[Any]]] = {}
        self._next_id = 1
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self.end)

    def open(self, options: dict[str, object]) -> None:
        """Make a storage; none is open."""
        with self._lock:
            self._write(options)

    def start(self, call: str, *args: object) -> "Future[Any]":
        """Make a call of the storage; "close" ends it."""
        future: Future[Any] = Future()
        with self._lock:
            id = self._next_id
            self._next_id += 1
            self._calls[id] = (call, future)
            self._write({"id": id, "call": call, "args": args})
        return future

    def end(self) -> int:
        """Close its input; the exit status."""
        atexit.unregister(self.end)
        self._input.close()
        status = self._process.wait(ANSWER_SECONDS)
        self._reader.join()
        self._output.close()
        return status

    def _write(self, line: object) -> None:
        self._input.write(json.dumps(line).encode() + b"\n")
        self._input.flush()

    def _read(self) -> None:
        for line in self._output:
            outcome = json.loads(line)
            op, future = self._calls.pop(outcome["id"])
            if "error" in outcome:
                future.set_exception(_raised(op, outcome["error"]))
            else:
                future.set_result(outcome.get("value"))
        for _, future in self._calls.values():
            future.set_exception(AssertionError("the Node process has ended"))


_idle: list[Bridge] = []


class NodeClient:
    """A storage of the TypeScript client. Calls are made in the order of the lines that go to the process."""

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_s: float = 30.0,
        max_outstanding: int | None = None,
        on_error: object = None,  # the futures of this client always tell
    ) -> None:
        self._bridge: Bridge | None = _idle.pop() if _idle else Bridge()
        options = {"endpoint": endpoint, "timeoutMs": timeout_s * 1000, "maxOutstanding": max_outstanding}
        self._bridge.open({name: value for name, value in options.items() if value is not None})

    def __enter__(self) -> "NodeClient":
        return self

    def __exit__(self, *raised: object) -> None:
        if (bridge := self._bridge) is not None:
            self._bridge = None
            bridge.start("close").result(ANSWER_SECONDS)
            _idle.append(bridge)

    def _start(self, call: str, *args: object) -> "Future[Any]":
        assert self._bridge is not None, "it is closed"
        return self._bridge.start(call, *args)

    def _call(self, call: str, *args: object) -> Any:
        return self._start(call, *args).result(ANSWER_SECONDS)

    def _page(self, op: str, limit: int | None, after: Any, **arguments: object) -> Page[Any]:
        given = {**arguments, "limit": limit, "after": after}
        page = self._call("page", op, {name: value for name, value in given.items() if value is not None})
        return Page(page["items"], page.get("next"), page["position"])

    def store_job(self, value: object) -> None:
        self._call("storeJob", value)

    def store_checkpoint(self, value: object) -> None:
        self._call("storeCheckpoint", value)

    def store_event(self, value: object) -> None:
        self._call("storeEvent", value)

    def store_run_setting(self, value: object) -> None:
        self._call("storeRunSetting", value)

    def store_job_nowait(self, value: object) -> "Future[int]":
        return self._start("store", "storeJob", value)

    def store_checkpoint_nowait(self, value: object) -> "Future[int]":
        return self._start("store", "storeCheckpoint", value)

    def store_event_nowait(self, value: object) -> "Future[int]":
        return self._start("store", "storeEvent", value)

    def store_run_setting_nowait(self, value: object) -> "Future[int]":
        return self._start("store", "storeRunSetting", value)

    def store_changing(self, value: object, count: int) -> None:
        self._call("storeChanging", value, count)

    def atomic(self) -> "NodeBatch":
        return NodeBatch(self)

    def delete_job(self, job_id: str, why: str | None = None) -> int:
        return int(self._call("deleteJob", job_id, *([] if why is None else [why])))

    def delete_run(self, job_id: str, run_id: str) -> int:
        return int(self._call("deleteRun", job_id, run_id))

    def redact_run_setting(self, setting: object) -> int:
        return int(self._call("redactRunSetting", setting))

    def deletions(self, after: int = 0, limit: int | None = None) -> Page[Any]:
        page = self._call("deletions", {"after": after, **({} if limit is None else {"limit": limit})})
        return Page(page["items"], page.get("next"), page["position"])

    def size_of(self, job_id: str, run_id: str | None = None) -> Any:
        return self._call("sizeOf", job_id, *([] if run_id is None else [run_id]))

    def resume(self, job_id: str, run_id: str | None = None) -> "NodeJob":
        return NodeJob(self, job_id, run_id)

    def flush(self) -> None:
        self._call("flush")

    def retrieve_job(self, job_id: str) -> Any:
        return self._call("retrieveJob", job_id)

    def get_all_jobs(self, limit: int | None = None, after: Any = None) -> Any:
        return self._call("getAllJobs") if limit is None else self._page("getAllJobs", limit, after)

    def retrieve_checkpoint(self, job_id: str, checkpoint_id: str) -> Any:
        return self._call("retrieveCheckpoint", job_id, checkpoint_id)

    def get_checkpoints_by_job_id(self, job_id: str) -> Any:
        return self._call("getCheckpointsByJobId", job_id)

    def get_events_by_run(self, job_id: str, run_id: str) -> Any:
        return self._call("getEventsByRun", job_id, run_id)

    def get_event_contents(self, job_id: str, run_id: str, max_step: float | None = None) -> Any:
        return self._call("getEventContents", job_id, run_id, *([] if max_step is None else [max_step]))

    def get_all_runs(self) -> Any:
        return self._call("getAllRuns")

    def read_all(self, after: int = 0, limit: int | None = None) -> Page[Any]:
        page = self._call("readAll", {"after": after, **({} if limit is None else {"limit": limit})})
        return Page(page["items"], page.get("next"), page["position"])

    def follow(self, after: int = 0, *, job_id: str | None = None, idle_s: float = 0) -> Any:
        options = {"after": after, "jobId": job_id, "idleMs": idle_s * 1000}
        return self._call("follow", {name: value for name, value in options.items() if value is not None})

    def hello(self) -> Any:
        return self._call("hello")

    def stats(self) -> Any:
        return self._call("stats")

    def ping(self) -> float:
        return float(self._call("ping")) / 1000


class NodeBatch(Stores[None]):
    """An atomic batch of the TypeScript client, as the Python clients have it."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client
        self._stores: list[tuple[str, Any]] = []
        self.positions: list[int] = []

    def _store(self, op: str, body: bytes) -> None:
        self._stores.append((op, json.loads(body)))

    def __enter__(self) -> "NodeBatch":
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        if kind is None:
            self.positions = self._client._call("storeAtomic", self._stores)


class NodeJob(Stores[int], NowaitStores["Future[int]"]):
    """A resumed job of the TypeScript client, as the Python clients have it."""

    def __init__(self, client: NodeClient, job_id: str, run_id: str | None) -> None:
        self._client = client
        self._key = uuid.uuid4().hex
        found = client._call("resume", self._key, job_id, run_id)
        self.job, self.position = found["job"], found["position"]

    def _store(self, op: str, body: bytes) -> int:
        position, self.position = self._client._call("resumedStore", self._key, op, json.loads(body))
        return int(position)

    def _store_nowait(self, op: str, body: bytes) -> "Future[int]":
        stored: Future[int] = Future()

        def settle(outcome: "Future[Any]") -> None:
            error = outcome.exception()
            if error is None:
                stored.set_result(outcome.result()[0])
            else:
                stored.set_exception(error)

        self._client._start("resumedStore", self._key, op, json.loads(body)).add_done_callback(settle)
        return stored


def _raised(call: str, told: dict[str, Any]) -> Exception:
    """The error of the Python client that has the same name."""
    name = told["name"]
    if name == "JobTakenOver":
        return JobTakenOver(told, op=call)
    if name in {"Refused", "CheckpointNotFound", "Deleted"}:
        kind = CheckpointNotFound if name == "CheckpointNotFound" else Refused
        return kind(told, op=call, index=told.get("item"))
    if name in _STATES:
        state = _STATES[name].__new__(_STATES[name])
        state.args = (told["message"],)
        return state
    return AssertionError(f"{name}: {told['message']}")
