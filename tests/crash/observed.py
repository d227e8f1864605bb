"""What anybody can see of a store: by the public protocol (pyzmq and json alone), and in the tree's files."""

import hashlib
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import zmq

_ANSWER_SECONDS = 60.0
_PAGE_RECORDS = 2000
_decoder = json.JSONDecoder()


class Record(NamedTuple):
    """A record as `readAll` shows it; `value` has the bytes as they came."""

    position: int
    time: int
    op: str
    value: bytes


def digest(record: Record) -> str:
    """A short name of what a record holds."""
    return hashlib.sha256(record.op.encode() + b"\n" + record.value).hexdigest()[:24]


class Observer:
    """Reads a store through one DEALER, one request at a time; retryable errors are ridden out."""

    def __init__(self, endpoint: str, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._endpoint = endpoint
        self._answer_seconds = answer_seconds
        self._context = zmq.Context()
        self._id = 0
        self._connect()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(self._endpoint)

    def ask(self, op: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """Header and whole body of an answer that is not a retryable error."""
        deadline = time.monotonic() + self._answer_seconds
        while True:
            header, body = self._once(op, arguments, deadline)
            if header["ok"] or not header["error"]["retryable"]:
                return header, body
            if time.monotonic() > deadline:
                raise TimeoutError(f"{op}: {header['error']}")
            time.sleep(0.02)

    def _once(self, op: str, arguments: object, deadline: float) -> tuple[dict[str, Any], bytes]:
        first, body = self._request(op, arguments, deadline)
        pieces, header = [body], first
        while header.get("ok") and "more" in header:
            header, body = self._request("readPart", header["more"], deadline)
            if not header["ok"]:
                return header, b""
            pieces.append(body)
        return first, b"".join(pieces)

    def _request(self, op: str, arguments: object, deadline: float) -> tuple[dict[str, Any], bytes]:
        self._id += 1
        head = json.dumps({"v": 1, "op": op, "id": self._id}).encode()
        self._socket.send(head + b"\n" + json.dumps(arguments).encode())
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not self._socket.poll(int(left * 1000)):
                self._socket.close()
                self._connect()
                raise TimeoutError(f"no answer to {op}")
            answer, _, body = self._socket.recv().partition(b"\n")
            header = json.loads(answer)
            if header["id"] == self._id:
                return header, body

    def value(self, op: str, **arguments: Any) -> Any:
        """The decoded answer to a read, or its error's code."""
        header, body = self.ask(op, **arguments)
        return json.loads(body) if header["ok"] else header["error"]["code"]

    def position(self) -> int:
        """The last position that is on disk."""
        header, _ = self.ask("ping")
        return int(header["position"])

    def stats(self) -> dict[str, Any]:
        """Counters and gauges of the daemon."""
        found: dict[str, Any] = self.value("stats")
        return found

    def await_tree(self, seconds: float) -> None:
        """Wait until the tree has come to the end of the journal."""
        deadline = time.monotonic() + seconds
        while (stats := self.stats())["tree"]["lagRecords"] != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the tree does not come to the end: {stats['tree']}, {stats['index']}")
            time.sleep(0.02)

    def read_all(self, after: int = 0) -> list[Record]:
        """Every record after a position."""
        records: list[Record] = []
        while True:
            page, next_after = self.page(after)
            records += page
            if next_after == after:
                return records
            after = next_after

    def page(self, after: int, **arguments: Any) -> tuple[list[Record], int]:
        """Some records after a position, and where to go on."""
        header, body = self.ask("readAll", after=after, **({"limit": _PAGE_RECORDS} | arguments))
        if not header["ok"]:
            raise ValueError(f"readAll from {after}: {header['error']}")
        return _records(body.decode()), int(header["next"])


def _records(text: str) -> list[Record]:
    """Records of an answer, without a change to the bytes of their values."""
    records = []
    at = 1  # after the bracket
    while text[at] == "{":
        fields: dict[str, Any] = {}
        while text[at] in "{,":
            name, at = _decoder.raw_decode(text, at + 1)
            value, end = _decoder.raw_decode(text, at + 1)
            fields[name] = text[at + 1 : end].encode() if name == "value" else value
            at = end
        records.append(Record(fields["position"], fields["time"], fields["op"], fields["value"]))
        at += 2  # the brace, and a comma or the last bracket
        if at >= len(text):
            break
    return records


def tree_of(base: Path) -> dict[str, bytes]:
    """Every file below `jobs/`: path, and content."""
    return {
        str(path.relative_to(base)): path.read_bytes()
        for path in (base / "jobs").rglob("*")
        if not path.is_dir()
    }
