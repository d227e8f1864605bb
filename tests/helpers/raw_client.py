"""A bare ZeroMQ socket that speaks wire.md, and values to send: nothing here knows client or daemon."""

import json
import secrets
import time
from types import TracebackType
from typing import Any, NamedTuple

import zmq

ANSWER_SECONDS = 60.0
BUSY_SECONDS = 60.0
MIB = 1 << 20


class Answer(NamedTuple):
    """Header and body of an answer."""

    header: dict[str, Any]
    body: bytes

    @property
    def position(self) -> int:
        """The position of a store that was carried out."""
        assert self.header["ok"], self.header
        return int(self.header["position"])

    @property
    def error(self) -> dict[str, Any]:
        """The error of a request that was refused."""
        assert self.header["ok"] is False, self.header
        error: dict[str, Any] = self.header["error"]
        return error

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(self.error["code"])

    @property
    def value(self) -> Any:
        """The body, decoded."""
        assert self.header["ok"], self.header
        return json.loads(self.body)


class Raw:
    """A DEALER, or with `kind` a REQ, connected to an endpoint; requests are numbered."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: int) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(kind)
        self.socket.linger = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(endpoint)
        self._ids = 0

    def __enter__(self) -> "Raw":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection and all that was not sent."""
        self._context.destroy(linger=0)

    def send(self, op: str, body: bytes | object = b"", **header: Any) -> int:
        """Send a request, and return its id; a body that is not bytes is made JSON."""
        self._ids += 1
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"v": 1, "op": op, "id": self._ids, **header}
        self.socket.send(json.dumps(head).encode() + b"\n" + payload)
        return int(head["id"])

    def receive(self, seconds: float = ANSWER_SECONDS) -> Answer:
        """The next answer."""
        assert self.socket.poll(int(seconds * 1000)), f"no answer within {seconds} s"
        head, _, body = self.socket.recv().partition(b"\n")
        return Answer(json.loads(head), body)

    def ask(self, op: str, body: bytes | object = b"", **header: Any) -> Answer:
        """Send a request, and wait for its answer."""
        id = self.send(op, body, **header)
        answer = self.receive()
        assert answer.header["id"] == id, answer.header
        return answer

    def read(self, op: str, body: object = None) -> Any:
        """The value of a read, asked again while the answer is BUSY, as while the index is built again."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            answer = self.ask(op, body or {})
            if answer.header["ok"] or answer.code != "BUSY":
                return answer.value
            assert time.monotonic() < deadline, answer.header
            time.sleep(0.01)

    def store(self, op: str, body: bytes | object, **header: Any) -> int:
        """Store a value; its position."""
        return self.ask(op, body, **header).position

    def frames(self, *frames: bytes) -> Answer:
        """Send a message as it is, and wait for an answer."""
        self.socket.send_multipart(frames)
        return self.receive()

    def whole(self, op: str, body: object = None) -> tuple[bytes, int]:
        """The result of a read, joined from its parts, and how many there were."""
        answer = self.ask(op, body or {})
        pieces = self._pieces(answer)
        return b"".join(pieces), len(pieces)

    def _pieces(self, answer: Answer) -> list[bytes]:
        pieces = [answer.body]
        while "more" in answer.header:
            answer = self.ask("readPart", answer.header["more"])
            assert answer.header["ok"], answer.header
            pieces.append(answer.body)
        return pieces

    def read_all(self) -> list[dict[str, Any]]:
        """Every record there is."""
        records: list[dict[str, Any]] = []
        after = 0
        while True:
            page, next_after = self.page(after, 500)
            records += page
            if next_after == after:
                return records
            after = next_after

    def page(self, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Records after a position, and where the next page begins: at `after` where there is none."""
        answer = self.ask("readAll", {"after": after, "limit": limit})
        pieces = self._pieces(answer)
        assert answer.header["ok"], answer.header
        return json.loads(b"".join(pieces)), int(answer.header["next"])


def session() -> str:
    """Name of a new session."""
    return secrets.token_hex(16)


def batch(values: list[tuple[str, bytes]]) -> tuple[list[list[object]], bytes]:
    """`items` and body of a batch."""
    return [[op, len(value)] for op, value in values], b"".join(value for _, value in values)


USAGE = {"inputTokens": 1, "outputTokens": 2, "reasoningTokens": 0, "totalTokens": 3, "cachedInputTokens": 0}


def event(id: str = "e1", **changes: Any) -> dict[str, Any]:
    """An event."""
    value = {
        "id": id,
        "expertKey": "me",
        "jobId": "j1",
        "runId": "r1",
        "type": "startRun",
        "timestamp": 1717171717200,
        "stepNumber": 0,
    }
    return {**value, **changes}


def job(id: str = "j1", **changes: Any) -> dict[str, Any]:
    """A job."""
    value = {
        "id": id,
        "status": "running",
        "coordinatorExpertKey": "me",
        "totalSteps": 0,
        "usage": USAGE,
        "startedAt": 1717171717200,
    }
    return {**value, **changes}


def checkpoint(id: str = "c1", **changes: Any) -> dict[str, Any]:
    """A checkpoint."""
    value = {
        "id": id,
        "jobId": "j1",
        "runId": "r1",
        "status": "proceeding",
        "stepNumber": 1,
        "messages": [],
        "expert": {"key": "me", "name": "me", "version": "1"},
        "usage": USAGE,
    }
    return {**value, **changes}


def setting(run: str = "r1", **changes: Any) -> dict[str, Any]:
    """A run setting."""
    value = {
        "jobId": "j1",
        "runId": run,
        "model": "m",
        "expertKey": "me",
        "perstackApiBaseUrl": "https://api.example",
        "providerConfig": {"providerName": "p", "apiKey": "k"},
        "input": {"text": "hello"},
        "experts": {},
        "env": {},
        "maxRetries": 1,
        "timeout": 60000,
        "startedAt": 1717171717200,
        "updatedAt": 1717171717200,
    }
    return {**value, **changes}


VALUES = {
    "storeJob": job,
    "storeCheckpoint": checkpoint,
    "storeEvent": event,
    "storeRunSetting": setting,
}


def without(value: dict[str, Any], *path: str) -> dict[str, Any]:
    """The value without one field, which may lie in an object within."""
    copied: dict[str, Any] = json.loads(json.dumps(value))
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copied
