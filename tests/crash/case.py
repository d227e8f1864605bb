"""A history and a store for the judge: what a client said, and what is there."""

import json
from pathlib import Path
from typing import Any

from tests.crash.judge import Verdict, judge_records, read_history
from tests.crash.observed import Record, digest
from tests.helpers.raw_client import checkpoint, event, job, setting

Line = dict[str, Any]
VALUES = [
    ("storeJob", job("j1")),
    ("storeEvent", event("e1")),
    ("storeEvent", event("e2")),
    ("storeCheckpoint", checkpoint("c1")),
    ("storeRunSetting", setting("r1")),
    ("storeRunSetting", setting("r1", model="n")),
    ("storeJob", job("j1", totalSteps=3)),
    ("storeEvent", event("e3", stepNumber=2)),
]


def text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class Case:
    """A client that stored eight values one after the other, and the store that holds them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "client.jsonl"
        self.lines: list[Line] = []
        for n, (op, value) in enumerate(VALUES, 1):
            self.sent(n, op, value, t=n)
            self.stored(n, n, t=n + 0.5)
        self.records = [
            Record(n, 1000 + n, op, text(value).encode()) for n, (op, value) in enumerate(VALUES, 1)
        ]
        self.last = len(VALUES)

    def sent(self, seq: int, op: str, value: object, *, t: float, session: str | None = "s1") -> None:
        """A store goes out."""
        stores = [[op, text(value)]]
        self.lines.append({"do": "sent", "t": t, "session": session, "seq": seq, "stores": stores})

    def stored(self, seq: int, position: int, *, t: float, session: str | None = "s1") -> None:
        """It is acknowledged."""
        self.lines.append({"do": "stored", "t": t, "session": session, "seq": seq, "positions": [position]})

    def outcome(self, seq: int, **changes: Any) -> None:
        """Change what is said about the outcome of a store."""
        (line,) = [line for line in self.lines if line["seq"] == seq and line["do"] != "sent"]
        line.update(changes)

    def drop(self, seq: int) -> None:
        """It was never answered."""
        self.lines = [line for line in self.lines if line["seq"] != seq or line["do"] == "sent"]

    def put(self, at: int, **changes: Any) -> None:
        """Change the record at a position."""
        self.records[at - 1] = self.records[at - 1]._replace(**changes)

    def delete(self, **named: str) -> None:
        """A job or run is deleted, and the store shows its deletion only; readers were shown it before."""
        seen = digest(self.records[1])
        self.lines.append({"do": "saw", "t": 8.6, "seq": 0, "position": 2, "digest": seen, "asked": 8.1})
        op = "deleteRun" if "runId" in named else "deleteJob"
        self.sent(9, op, named, t=9)
        self.stored(9, 9, t=9.5)
        kept = [record for record in self.records if record.op == "storeJob" and op == "deleteRun"]
        self.records = [*kept, Record(9, 1009, op, text(named).encode())]
        self.last = 9

    def verdict(self) -> Verdict:
        """What the judge says."""
        self._path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return judge_records(read_history([self._path]), self.records, self.last)
