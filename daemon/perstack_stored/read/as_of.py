"""Reads as of a position or time: the versions that counted then, of what no deletion has removed since."""

import sqlite3
from typing import Any

from perstack_stored.index.value_lookup import ValueAddress
from perstack_stored.model.kinds import Kind
from perstack_stored.read.listings import ListingOrder
from perstack_stored.read.source import ADDRESS, Source
from perstack_stored.read.time_queries import last_by

_NOW = {
    Kind.JOB: f"SELECT {ADDRESS}, position FROM job WHERE id = :job",  # noqa: S608 - constants, as below
    Kind.CHECKPOINT: f"SELECT {ADDRESS}, position FROM checkpoint WHERE job = :job AND id = :id",  # noqa: S608
}
_THEN = (
    f"SELECT {ADDRESS}, until FROM older WHERE job = :job AND kind = :kind AND id = :id"  # noqa: S608
    " AND position <= :as_of ORDER BY position DESC LIMIT 1"
)
_ROWS = f"{ADDRESS}, step, position"
_VERSIONS = (
    f"SELECT {_ROWS} FROM checkpoint WHERE job = :job AND position <= :as_of"  # noqa: S608
    f" UNION ALL SELECT {_ROWS} FROM older WHERE job = :job AND kind = {int(Kind.CHECKPOINT)}"
    " AND position <= :as_of AND until > :as_of"
)
CHECKPOINTS_AS_OF = ListingOrder(
    _ROWS,
    _ROWS,
    f"({_VERSIONS}) WHERE true ORDER BY step, position",
    ("(step, position) > (:a, :b)", "step, position"),
    cursor=2,
)
"""Checkpoints of a job as of a position, by step."""


def requested(source: Source, arguments: dict[str, Any]) -> tuple[int | None, dict[str, object]]:
    """The position that a read is as of, None for now, and the field of the answer's header that says so."""
    as_of = arguments.get("asOf")
    if as_of is None:
        return None, {}
    if isinstance(as_of, dict):
        as_of, _ = last_by(source, source.indexed(), as_of["timeMs"])
    return as_of, {"asOf": as_of}


def version_of(
    database: sqlite3.Connection, kind: Kind, job: str, id: str, as_of: int | None
) -> ValueAddress | None:
    """Where the Job or checkpoint stands that counted as of a position; None without one."""
    bound = {"job": job, "id": id, "kind": int(kind), "as_of": as_of}
    row = database.execute(_NOW[kind], bound).fetchone()
    if as_of is not None and (row is None or row[4] > as_of):
        row = database.execute(_THEN, bound).fetchone()
        if row is not None and row[4] <= as_of:
            row = None
    return None if row is None else ValueAddress(*row[:4])
