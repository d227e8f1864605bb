"""What a page of a listing costs: what it holds, wherever it is; and a listing is of one moment."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.errors import IndexUnusableError
from perstack_stored.index import writer as index
from perstack_stored.index.connection import connect
from perstack_stored.index.schema import SCHEMA_VERSION
from perstack_stored.model.kinds import Kind
from perstack_stored.read import queries
from perstack_stored.read import source as source_module
from perstack_stored.read.listing_cache import ListingCache
from perstack_stored.read.listings import ListingOrder
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, checkpoint, event, job, set_query_limit, setting

RUN = {"jobId": "job-1", "runId": "run-1"}
JOB = {"jobId": "job-1"}
# All values alike where they can be: what orders them then is their names and positions.
KINDS: dict[str, tuple[Kind, Any, dict[str, Any]]] = {
    "getAllJobs": (Kind.JOB, lambda i: job(id=f"j{i:05}"), {}),
    "getAllRuns": (Kind.RUN_SETTING, lambda i: setting(runId=f"r{i:05}"), {}),
    "getCheckpointsByJobId": (Kind.CHECKPOINT, lambda i: checkpoint(id=f"c{i:05}"), JOB),
    "getEventsByRun": (Kind.EVENT, lambda i: event(id=f"e{i}", timestamp=i), RUN),
    "getEventContents": (Kind.EVENT, lambda i: event(id=f"e{i}", timestamp=i), RUN),
}
IN_STEPS = {
    "getAllJobs": (Kind.JOB, lambda i: job(id=f"j{i:05}", startedAt=i), {}),
    "getAllRuns": (Kind.RUN_SETTING, lambda i: setting(runId=f"r{i:05}", updatedAt=i), {}),
    "getCheckpointsByJobId": (Kind.CHECKPOINT, lambda i: checkpoint(id=f"c{i:05}", stepNumber=i), JOB),
    "getEventsByRun": (Kind.EVENT, lambda i: event(id=f"e{i}", timestamp=i, stepNumber=i), RUN),
}


SUMMARIES: dict[str, tuple[Kind, Any, dict[str, Any]]] = {
    "listJobs": (Kind.EVENT, lambda i: event(jobId=f"j{i:05}", timestamp=i // 7), {}),
    "listRuns": (Kind.CHECKPOINT, lambda i: checkpoint(id=f"c{i}", runId=f"r{i:05}"), JOB),
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "base")


def store(base: Base, kind: Kind, make: Any, count: int, start: int = 0) -> None:
    for first in range(start, start + count, 500):
        base.store(*((kind, make(i)) for i in range(first, min(first + 500, start + count))))


class Steps:
    """How many steps SQLite's machine takes."""

    def __init__(self, base: Base) -> None:
        self._database = base.database
        self.count = 0

    def _note(self) -> int:
        self.count += 1
        return 0

    def connect(self, path: str, *, read_only: bool) -> sqlite3.Connection:
        """Another connection, whose steps count as well."""
        database = connect(path, read_only=read_only)
        database.set_progress_handler(self._note, 10)
        return database

    def __enter__(self) -> "Steps":
        self._database.set_progress_handler(self._note, 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.set_progress_handler(None, 0)


def last_page(base: Base, op: str, arguments: dict[str, Any], limit: int) -> int:
    """What the last page of a listing costs, the one that the most rows lie before."""
    after: dict[str, Any] = {}
    while True:
        with Steps(base) as steps:
            _, fields = base.ask(op, limit=limit, **arguments, **after)
        if fields.get("next") is None:
            return steps.count
        after = {"after": json.loads(json.dumps(fields["next"]))}


@pytest.mark.parametrize("kinds", [KINDS, IN_STEPS], ids=["alike", "in steps"])
@pytest.mark.parametrize("op", [*KINDS, *SUMMARIES])
def test_a_page_costs_the_same_in_a_listing_of_any_length(
    base: Base, kinds: dict[str, tuple[Kind, Any, dict[str, Any]]], op: str
) -> None:
    """With five times as many rows, neither the first page nor the last one takes more steps of SQLite."""
    kind, make, arguments = (kinds if op in kinds else KINDS | SUMMARIES)[op]
    costs = []
    for start, count in ((0, 500), (500, 2000)):
        store(base, kind, make, count, start)
        with Steps(base) as first:
            base.ask(op, limit=50, **arguments)
        costs.append((first.count, last_page(base, op, arguments, 100)))
    (first_few, last_few), (first_many, last_many) = costs
    assert first_many <= 1.5 * first_few + 10
    assert last_many <= 1.5 * last_few + 10


@pytest.mark.parametrize("op", KINDS)
def test_a_whole_listing_costs_by_its_rows(base: Base, monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """Twice the rows, in twice the pages, take about twice the steps: none is gone through again."""
    set_query_limit(monkeypatch, "PLACES_ROWS", 50)
    set_query_limit(monkeypatch, "PAGE_ROWS", 50)
    kind, make, arguments = KINDS[op]
    costs = []
    for start in (0, 1000):
        store(base, kind, make, 1000, start)
        base.listings = ListingCache(0)
        with Steps(base) as steps:
            monkeypatch.setattr(source_module, "connect", steps.connect)
            answer, _ = base.ask(op, **arguments)
        assert len(answer) == start + 1000
        costs.append(steps.count)
    assert costs[1] <= 2.5 * costs[0]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    ("op", "filters"),
    [
        ("listJobs", {}),
        ("listJobs", {"status": "s"}),
        ("listJobs", {"expertKey": "e"}),
        ("listRuns", {}),
        ("listRuns", {"status": "s", "expertKey": "e"}),
        ("listRuns", {"jobId": "j"}),
        ("listJobs", {"contains": "a"}),
        ("listRuns", {"contains": "a", "status": "s"}),
    ],
)
def test_no_summaries_are_sorted(base: Base, op: str, filters: dict[str, Any], newest_first: bool) -> None:
    """Nor from a cursor and within a span of time."""
    statements: list[str] = []
    more = {"after": [5, 1], "since": 1, "until": 9, "newestFirst": newest_first}
    base.database.set_trace_callback(statements.append)
    base.ask(op, **filters)
    base.ask(op, **filters, **more)
    base.database.set_trace_callback(None)
    assert len(statements) >= 2
    for sql in statements:
        plan = [row[3] for row in base.database.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize(
    "order", [queries._JOBS, queries._CHECKPOINTS, queries._RUNS], ids=["jobs", "checkpoints", "runs"]
)
def test_nothing_is_sorted(base: Base, order: ListingOrder) -> None:
    """SQLite goes through an index; a sort would take all rows for each page."""
    bound = {"job": "j", "a": 0, "b": "", "c": "", "limit": 10}
    for sql in (order.first, order.following):
        plan = [row[3] for row in base.database.execute(f"EXPLAIN QUERY PLAN {sql}", bound)]
        assert not any("TEMP B-TREE" in step for step in plan), plan
        assert any("order" in step for step in plan), plan


def test_a_limit_is_ten_thousand_at_most(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for: the rest comes behind `next`."""
    set_query_limit(monkeypatch, "LIMIT_MAX", 7)
    for op, (kind, make, arguments) in KINDS.items():
        store(base, kind, make, 10)
        page, fields = base.ask(op, limit=10**9, **arguments)
        assert len(page) == 7
        assert fields["next"] is not None


def test_from_a_cursor_all_the_rest_comes_without_a_limit(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and once."""
    set_query_limit(monkeypatch, "PLACES_ROWS", 3)
    set_query_limit(monkeypatch, "PAGE_ROWS", 3)
    for op, (kind, make, arguments) in KINDS.items():
        store(base, kind, make, 20)
        whole, _ = base.ask(op, **arguments)
        page, fields = base.ask(op, limit=5, **arguments)
        rest, _ = base.ask(op, after=json.loads(json.dumps(fields["next"])), **arguments)
        assert page + rest == whole


@pytest.mark.parametrize("op", ["getAllJobs", "getAllRuns", "getCheckpointsByJobId"])
def test_a_listing_that_is_pulled_slowly_is_of_one_moment(
    base: Base, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    """What is stored, or stored again, while it is pulled is not in it."""
    set_query_limit(monkeypatch, "PLACES_ROWS", 4)
    kind, make, arguments = IN_STEPS[op]
    store(base, kind, make, 30)
    expected, _ = base.ask(op, **arguments)
    source = Source(base.database, base.reader, base.listings)
    answer = queries.OPERATIONS[op](source, arguments)
    assert answer.memory is not None
    pieces: list[bytes] = []
    rest: Iterator[Any] = iter(answer.pieces)
    while not pieces or len(pieces) < 6:
        piece = bytes(next(rest))
        pieces += [piece] if piece else []
    assert answer.memory() > 0
    store(base, kind, make, 60)
    pieces += map(bytes, rest)
    assert json.loads(b"".join(pieces)) == expected
    assert answer.memory() == 0
    assert base.ask(op, **arguments)[0] != expected


def test_an_index_of_an_older_form_is_built_again(base: Base) -> None:
    """Its version says so, at the start."""
    with contextlib.closing(connect(base.index_path, read_only=False)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(IndexUnusableError, match=f"version 2, not {SCHEMA_VERSION}"):
        index.IndexWriter(base.index_path, base.folder.reader(), base.journal.store)
