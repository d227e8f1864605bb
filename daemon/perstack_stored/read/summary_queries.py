"""Listings of the jobs and runs that any record names, by the time at which they began.

The index keeps a summary of each (`index/summaries.py`), so a page costs what it holds, wherever it is.
What a job shows of its runs is added up here, run by run.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from perstack_stored.index.summaries import TYPES_MAX, decode_types
from perstack_stored.read.source import NUMBER, Answer, Source, cursor_of

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
SEARCHED_MAX = 50_000
"""Jobs or runs that a page with `contains` looks at: some 20 ms of a read thread, where all are in memory."""
_RUNS_PER_STEP = 500
_ITEMS_PER_PIECE = 32
_COLUMNS = {"known_job": ("known_job.name", "expert"), "run": ("run.name", "job", "expert")}
"""Where `contains` looks."""
_Row = tuple[Any, ...]
_encode = msgspec.json.Encoder().encode

_JOBS = (
    "SELECT begun, known_job.id, name, status, expert, usage, stored, position"
    " FROM known_job{hint} LEFT JOIN job ON job.id = name"
)
_RUNS = (
    "SELECT begun, run.id, job, name, status, expert, usage, parent, first_position, checkpoints,"
    " last_position, last_at, events, types, ended, EXISTS (SELECT 1 FROM setting WHERE setting.run = run.id)"
    " FROM run{hint} JOIN run_count ON run_count.run = run.id"
)
_RUNS_OF_JOB = (
    _RUNS.format(hint=" INDEXED BY run_of_job")
    + " WHERE job = ? AND begun IS NOT NULL AND (begun, run.id) > (?, ?) ORDER BY begun, run.id LIMIT ?"
)


def list_jobs(source: Source, arguments: dict[str, Any]) -> Answer:
    """Summaries of jobs."""
    rows, following = _page(source, _JOBS, arguments)
    return Answer({"next": following}, _array(_jobs(source, rows)))


def list_runs(source: Source, arguments: dict[str, Any]) -> Answer:
    """Summaries of runs."""
    rows, following = _page(source, _RUNS, arguments)
    return Answer({"next": following}, _array(map(_run, rows)))


def _page(source: Source, select: str, arguments: dict[str, Any]) -> tuple[list[_Row], list[int] | None]:
    """The rows of a page, and the cursor to go on from."""
    table = "known_job" if select is _JOBS else "run"
    after = cursor_of(arguments, NUMBER, int)
    limit = min(arguments.get("limit", LIMIT_DEFAULT), LIMIT_MAX)
    newest_first = arguments.get("newestFirst", True)
    index: str | None = "begun"
    conditions, bound = ["begun IS NOT NULL"], {"limit": limit + 1}
    for name, column, of_index in (
        ("status", "status", "status"),
        ("expertKey", "expert", "expert"),
        ("jobId", "job", "of_job") if table == "run" else ("jobId", "name", None),
    ):
        if name in arguments:
            conditions.append(f"{column} = :{column}")
            bound[column] = arguments[name]
            index = of_index
    for name, comparison in (("since", ">="), ("until", "<")):
        if name in arguments:
            conditions.append(f"begun {comparison} :{name}")
            bound[name] = arguments[name]
    if after is not None:
        conditions.append(f"(begun, {table}.id) {'<' if newest_first else '>'} (:begun, :id)")
        bound["begun"], bound["id"] = after
    hint = "" if index is None else f" INDEXED BY {table}_{index}"  # one job is found by its name
    direction = "DESC" if newest_first else "ASC"
    order = f"ORDER BY begun {direction}, {table}.id {direction} LIMIT :limit"
    last = None
    if "contains" in arguments:
        last = source.database.execute(
            f"SELECT begun, id FROM {table}{hint} WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants
            f" {order} OFFSET :before",
            {**bound, "limit": 1, "before": SEARCHED_MAX - 1},
        ).fetchone()
        text = arguments["contains"]
        # For LIKE, a NUL is the end of a pattern.
        has = "instr(lower({}), lower(:text))" if "\0" in text else "{} LIKE :text ESCAPE '!'"
        conditions.append(f"({' OR '.join(map(has.format, _COLUMNS[table]))})")
        bound["text"] = text if "\0" in text else _pattern(text)
    if last is not None:
        conditions.append(f"(begun, {table}.id) {'>=' if newest_first else '<='} (:last_begun, :last_id)")
        bound["last_begun"], bound["last_id"] = last
    rows = source.database.execute(
        f"{select.format(hint=hint)} WHERE {' AND '.join(conditions)} {order}", bound
    ).fetchall()
    if len(rows) > limit:
        return rows[:limit], list(rows[limit - 1][:2])
    return rows, None if last is None else list(last)


def _pattern(text: str) -> str:
    """A pattern of LIKE, which takes upper and lower case of ASCII as one, for what contains a text."""
    for special in "!%_":
        text = text.replace(special, f"!{special}")
    return f"%{text}%"


def _array(items: Iterator[dict[str, object] | None]) -> Iterator[bytes]:
    """Pieces of a JSON array; None is a step."""
    texts: list[bytes] = []
    before = b"["
    for item in items:
        if item is not None:
            texts.append(_encode(item))
        if texts and (item is None or len(texts) == _ITEMS_PER_PIECE):
            yield before + b",".join(texts)
            texts, before = [], b","
        elif item is None:
            yield b""
    if texts:
        yield before + b",".join(texts)
        before = b","
    yield b"]" if before == b"," else b"[]"


def _run(row: _Row) -> dict[str, object]:
    begun, _, job, name, status, expert, usage, parent, first, checkpoints, last, last_at, *counts = row
    events, types, ended, has_setting = counts
    return {
        "jobId": job,
        "runId": name,
        "startedAt": begun,
        "lastEventAt": last_at,
        "firstPosition": first,
        "lastPosition": last,
        "expertKey": expert or None,
        "status": status,
        "end": ended,
        "usage": _as_json(usage),
        "parent": _as_json(parent),
        "records": {"runSettings": has_setting, "checkpoints": checkpoints, "events": events},
        "eventTypes": decode_types(types),
    }


def _jobs(source: Source, rows: list[_Row]) -> Iterator[dict[str, object] | None]:
    for begun, _, name, status, expert, usage, stored, position in rows:
        total = _Total(position or 0)
        after: list[object] = [-1, -1]
        while True:
            runs = source.database.execute(
                _RUNS_OF_JOB,
                (name, *after, _RUNS_PER_STEP),
            ).fetchall()
            for run in runs:
                total.add(run)
            if len(runs) < _RUNS_PER_STEP:
                break
            after = list(runs[-1][:2])
            yield None
        yield {
            "jobId": name,
            "startedAt": begun,
            "lastEventAt": total.last_at,
            "lastPosition": total.last_position,
            "expertKey": expert or None,
            "status": status,
            "end": total.ended,
            "usage": _as_json(usage),
            "runs": total.runs,
            "records": {
                "jobs": stored,
                "runSettings": total.settings,
                "checkpoints": total.checkpoints,
                "events": total.events,
            },
            "eventTypes": total.types,
        }


class _Total:
    """What the runs of a job add up to."""

    def __init__(self, position: int) -> None:
        self.last_position = position
        self.last_at: int | None = None
        self.runs = self.settings = self.checkpoints = self.events = 0
        self.types: dict[str, int] = {}
        self.ended: str | None = None
        self._newest = 0

    def add(self, row: _Row) -> None:
        """Add a run."""
        _, _, _, _, _, _, _, parent, first, checkpoints, last, last_at, *counts = row
        events, types, ended, has_setting = counts
        self.runs += 1
        self.settings += has_setting
        self.checkpoints += checkpoints
        self.events += events
        self.last_position = max(self.last_position, last)
        if last_at is not None:
            self.last_at = last_at if self.last_at is None else max(self.last_at, last_at)
        for type, count in decode_types(types).items():
            if type in self.types or len(self.types) < TYPES_MAX:
                self.types[type] = self.types.get(type, 0) + count
        if parent is None and first > self._newest:
            self._newest, self.ended = first, ended


def _as_json(text: str | None) -> msgspec.Raw | None:
    """JSON of the index as it is."""
    return None if text is None else msgspec.Raw(text.encode())
