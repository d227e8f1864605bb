"""The judge of every campaign: lost, doubled, reordered, torn or invented?

It takes the recorded history of what clients sent and were answered, and the store afterwards. It knows
proto/wire.md and proto/tree.md, and imports nothing of the daemon nor of our clients. A history is files of
JSON lines, one file a client:

    {"do": "sent", "t": s, "session": hex, "seq": n, "stores": [[op, text], …]}   before it first goes out
    {"do": "stored", "t": s, "session": hex, "seq": n, "positions": [p, …]}       null for a refused one
    {"do": "refused", "t": s, "session": hex, "seq": n}                           for good
    {"do": "gave_up", "t": s, "session": hex, "seq": n}                           nobody waits any more
    {"do": "saw", "t": s, "position": p, "digest": hex, "asked": s}               shown to a reader
    {"do": "torn", "t": s, "path": name, "why": text}                             a file that was not whole

`t` is seconds of one clock of the machine. A batch has the `seq` of its first store. Without a session
`session` is null, `seq` is the client's own count, and a store may stand more than once.
"""

import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.deleted import OPERATIONS, Deleted
from tests.crash.observed import Observer, Record, digest, tree_of
from tests.crash.projection import Projection

KINDS = ("lost", "doubled", "reordered", "torn", "invented")
_SHOWN_MAX = 5


@dataclass
class Store:
    """One store of one client: what was sent, and what is known of its outcome."""

    client: str
    session: str | None
    seq: int
    op: str
    value: bytes
    sent_at: float
    state: str = "pending"  # stored, refused or gave_up
    answered_at: float = 0.0
    position: int | None = None  # as it was answered
    found: list[int] = field(default_factory=list)  # where it stands

    def __str__(self) -> str:
        return f"{self.op} {self.seq} of session {self.session} ({self.client})"


@dataclass
class History:
    """Everything that the clients recorded."""

    stores: list[Store] = field(default_factory=list)
    saw: list[tuple[int, str, float]] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What is wrong, by kind, each finding a sentence; and how much was looked at."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    acknowledged: int = 0
    records: int = 0
    files: int = 0
    erased: int = 0

    @property
    def kinds(self) -> set[str]:
        """The kinds of which something was found."""
        return {kind for kind in KINDS if getattr(self, kind)}

    def counts(self) -> dict[str, int]:
        """Figures for a table."""
        figures = {"acknowledged": self.acknowledged, "records": self.records, "files": self.files}
        figures["erased"] = self.erased
        return figures | {kind: len(getattr(self, kind)) for kind in KINDS}

    def __str__(self) -> str:
        lines = [", ".join(f"{name} {number}" for name, number in self.counts().items())]
        for kind in KINDS:
            findings = getattr(self, kind)
            lines += [f"{kind}: {finding}" for finding in findings[:_SHOWN_MAX]]
            if len(findings) > _SHOWN_MAX:
                lines.append(f"{kind}: and {len(findings) - _SHOWN_MAX} more")
        return "\n".join(lines)


def judge(histories: Iterable[Path], endpoint: str, base: Path, *, patience_s: float = 120.0) -> Verdict:
    """Judge a base that a daemon serves and to which nobody stores any more."""
    history = read_history(histories)
    with Observer(endpoint) as observer:
        observer.await_tree(patience_s)
        records = observer.read_all()
        verdict = judge_records(history, records, observer.position())
        projection = Projection(records)
        verdict.torn += [f"the answer to {what}" for what in projection.wrong_answers(observer)]
    judge_tree(tree_of(base), projection.files(), verdict)
    return verdict


def read_history(paths: Iterable[Path]) -> History:
    """Read what was recorded. A last line that a killed client left half-written is no line."""
    history = History()
    by_number: dict[tuple[str, str | None, int], list[Store]] = {}
    for path in sorted(paths):
        for line in path.read_bytes().split(b"\n")[:-1]:
            _take(json.loads(line), path.stem, history, by_number)
    return history


def _take(
    line: dict[str, Any],
    client: str,
    history: History,
    by_number: dict[tuple[str, str | None, int], list[Store]],
) -> None:
    match line["do"]:
        case "sent":
            session, first = line["session"], line["seq"]
            stores = [
                Store(client, session, first + i, op, text.encode(), line["t"])
                for i, (op, text) in enumerate(line["stores"])
            ]
            by_number[client, session, first] = stores
            history.stores += stores
        case "stored":
            stores = by_number[client, line["session"], line["seq"]]
            for store, position in zip(stores, line["positions"], strict=True):
                store.state = "refused" if position is None else "stored"
                store.position, store.answered_at = position, line["t"]
        case "refused" | "gave_up" as state:
            for store in by_number[client, line["session"], line["seq"]]:
                store.state, store.answered_at = state, line["t"]
        case "saw":
            history.saw.append((line["position"], line["digest"], line.get("asked", 0.0)))
        case "torn":
            history.torn.append(f"{line['path']}: {line['why']}")
        case other:
            raise ValueError(f"a history does not say {other!r}")


def judge_records(history: History, records: list[Record], last: int) -> Verdict:
    """Compare what was sent and answered with what the store holds; `last` is its last position."""
    verdict = Verdict(records=len(records), torn=[f"seen in the tree: {what}" for what in history.torn])
    by_position = {record.position: record for record in records}
    by_content: dict[tuple[str, bytes], list[Store]] = defaultdict(list)
    for store in history.stores:
        by_content[store.op, store.value].append(store)
    _find_positions(records, last, verdict)
    for record in records:
        _attribute(record, by_content, history.stores, verdict)
    holes = [position for position in range(1, last + 1) if position not in by_position]
    deleted = Deleted(records)
    over = {
        id(store): deleted.last_over(store.op, store.value) for store in history.stores if not store.found
    }
    _explain_holes(holes, by_content, over, verdict)
    for store in history.stores:
        if store.state == "stored":
            verdict.acknowledged += 1
            if store.position not in store.found and (store.position or 0) >= over.get(id(store), 0):
                verdict.lost.append(f"{store} was acknowledged at {store.position}, and is not there")
    for record in records:
        if record.position < (last_over := deleted.last_over(record.op, record.value)):
            verdict.invented.append(f"the {record.op} at {record.position} was deleted at {last_over}")
    _find_seen_and_gone(history, by_position, over, verdict)
    _find_disorder(history.stores, verdict)
    return verdict


def _find_positions(records: list[Record], last: int, verdict: Verdict) -> None:
    for before, after in itertools.pairwise(records):
        if after.position <= before.position or after.time < before.time:
            verdict.reordered.append(f"position {after.position} comes behind {before.position}")
    if records and records[-1].position > last:
        verdict.invented.append(f"position {records[-1].position} lies behind the end, {last}")


def _attribute(
    record: Record, by_content: dict[tuple[str, bytes], list[Store]], stores: list[Store], verdict: Verdict
) -> None:
    """Find out which store a record is."""
    candidates = by_content.get((record.op, record.value), [])
    answered = [store for store in candidates if store.position == record.position]
    free = [store for store in candidates if store.state in {"pending", "gave_up"} and not store.found]
    again = [store for store in candidates if store.session is None and store.state != "refused"]
    if chosen := answered or free[:1] or again[:1]:
        for store in chosen:
            store.found.append(record.position)
    elif any(store.state == "refused" for store in candidates):
        verdict.invented.append(f"{candidates[0]} was refused, and stands at {record.position}")
    elif candidates:
        verdict.doubled.append(f"{candidates[0]} stands at {record.position} as well")
    elif _resembles(record, stores):
        verdict.torn.append(
            f"the {record.op} at {record.position} is not what was sent: {record.value[:80]!r}"
        )
    else:
        verdict.invented.append(f"nobody sent the {record.op} at {record.position}: {record.value[:80]!r}")


def _resembles(record: Record, stores: list[Store]) -> bool:
    """Whether a record that nobody sent holds pieces of something that somebody did."""
    head, tail = record.value[:40], record.value[-40:]
    return any(
        store.value != record.value and (store.value.startswith(head) or store.value.endswith(tail))
        for store in stores
    )


def _explain_holes(
    holes: list[int],
    by_content: dict[tuple[str, bytes], list[Store]],
    over: dict[int, int],
    verdict: Verdict,
) -> None:
    """A position that `readAll` leaves out was deleted, or holds an event that repeats an earlier one.

    Somebody must have sent it. What was acknowledged there and is gone is lost, and named elsewhere.
    """
    acknowledged = {store.position for stores in by_content.values() for store in stores}
    repeats = [
        store
        for (op, _), stores in by_content.items()
        if op == "storeEvent" and any(store.found for store in stores)
        for store in stores
        if store.state != "refused"
    ]
    answered = {store.position: store for store in repeats if not store.found}
    unknown = [store for store in repeats if not store.found and store.state in {"pending", "gave_up"}]
    unknown += [
        store
        for stores in by_content.values()
        for store in stores
        if store.state in {"pending", "gave_up"} and over.get(id(store))
    ]
    loose = any(store.session is None for store in repeats)
    for hole in holes:
        if hole in answered:
            answered[hole].found.append(hole)
        elif hole in acknowledged:
            continue
        elif unknown:
            unknown.pop().found.append(hole)
        elif not loose:
            verdict.doubled.append(f"position {hole} repeats an event that nobody sent twice")


def _find_seen_and_gone(
    history: History, by_position: dict[int, Record], over: dict[int, int], verdict: Verdict
) -> None:
    """What was shown must stand, but for what was deleted later; and that isn't shown to who asks later."""
    stores = {
        (digest(Record(0, 0, store.op, store.value))): store
        for store in history.stores
        if over.get(id(store))
    }
    answered = {
        store.found[0]: store.answered_at
        for store in history.stores
        if store.op in OPERATIONS and store.found
    }
    for position, seen, asked in history.saw:
        record = by_position.get(position)
        if record is not None and digest(record) == seen:
            continue
        store = stores.get(seen)
        last_over = over[id(store)] if store is not None else 0
        if position >= last_over:
            verdict.lost.append(f"a reader was shown another record at {position}")
        elif 0 < answered.get(last_over, 0.0) < asked:
            verdict.invented.append(f"{store}, at {position}, was shown after it was deleted at {last_over}")


def _find_disorder(stores: list[Store], verdict: Verdict) -> None:
    sessions: dict[str, list[Store]] = defaultdict(list)
    for store in stores:
        if store.session is not None:
            sessions[store.session].append(store)
    for of_session in sessions.values():
        of_session.sort(key=lambda store: store.seq)
        highest = 0
        skipped: Store | None = None
        for store in of_session:
            if not store.found:
                skipped = store if store.state == "pending" else skipped
                continue
            if store.found[0] < highest:
                verdict.reordered.append(f"{store} stands at {store.found[0]}, behind a later one")
            if skipped is not None:
                verdict.reordered.append(f"{store} was stored, although {skipped} was not")
            highest = max(highest, store.found[0])
    # Between clients: what was acknowledged before another store was sent has the lower position.
    earliest_answer = float("inf")
    answered = [store for store in stores if store.position is not None and store.found]
    for store in sorted(answered, key=lambda store: store.position or 0, reverse=True):
        if earliest_answer < store.sent_at:
            verdict.reordered.append(f"{store} was sent after a record behind it was acknowledged")
        earliest_answer = min(earliest_answer, store.answered_at)


def judge_tree(found: dict[str, bytes], expected: dict[str, bytes], verdict: Verdict) -> None:
    """Compare the files of a tree with those that the records make."""
    verdict.files = len(found)
    verdict.lost += [f"file {name} is missing" for name in sorted(expected.keys() - found.keys())]
    verdict.invented += [f"file {name} is nobody's" for name in sorted(found.keys() - expected.keys())]
    verdict.torn += [
        f"file {name} holds {found[name][:60]!r}, not {content[:60]!r}"
        for name, content in sorted(expected.items())
        if name in found and found[name] != content
    ]


def main() -> None:
    """`python -m tests.crash.judge BASE ENDPOINT HISTORY…`: exit status 1 if anything is wrong."""
    base, endpoint, *histories = sys.argv[1:]
    verdict = judge([Path(name) for name in histories], endpoint, Path(base))
    sys.stdout.write(f"{verdict}\n")
    sys.exit(1 if verdict.kinds else 0)


if __name__ == "__main__":
    main()
