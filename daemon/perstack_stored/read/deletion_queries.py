"""Queries about deletions: what was deleted, and how much a deletion would remove."""

from typing import Any

import msgspec

from perstack_stored.index.sizes import size_of
from perstack_stored.model import deletions
from perstack_stored.protocol.limits import DELETIONS_DEFAULT, DELETIONS_MAX
from perstack_stored.read.source import Answer, Source

_DELETIONS = "SELECT position, time, value, erased FROM deletion WHERE position > ? ORDER BY position LIMIT ?"


def list_deletions(source: Source, arguments: dict[str, Any]) -> Answer:
    """The deletions after a position, in order."""
    limit = min(arguments.get("limit", DELETIONS_DEFAULT), DELETIONS_MAX)
    rows = source.database.execute(_DELETIONS, (arguments.get("after", 0), limit + 1)).fetchall()
    items = []
    for position, time_ms, value, erased in rows[:limit]:
        found = deletions.decode(value)
        run = {} if found.runId is None else {"runId": found.runId}
        facts = {"why": found.why, "erased": bool(erased)}
        if found.is_redaction:
            facts["settingOnly"] = True
        items.append({"position": position, "time": time_ms, "jobId": found.jobId, **run, **facts})
    following = rows[limit - 1][0] if len(rows) > limit else None
    return Answer({"next": following}, iter([msgspec.json.encode(items)]))


def size(source: Source, arguments: dict[str, Any]) -> Answer:
    """Counts and bytes of a job or run, as a deletion would remove them."""
    with source.read_transaction():
        found = size_of(source.database, arguments["jobId"], arguments.get("runId"))
    body = {
        "jobs": found.jobs,
        "runs": found.runs,
        "runSettings": found.settings,
        "checkpoints": found.checkpoints,
        "events": found.events,
        "bytes": found.bytes,
    }
    return Answer({}, iter([msgspec.json.encode(body)]))
