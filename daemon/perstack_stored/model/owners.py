"""Which job and run the value of a record belongs to. No I/O."""

import msgspec

from . import deletions, values
from .kinds import Kind

NO_RUN = ""
Owner = tuple[str, str]
"""Job and run; the run is `NO_RUN` of a job, and of the deletion of one."""


class _Ids(msgspec.Struct, gc=False):
    """Fields of a value by which its job and run are known."""

    id: str = ""
    jobId: str = ""  # noqa: N815 - as in the values
    runId: str = ""  # noqa: N815


_ids = msgspec.json.Decoder(_Ids)


def owner_of(kind: int, payload: bytes | bytearray | memoryview) -> Owner:
    """Job and run of a value that was checked when it was stored.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE.
    """
    if kind == Kind.DELETION:
        deletion = deletions.decode(payload)
        return deletion.jobId, deletion.runId or NO_RUN
    try:
        ids = _ids.decode(payload)
    except (msgspec.DecodeError, RecursionError):  # legal JSON that msgspec refuses
        return values.owner_of(values.decode(kind, payload))
    return (ids.id, NO_RUN) if kind == Kind.JOB else (ids.jobId, ids.runId)
