"""A client of the campaigns: stores and retries by wire.md, and writes its history down (see judge.py).

`python -m tests.crash.recorder ENDPOINT HISTORY SEED KIND` runs until its standard input is closed, then
until its last store is answered. It knows pyzmq and json, nothing of the daemon or of our clients.
"""

import json
import random
import select
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from tests.crash.load import DELETING
from tests.crash.observed import Observer, digest
from tests.helpers.raw_client import checkpoint, event, job, session, setting

PATIENCE_SECONDS = 1.0
LAST_ANSWER_SECONDS = 180.0
SESSION_FRAMES = 3000
GIVE_UP_EVERY = 50
_TYPES = ("streamReasoning", "callTools", "finishToolCall")


class Temper(NamedTuple):
    """How a client behaves."""

    window: int  # frames in flight
    batch_max: int
    pause_seconds: float
    parts: bool = False
    large_bytes: int = 0
    gives_up: bool = True


TEMPERS = {
    "awaiting": Temper(1, 1, 0.0),
    "steady": Temper(1, 1, 0.004),
    "streaming": Temper(64, 1, 0.0005),
    "batching": Temper(8, 40, 0.002),
    "large": Temper(4, 2, 0.005, parts=True, large_bytes=200_000),
    "burst": Temper(10, 100, 0.0),
}


class Frame(NamedTuple):
    """One store or batch that waits for its answer."""

    seq: int
    stores: list[tuple[str, bytes]]
    parts: int


class Log:
    """The history of one client: each line is in the file before anything else happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def say(self, do: str, **facts: Any) -> None:
        """Write a line down."""
        line = {"do": do, "t": time.monotonic(), **facts}
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def values(
    name: str, rng: random.Random, large_bytes: int, *, moves: bool = True
) -> Iterator[tuple[str, bytes]]:
    """Endless stores: jobs, checkpoints and settings that are stored again, events that share names.

    Args:
        name: of the job.
        rng: what is stored depends on it.
        large_bytes: the most bytes of a value; 0 for small ones.
        moves: whether a checkpoint may be stored again with another run.
    """
    n = 0
    while True:
        n += 1
        run = f"r{rng.randrange(3)}"
        text = "x" * (rng.randrange(large_bytes) if large_bytes else rng.choice((10, 100, 1500)))
        facts: dict[str, Any] = {"jobId": name, "runId": run, "n": n, "text": text + "ä"}
        choice = rng.random()
        value: dict[str, Any]
        if choice < 0.04:
            op, value = "storeJob", job(name, totalSteps=n)
        elif choice < 0.12:
            id = f"c{rng.randrange(4)}" + ("" if moves else run)
            op, value = "storeCheckpoint", checkpoint(id, stepNumber=n % 7, **facts)
        elif choice < 0.14:
            op, value = "storeRunSetting", setting(run, jobId=name, model=f"m{n}")
        else:
            stamp = 1717171717200 + n // 20
            op = "storeEvent"
            value = event(
                f"{name}-{n}", timestamp=stamp, stepNumber=n // 50, type=rng.choice(_TYPES), **facts
            )
        yield op, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Recorder:
    """Stores until it is asked to end."""

    def __init__(self, endpoint: str, log: Log, name: str, seed: int, temper: Temper) -> None:
        self._endpoint = endpoint
        self._log = log
        self._temper = temper
        self._rng = random.Random(seed)
        self._values = values(name, self._rng, temper.large_bytes)
        self._context = zmq.Context()
        self._unanswered: OrderedDict[int, Frame] = OrderedDict()
        self._begin_session()
        self._connect()

    def _begin_session(self) -> None:
        self._session = session()
        self._next_seq = 1
        self._frames = 0

    def _connect(self) -> None:
        """On a new socket, all unanswered stores again, in order."""
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = 100_000
        self._socket.connect(self._endpoint)
        self._heard = time.monotonic()
        for frame in list(self._unanswered.values()):
            self._send(frame)

    def run(self) -> None:
        """Until standard input ends, and all is answered."""
        ending = 0.0
        while True:
            now = time.monotonic()
            if not ending and select.select([sys.stdin], [], [], 0)[0]:
                ending = now
            if ending and not self._unanswered:
                return
            if ending and now - ending > LAST_ANSWER_SECONDS:
                raise TimeoutError(f"{len(self._unanswered)} frames without an answer")
            if not ending:
                self._store_more()
            self._receive()
            if self._unanswered and time.monotonic() - self._heard > PATIENCE_SECONDS:
                self._try_again()

    def _store_more(self) -> None:
        temper = self._temper
        if len(self._unanswered) >= temper.window:
            return
        if self._frames >= SESSION_FRAMES:
            if not self._unanswered:
                self._begin_session()
            return
        count = self._rng.randint(1, temper.batch_max)
        parts = self._rng.randint(2, 4) if temper.parts and count == 1 else 0
        self._store(self._take_stores(count), parts)
        if temper.pause_seconds:
            time.sleep(self._rng.random() * 2 * temper.pause_seconds)

    def _take_stores(self, count: int) -> list[tuple[str, bytes]]:
        return [next(self._values) for _ in range(count)]

    def _store(self, stores: list[tuple[str, bytes]], parts: int = 0) -> None:
        frame = Frame(self._next_seq, stores, parts)
        self._next_seq += len(stores)
        self._frames += 1
        texts = [[op, value.decode()] for op, value in stores]
        self._log.say("sent", session=self._session, seq=frame.seq, stores=texts)
        if not self._unanswered:
            self._heard = time.monotonic()
        self._unanswered[frame.seq] = frame
        self._send(frame)

    def _send(self, frame: Frame) -> None:
        settled = next(iter(self._unanswered)) - 1
        head: dict[str, Any] = {"v": 1, "id": frame.seq, "session": self._session, "seq": frame.seq}
        head["settled"] = settled
        body = b"".join(value for _, value in frame.stores)
        if len(frame.stores) > 1:
            head |= {"op": "store", "items": [[op, len(value)] for op, value in frame.stores]}
        else:
            head["op"] = frame.stores[0][0]
        if not frame.parts:
            self._socket.send(json.dumps(head).encode() + b"\n" + body)
            return
        size = len(body) // frame.parts + 1
        for part in range(frame.parts):
            head |= {"part": part, "parts": frame.parts, "bytes": len(body)}
            piece = body[part * size : (part + 1) * size]
            self._socket.send(json.dumps(head).encode() + b"\n" + piece)

    def _receive(self) -> None:
        wait = 20 if len(self._unanswered) >= self._temper.window or not self._unanswered else 0
        while self._socket.poll(wait):
            wait = 0
            head, _, _ = self._socket.recv().partition(b"\n")
            if not self._answered(json.loads(head)):
                return

    def _answered(self, header: dict[str, Any]) -> bool:
        """Take in an answer; whether the connection is still good."""
        self._heard = time.monotonic()
        frame = self._unanswered.get(header["id"])
        if frame is None or "part" in header:
            return True
        if not header["ok"]:
            if header["error"]["retryable"]:
                time.sleep(0.05)
                self._reconnect()
                return False
            self._log.say("refused", session=self._session, seq=frame.seq)
        else:
            if "results" in header:
                positions = [p if isinstance(p, int) else None for p in header["results"]]
            else:
                positions = list(range(header["position"], header["position"] + len(frame.stores)))
            self._log.say("stored", session=self._session, seq=frame.seq, positions=positions)
        del self._unanswered[frame.seq]
        return True

    def _try_again(self) -> None:
        """No answer: on a new connection, sometimes without a store whose caller went away."""
        if self._temper.gives_up and self._rng.randrange(GIVE_UP_EVERY) == 0:
            seq, _ = self._unanswered.popitem(last=False)
            self._log.say("gave_up", session=self._session, seq=seq)
        self._reconnect()

    def _reconnect(self) -> None:
        self._socket.close()
        self._connect()


def watch(endpoint: str, log: Log, base: Path | None) -> None:
    """Follow the store and open files, until standard input ends: what was shown must be whole, and stay."""
    after = 0
    rng = random.Random(after)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            with Observer(endpoint, answer_seconds=0.6) as observer:
                while not select.select([sys.stdin], [], [], 0)[0]:
                    asked = time.monotonic()
                    page, after = observer.page(after, waitMs=200, limit=500)
                    for record in page:
                        log.say("saw", position=record.position, digest=digest(record), asked=asked)
                    if base is not None:
                        look(base, log, rng)
        except TimeoutError:
            continue


def look(base: Path, log: Log, rng: random.Random) -> None:
    """Open some files of the tree: each must be whole at any moment, also while its daemon is killed.

    Only of a job that its client deletes may a file go.
    """
    jobs = list((base / "jobs").glob("*"))
    if not jobs:
        return
    files = [*rng.choice(jobs).glob("*.json"), *rng.choice(jobs).glob("checkpoints/*.json")]
    events = list(rng.choice(jobs).glob("runs/*/*.json"))
    for path in files + events[-20:] + rng.sample(events, min(20, len(events))):
        try:
            content = path.read_bytes()
        except OSError as error:
            may_go = isinstance(error, FileNotFoundError) and f"-{DELETING}-" in str(path.relative_to(base))
            if not may_go:
                log.say("torn", path=str(path), why=str(error))
            continue
        try:
            json.loads(content)
        except ValueError as error:
            log.say("torn", path=str(path), why=f"{error}: {content[:60]!r}")


def main() -> None:
    """Entry of the process."""
    endpoint, history, seed, kind, *base = sys.argv[1:]
    log = Log(Path(history))
    if kind == "watching":
        watch(endpoint, log, Path(base[0]) if base else None)
    else:
        Recorder(endpoint, log, Path(history).stem, int(seed), TEMPERS[kind]).run()


if __name__ == "__main__":
    main()
