"""Requests that are nearly right, and bytes that are nothing: made from a seed, to be sent to a daemon."""

import json
import string
from random import Random
from typing import Any

from tests.helpers.raw_client import VALUES

STORES = tuple(VALUES)
READS = (
    "retrieveJob", "getAllJobs", "retrieveCheckpoint", "getCheckpointsByJobId", "getEventsByRun",
    "getEventContents", "getAllRuns", "readAll", "readPart", "hello", "ping", "stats",
    "getEvent", "listJobs", "listRuns",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 63, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64, 10**40, -(2**63), 0.5, -0.0, 1e300)
TEXTS = (
    "", ".", "..", "../../../etc/passwd", "/", "a/b", "a\\b", "a\0b", "\ud800", "é", "e\u0301", "con",
    "aux.txt", "~",
    "x" * 199, "y" * 201, "z" * 5000, "${HOME}", "'; DROP TABLE event; --", "%s%n", "\u202etxt",
    "__proto__", "0" * 32,
    "f" * 32,
)  # fmt: skip
SESSIONS = tuple(f"{n:032x}" for n in range(1, 9))


class Frames:
    """Messages, each a list of frames, the same for the same seed. Each must be answered once."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._id = 0
        self._seqs: dict[str, int] = {}

    def message(self) -> list[bytes]:
        """The next message for a DEALER."""
        make = self._random.choices(
            (
                self._right,
                self._wrong_header,
                self._wrong_body,
                self._noise,
                self._batch,
                self._part,
                self._framing,
            ),
            weights=(25, 25, 25, 10, 7, 5, 3),
        )[0]
        return make()

    # --- right, or nearly --------------------------------------------------------------------------

    def _right(self) -> list[bytes]:
        return [_frame(self._header(), self._body())]

    def _header(self) -> dict[str, Any]:
        random = self._random
        self._id += 1
        self._op = random.choice(STORES if random.random() < 0.6 else READS)
        header: dict[str, Any] = {"v": 1, "op": self._op, "id": self._id}
        if self._op in STORES and random.random() < 0.5:
            session = random.choice(SESSIONS)
            seq = self._seqs.get(session, 0) + random.choice((1, 1, 1, 1, 0, -3, 2))
            self._seqs[session] = max(seq, self._seqs.get(session, 0))
            header |= {"session": session, "seq": max(1, seq)}
            if random.random() < 0.7:
                header["settled"] = max(0, seq - 1)
            if random.random() < 0.2:
                position = random.choice((0, 10, 1000, 10_000, 2**53 - 1, 2**53))
                header["expect"] = {"jobId": f"j{random.randrange(3)}", "position": position}
        elif self._op in READS and random.random() < 0.3:
            header["timeoutMs"] = random.choice((0, 1, 1000))
            if random.random() < 0.3:
                header["atLeast"] = random.choice((0, 10, 10_000, 2**53 - 1, 2**53))
        return header

    def _body(self) -> bytes:
        return json.dumps(self._value(self._op)).encode()

    def _value(self, op: str) -> dict[str, Any]:
        random = self._random
        job, run, n = f"j{random.randrange(5)}", f"r{random.randrange(4)}", random.randrange(50)
        if op == "storeJob":
            return VALUES[op](job, totalSteps=n)
        if op == "storeRunSetting":
            return VALUES[op](run, jobId=job, updatedAt=n)
        if op == "storeCheckpoint":
            return VALUES[op](f"c{n}", jobId=job, runId=run, stepNumber=n)
        if op == "storeEvent":
            return VALUES[op](f"e{n}", jobId=job, runId=run, timestamp=n, stepNumber=n // 10)
        known: dict[str, dict[str, Any]] = {
            "retrieveCheckpoint": {"jobId": job, "checkpointId": f"c{n}"},
            "getEventsByRun": {"jobId": job, "runId": run},
            "getEventContents": {
                "jobId": job,
                "runId": run,
                "maxStep": n,
                "types": random.choice((None, [], ["startRun"])),
                "newestFirst": random.random() < 0.5,
                "omit": random.choice((None, ["id"], ["a.b", "type"])),
            },
            "getEvent": {"position": n},
            "listJobs": {"status": random.choice((None, "running")), "since": n},
            "readAll": {"after": n, "limit": 1 + n, "waitMs": random.choice((0, 0, 5))},
            "readPart": {"read": "k1", "part": n},
        }
        arguments = known.get(op, {"jobId": job})
        if random.random() < 0.3 and op.startswith(("get", "list")):
            arguments["limit"] = 1 + n
        return arguments if op not in {"hello", "ping", "stats"} else {}

    # --- wrong -------------------------------------------------------------------------------------

    def _wrong_header(self) -> list[bytes]:
        header = self._header()
        body = self._body()
        for _ in range(self._random.choice((1, 1, 2, 4))):
            name = self._random.choice(
                (
                    "v",
                    "op",
                    "id",
                    "session",
                    "seq",
                    "settled",
                    "items",
                    "atomic",
                    "expect",
                    "part",
                    "parts",
                    "bytes",
                    "timeoutMs",
                    "atLeast",
                    "zz",
                )
            )
            if self._random.random() < 0.2:
                header.pop(name, None)
            else:
                header[name] = self._anything()
        if header.get("atLeast"):
            header["timeoutMs"] = 1000  # or an answer may take a minute
        return [_frame(header, body)]

    def _wrong_body(self) -> list[bytes]:
        random = self._random
        header = self._header()
        value = self._value(self._op)
        if random.random() < 0.6 and value:
            for _ in range(random.choice((1, 1, 2))):
                name = random.choice([*value, "limit", "after", "runId", "usage"])
                if name == "waitMs":
                    continue  # or an answer may take a minute
                if random.random() < 0.3:
                    value.pop(name, None)
                else:
                    value[name] = self._anything()
            return [_frame(header, json.dumps(value).encode())]
        return [_frame(header, self._torn(json.dumps(value).encode()))]

    def _torn(self, data: bytes) -> bytes:
        random = self._random
        place = random.randrange(len(data) + 1)
        how = random.randrange(7)
        if how == 0:
            return data[:place]
        if how == 1:
            return data[:place] + random.randbytes(random.randrange(1, 6)) + data[place:]
        if how == 2:
            flipped = bytearray(data or b"\0")
            flipped[place % len(flipped)] ^= 1 << random.randrange(8)
            return bytes(flipped)
        if how == 3:
            return data + random.choice((b" ", b"\n\n", b"{}", b"\0", b",", data))
        if how == 4:
            return b'{"a":' * random.choice((10, 900, 2000, 100_000)) + data
        if how == 5:
            return random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\t\r")) + data
        return data.replace(b'"', random.choice((b"'", b"", b'\\"', b"\xff")), random.randrange(1, 4))

    def _noise(self) -> list[bytes]:
        random = self._random
        how = random.randrange(5)
        if how == 0:
            return [random.randbytes(random.randrange(0, 300))]
        if how == 1:
            return [random.randbytes(random.choice((65_535, 65_536, 65_537, 200_000)))]
        if how == 2:
            return ["".join(random.choices(string.printable, k=random.randrange(1, 200))).encode()]
        if how == 3:
            return [random.choice((b"", b"\n", b"{}", b"[]\n", b"null\n{}", b"{}\n{}", b'"x"\n', b"1"))]
        return [self._torn(_frame(self._header(), self._body()))]

    def _framing(self) -> list[bytes]:
        frames = [
            self._random.randbytes(self._random.randrange(0, 5)) for _ in range(self._random.randrange(2, 9))
        ]
        if self._random.random() < 0.3:
            frames = [b"", _frame(self._header(), self._body())]  # as a REQ sends it: that is right
        return frames

    def _batch(self) -> list[bytes]:
        random = self._random
        header = self._header()
        ops = [random.choice(STORES) for _ in range(random.choice((1, 2, 5, 1024, 1025)))]
        values = [json.dumps(self._value(op)).encode() for op in ops]
        items: list[Any] = [[op, len(value)] for op, value in zip(ops, values, strict=True)]
        if random.random() < 0.6:
            place = random.randrange(len(items))
            items[place] = random.choice(
                (
                    ["storeJob", -1],
                    ["storeJob", 2**40],
                    ["ping", 2],
                    [],
                    None,
                    ["storeEvent", 1.5],
                    self._anything(),
                )
            )
        header |= {"op": "store", "items": items}
        if random.random() < 0.5:
            header["atomic"] = random.choice((True, True, False, None, 1))
        return [_frame(header, b"".join(values))]

    def _part(self) -> list[bytes]:
        header = self._header()
        random = self._random
        header |= {
            "part": random.choice((0, 0, 0, 1, 2, 5)),
            "parts": random.choice((1, 2, 2, 3, 1000, 2**31)),
            "bytes": random.choice((10, 100, 1000, 1 << 20, 200 << 20, 300 << 20, 2**53)),
        }
        return [_frame(header, random.randbytes(random.randrange(0, 200)))]

    def _anything(self, depth: int = 0) -> Any:
        random = self._random
        how = random.randrange(7 if depth < 2 else 4)
        if how == 0:
            return random.choice(NUMBERS)
        if how == 1:
            return random.choice(TEXTS)
        if how == 2:
            return random.choice((None, True, False))
        if how == 3:
            return random.choice((float("nan"), float("inf"), -float("inf")))  # no JSON
        if how == 4:
            return [self._anything(depth + 1) for _ in range(random.randrange(4))]
        if how == 5:
            return {random.choice(TEXTS): self._anything(depth + 1) for _ in range(random.randrange(4))}
        return random.choice(STORES + READS + SESSIONS)


def _frame(header: dict[str, Any], body: bytes) -> bytes:
    return json.dumps(header).encode() + b"\n" + body
