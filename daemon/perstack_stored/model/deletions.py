"""Deletions: records that remove the earlier records of a job or of one of its runs. No I/O.

A deletion removes what has a lower position. What is stored under the same id later is new. A redaction
removes the settings of a run, and holds the one that counts instead.
"""

import msgspec

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

from . import value_check, values
from .kinds import Kind
from .names import check_id

DELETION_BYTES_MAX = 4096
"""Bytes of a deletion as it is sent."""
REDACTION_BYTES_MAX = 256 << 10
"""Bytes of a redaction, which holds a run setting."""
WHY_CHARS_MAX = 200
ASKED = "asked"
OF_JOB, OF_RUN, REDACTION = "deleteJob", "deleteRun", "redactRunSetting"
OPERATIONS = frozenset({OF_JOB, OF_RUN, REDACTION})


class Deletion(msgspec.Struct, omit_defaults=True):
    """A deletion as it is stored: of a job, or with `runId` of a run. `why` says what it came from.

    With `setting` it is a redaction: only the settings of the run go, and this one counts.
    """

    jobId: str  # noqa: N815 - as in the values
    runId: str | None = None  # noqa: N815
    why: str = ASKED
    setting: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def op(self) -> str:
        """The operation that stored it."""
        if self.is_redaction:
            return REDACTION
        return OF_JOB if self.runId is None else OF_RUN

    @property
    def is_redaction(self) -> bool:
        """Whether only the settings of the run go."""
        return self.setting is not msgspec.UNSET

    @property
    def value(self) -> bytes:
        """The run setting of a redaction, as it was sent."""
        assert self.setting is not msgspec.UNSET
        return bytes(self.setting)


_decoder = msgspec.json.Decoder(Deletion)
encode = msgspec.json.Encoder().encode


def decode(payload: bytes | bytearray | memoryview) -> Deletion:
    """Decode a deletion that was checked when it was stored."""
    return _decoder.decode(payload)


def check(payload: bytes | bytearray) -> Deletion:
    """Check a deletion before it is stored.

    Raises:
        Refusal: BAD_JSON or BAD_VALUE, naming the field.
    """
    try:
        bytes(payload).decode()
        deletion = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refusal(ErrorCode.BAD_JSON, "the deletion is not JSON in UTF-8") from None
    check_id(deletion.jobId, "jobId")
    if deletion.runId is not None:
        check_id(deletion.runId, "runId")
    if len(deletion.why) > WHY_CHARS_MAX:
        raise Refusal(ErrorCode.BAD_VALUE, f"why has more than {WHY_CHARS_MAX} characters", "why")
    return deletion


def check_operation(op: str, deletion: Deletion) -> None:
    """Check that a deletion is what its operation says: a program that forgets a run must not lose a job.

    Raises:
        Refusal: BAD_VALUE, or of a redaction BAD_JSON.
    """
    if op == OF_JOB and deletion.runId is not None:
        raise Refusal(ErrorCode.BAD_VALUE, "deleteJob has no runId: deleteRun deletes a run", "runId")
    if op != OF_JOB and deletion.runId is None:
        raise Refusal(ErrorCode.BAD_VALUE, "runId is missing", "runId")
    if op != REDACTION:
        if deletion.is_redaction:
            raise Refusal(ErrorCode.BAD_VALUE, f"{op} has no setting", "setting")
        return
    if not deletion.is_redaction:
        raise Refusal(ErrorCode.BAD_VALUE, "setting is missing", "setting")
    value = value_check.check(Kind.RUN_SETTING, deletion.value)
    if values.owner_of(value) != (deletion.jobId, deletion.runId):
        raise Refusal(ErrorCode.BAD_VALUE, "the setting is of another job or run", "setting")


def place_of_setting(payload: bytes) -> tuple[int, int]:
    """Offset and length of the run setting in a redaction."""
    value = decode(payload).value
    return payload.index(value), len(value)


def _invalid(reason: str) -> Refusal:
    for field in ("jobId", "runId", "why", "setting"):
        if f"`{field}`" in reason:
            return Refusal(ErrorCode.BAD_VALUE, f"{field} is missing", field)
        if f"`$.{field}`" in reason:
            return Refusal(ErrorCode.BAD_VALUE, f"{field} must be a string", field)
    return Refusal(ErrorCode.BAD_JSON, "the deletion must be a JSON object")
