"""A daemon for tests of the client: a ROUTER in a thread that speaks wire.md and keeps everything in memory.

`script` holds the misbehaviour that a test wants: called with each request's header, it returns None for the
ordinary way, a list of answers to give instead, or [] for silence.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

import zmq

STORE_OPS = frozenset({"storeJob", "storeCheckpoint", "storeEvent", "storeRunSetting"})

Script = Callable[[dict[str, Any], bytes], list[bytes] | None]


def frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    return json.dumps({"v": 1} | header).encode() + (b"\n" + body if body else b"")


def failure(code: str, *, retryable: bool, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable} | more


class Store:
    """What outlives a restart of the fake: records and sessions."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []
        self.last: dict[str, int] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.lock = threading.Lock()  # two daemons may share it


class FakeDaemon:
    """Serves from `start` to `stop`; a second one on the same store is a restart."""

    def __init__(self, endpoint: str, store: Store | None = None, script: Script | None = None) -> None:
        self.endpoint = endpoint
        self.store = store or Store()
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.window = {"records": 1024, "bytes": 16_777_216}
        self.limits = {"frameBytes": 16_777_216, "batchItems": 1024}
        self.hello: dict[str, Any] = {}  # more of it
        self.answer_bytes = 4_194_304
        self.curve_secret: bytes | None = None  # with it, CURVE
        self._parts: dict[bytes, bytearray] = {}
        self._rest: dict[str, bytes] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._started = threading.Event()

    def start(self) -> "FakeDaemon":
        self._thread.start()
        assert self._started.wait(60)
        return self

    def stop(self) -> None:
        """Ends without another answer, as kill -9 would."""
        self._stopping.set()
        self._thread.join(60)

    def __enter__(self) -> "FakeDaemon":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 0
            router.rcvtimeo = 10
            if self.curve_secret is not None:
                router.curve_server, router.curve_secretkey = True, self.curve_secret
            router.bind(self.endpoint)
            self._started.set()
            while not self._stopping.is_set():
                try:
                    peer, message = router.recv_multipart()
                except zmq.Again:
                    continue
                for answer in self._answers(peer, message):
                    router.send_multipart([peer, answer])

    def _answers(self, peer: bytes, message: bytes) -> list[bytes]:
        head, _, body = message.partition(b"\n")
        header = json.loads(head)
        self.requests.append(header)
        scripted = self.script(header, body) if self.script else None
        if scripted is not None:
            return scripted
        op = header["op"]
        if op in STORE_OPS and "part" in header:
            return [self._part(peer, header, body)]
        if op == "store" or op in STORE_OPS:
            return [self._store(header, body)]
        return [self._read(header, body)]

    def _part(self, peer: bytes, header: dict[str, Any], body: bytes) -> bytes:
        if header["part"] == 0:
            self._parts[peer] = bytearray()
        self._parts[peer] += body
        if header["part"] + 1 < header["parts"]:
            return frame({"id": header["id"], "ok": True, "part": header["part"]})
        whole = bytes(self._parts.pop(peer))
        assert len(whole) == header["bytes"]
        return self._store(header, whole)

    def _store(self, header: dict[str, Any], body: bytes) -> bytes:
        items = header.get("items") or [[header["op"], len(body)]]
        results, start = [], 0
        with self.store.lock:
            for number, (op, size) in enumerate(items):
                value = body[start : start + size]
                results.append(self._store_one(op, value, header, header["seq"] + number))
                start += size
        assert start == len(body)
        if header["op"] != "store":
            result = results[0]
            if isinstance(result, dict):
                return frame({"id": header["id"], "ok": False, "error": result})
            return frame({"id": header["id"], "ok": True, "position": result})
        if all(
            result == results[0] + n for n, result in enumerate(results) if isinstance(results[0], int)
        ) and (isinstance(results[0], int)):
            return frame({"id": header["id"], "ok": True, "position": results[0], "count": len(results)})
        return frame({"id": header["id"], "ok": True, "results": results})

    def _store_one(self, op: str, body: bytes, header: dict[str, Any], seq: int) -> int | dict[str, Any]:
        session, store = header["session"], self.store
        last = store.last.get(session, 0)
        if seq > last + 1 and header.get("settled", 0) < seq - 1:
            return failure("SEQUENCE_GAP", retryable=True)
        if (session, seq) in store.positions:
            return store.positions[session, seq]
        if seq <= last and header.get("settled", 0) >= seq:
            return failure("SEQUENCE_OLD", retryable=False)
        store.last[session] = max(seq, last)
        if b'"bad"' in body:
            return failure("BAD_VALUE", retryable=False, message="this is bad", field="bad")
        store.records.append((op, body))
        store.positions[session, seq] = len(store.records)
        return len(store.records)

    def _read(self, header: dict[str, Any], body: bytes) -> bytes:
        op, arguments = header["op"], json.loads(body or b"{}")
        answer: dict[str, Any] = {"id": header["id"], "ok": True, "position": len(self.store.records)}
        values = [value for kind, value in self.store.records if kind == "storeEvent"]
        if op == "readPart":
            return self._piece(header["id"], arguments["read"], arguments["part"])
        if op == "hello":
            hello = {"server": "fake", "window": self.window, "limits": self.limits, **self.hello}
            return frame(answer, json.dumps(hello).encode())
        if op == "retrieveJob":
            jobs = [v for kind, v in self.store.records if kind == "storeJob"]
            return frame(answer, jobs[-1] if jobs else b"null")
        if op == "retrieveCheckpoint":
            message = f"checkpoint not found: {arguments['checkpointId']}"
            return frame(
                answer | {"ok": False, "error": failure("NOT_FOUND", retryable=False, message=message)}
            )
        if op in {"ping", "stats"}:
            return frame(answer, b"{}")
        return self._listing(answer, values, arguments)

    def _listing(self, answer: dict[str, Any], values: list[bytes], arguments: dict[str, Any]) -> bytes:
        start = arguments.get("after", 0)
        limit = arguments.get("limit", len(values))
        if start + limit < len(values):
            answer["next"] = start + limit
        whole = b"[" + b",".join(values[start : start + limit]) + b"]"
        if len(whole) <= self.answer_bytes:
            return frame(answer, whole)
        key = f"k{answer['id']}"
        self._rest[key] = whole
        return frame(answer | {"more": {"read": key, "part": 1}}, whole[: self.answer_bytes])

    def _piece(self, request_id: int, key: str, part: int) -> bytes:
        whole = self._rest.get(key)
        if whole is None:
            return frame({"id": request_id, "ok": False, "error": failure("READ_GONE", retryable=True)})
        start, end = part * self.answer_bytes, (part + 1) * self.answer_bytes
        more = {"more": {"read": key, "part": part + 1}} if end < len(whole) else {}
        return frame({"id": request_id, "ok": True} | more, whole[start:end])
