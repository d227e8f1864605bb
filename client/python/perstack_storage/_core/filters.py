"""What reads take besides ids and pages: as keyword arguments, and as arguments of the protocol. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

AsOf = int | datetime
"""A position, or a time; one without a zone is local time."""


class CheckpointFilters(TypedDict, total=False):
    """What `get_checkpoints_by_job_id` returns of each checkpoint.

    Attributes:
        omit: fields left out: a key, or keys with dots between, as `messages`.
        as_of: as it was at a position or time.
    """

    omit: Sequence[str]
    as_of: AsOf | None


class EventFilters(TypedDict, total=False):
    """Which events of a run `get_event_contents` returns, and what of each.

    Attributes:
        min_step: only events whose `stepNumber` is not below this.
        types: only events of these types.
        newest_first: the other way round; with `limit=20` the last 20.
        omit: fields left out of each event: a key, or keys with dots between, as `checkpoint.messages`.
        as_of: as it was at a position or time.
    """

    min_step: float
    types: Sequence[str]
    newest_first: bool
    omit: Sequence[str]
    as_of: AsOf | None


class JobFilters(TypedDict, total=False):
    """Which jobs `list_jobs` returns.

    Attributes:
        status: only those whose status this is.
        expert_key: only those of this expert.
        since, until: only those that began at or after the one, and before the other, in ms since 1970.
        newest_first: False for the other way round.
        contains: only those whose job, run or expert contains this text; upper and lower case of ASCII are
            one. A page may have fewer items then, or none: its `next` is None at the end.
        job_id: only this job; of runs only those of this job.
    """

    status: str
    expert_key: str
    since: float
    until: float
    newest_first: bool
    contains: str
    job_id: str


class RunFilters(JobFilters, total=False):
    """Which runs `list_runs` returns: the filters are those of jobs."""


class RecordFilters(TypedDict, total=False):
    """Which records `read_all` and `follow` return; all by default.

    Attributes:
        job_id: only what belongs to this job: itself, its settings, checkpoints and events.
        run_id: of this job, only what belongs to this run.
        types: of events only those of these types; without `ops` no other records.
        ops: only what these operations stored, as `storeEvent`.
        omit: fields left out of each value: a key, or keys with dots between, as `checkpoint.messages`. An
            older daemon sends them; `hello` names the feature `recordOmit`.
        last: in place of `after`: begin with the last N of these records; 0 with those stored from now on.
            The daemon looks back over 10,000 records or 8 MiB of its journal at most.
    """

    job_id: str | None
    run_id: str | None
    types: Sequence[str] | None
    ops: Sequence[str] | None
    omit: Sequence[str]
    last: int | None


class FollowOptions(RecordFilters, total=False):
    """How `follow` goes on, besides which records it returns.

    Attributes:
        idle_s: end when nothing new has come for so long; 0 ends where the store ends now.
        store: `hello()["store"]`: the history that `after` belongs to, where it was kept.
        epoch: of the record at `after`, where it was kept; the client knows those that it has seen.
        name: of a cursor that the daemon keeps: begin where it stands. One that is not there yet begins as
            `after` or `last` say.
        commit_every: with `name`: set the cursor by itself, at most once in this many seconds, to what the
            caller is done with: a record counts as done when the next one is asked for.
    """

    idle_s: float | None
    store: str | None
    epoch: str | None
    name: str | None
    commit_every: float | None


_NAMES = {
    "expert_key": "expertKey",
    "job_id": "jobId",
    "run_id": "runId",
    "min_step": "minStep",
    "types": "types",
    "newest_first": "newestFirst",
    "omit": "omit",
    "as_of": "asOf",
}


def arguments_of_filters(given: Mapping[str, Any], filters: type) -> dict[str, Any]:
    """Returns the arguments of the protocol for keyword arguments that `filters` describes.

    Raises:
        TypeError: there is no such keyword argument, or a string stands for a list of strings.
    """
    unknown = given.keys() - filters.__annotations__.keys()
    if unknown:
        raise TypeError(f"there is no argument {', '.join(sorted(unknown))}")
    return {_NAMES.get(name, name): _as_argument(name, value) for name, value in given.items()}


def as_of_argument(as_of: AsOf | None) -> Any:
    """Returns the argument `asOf` of the protocol.

    Raises:
        TypeError: it is neither a position nor a time.
    """
    if isinstance(as_of, datetime):
        return {"timeMs": as_of.timestamp() * 1000}
    if as_of is not None and type(as_of) is not int:
        raise TypeError(f"as_of must be a position or a datetime, not {as_of!r}")
    return as_of


def _as_argument(name: str, value: Any) -> Any:
    if name == "as_of":
        return as_of_argument(value)
    return _listed(value) if name in {"types", "omit", "ops"} else value


def _listed(names: Sequence[str] | None) -> list[str] | None:
    if isinstance(names, str):
        raise TypeError(f"a list of strings is needed, not the string {names!r}")
    return None if names is None else list(names)
