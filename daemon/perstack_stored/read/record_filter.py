"""Which records a read by position wants: by job, run, kind and type of event. No I/O."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from perstack_stored.model import deletions, values
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol import frames

from .record_form import Form, form_of

NO_RUN = ""
_EVENTS_ONLY = frozenset({int(Kind.EVENT)})


class Wanted(NamedTuple):
    """Filter of records; None stands for all.

    Attributes:
        job: only those of this job.
        run: only those of this run of it.
        kinds: only records of these kinds.
        deletion: of deletions only those by this operation.
        types: of events only those of these types.
        form: in which these are sent.
    """

    job: str | None = None
    run: str | None = None
    kinds: frozenset[int] | None = None
    deletion: str | None = None
    types: frozenset[str] | None = None
    form: Form = Form()

    @property
    def is_all(self) -> bool:
        """Whether every record is wanted."""
        return self.job is None and self.kinds is None and self.types is None


class Facts(NamedTuple):
    """Job and run that a record belongs to, and the type of an event; "" where it has none."""

    job: str
    run: str
    type: str = ""


class _Fields(msgspec.Struct, gc=False):
    """Fields of a value from which its facts follow."""

    id: str = ""
    jobId: str = ""  # noqa: N815 - as in the values
    runId: str = ""  # noqa: N815
    type: Any = ""  # only that of an event is text for certain


_fields = msgspec.json.Decoder(_Fields)


def wanted_of(arguments: Mapping[str, Any]) -> Wanted:
    """The filter that checked arguments of `readAll` describe. `types` alone means events only."""
    ops, types = arguments.get("ops"), arguments.get("types")
    kinds = None if ops is None else frozenset(int(frames.STORE_KINDS[op]) for op in ops)
    if kinds is None and types is not None:
        kinds = _EVENTS_ONLY
    removing = deletions.OPERATIONS.intersection(ops or ())
    return Wanted(
        arguments.get("jobId"),
        arguments.get("runId"),
        kinds,
        next(iter(removing)) if len(removing) == 1 else None,
        None if types is None else frozenset(types),
        form_of(arguments),
    )


def facts_of(kind: int, payload: memoryview) -> Facts:
    """What a filter looks at in a value."""
    if kind == Kind.DELETION:
        deletion = deletions.decode(payload)
        return Facts(deletion.jobId, deletion.runId or NO_RUN)
    try:
        found = _fields.decode(payload)
    except (msgspec.DecodeError, RecursionError):  # legal JSON that msgspec refuses
        value = values.decode(kind, payload)
        if isinstance(value, values.Job):
            return Facts(value.id, NO_RUN)
        return Facts(value.jobId, value.runId, value.type if isinstance(value, values.Event) else "")
    if kind == Kind.JOB:
        return Facts(found.id, NO_RUN)
    return Facts(found.jobId, found.runId, found.type if kind == Kind.EVENT else "")
