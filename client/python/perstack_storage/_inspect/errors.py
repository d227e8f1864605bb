"""Errors of the gateway: a code, the field that is wrong, a sentence; and the status of HTTP of each."""

from typing import Any

from perstack_storage._core.errors import (
    AnswerTooLarge,
    ClosedError,
    DaemonUnavailable,
    EndpointError,
    Refused,
    StorageError,
)

_STATUS = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "POSITION_GONE": 410,
    "TOO_LARGE": 413,
    "DAEMON_UNAVAILABLE": 503,
    "BUSY": 503,
    "STOPPING": 503,
    "READ_GONE": 503,
    "STORAGE_FULL": 503,
    "DEADLINE": 504,
    "BAD_ANSWER": 502,
    "DAMAGED": 500,
    "INTERNAL": 500,
}
CODES = tuple(_STATUS)
RETRY_AFTER_S = 1


class GatewayError(Exception):
    """An answer that is an error.

    Attributes:
        code: one of `CODES`, or a code of the daemon that is newer than this program.
        field: the parameter that is wrong, where there is one.
    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return _STATUS.get(self.code, 502)

    def as_json(self) -> dict[str, Any]:
        """The body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        return {"error": error}


_FIELDS = {"jobId": "job", "runId": "run", "checkpointId": "checkpoint", "expertKey": "expert"}


def of_storage(error: StorageError) -> GatewayError:
    """What an error of the client means to who asked over HTTP."""
    if isinstance(error, Refused):
        field = None if error.field is None else _FIELDS.get(error.field, error.field)
        return GatewayError(str(error.code), error.message, field)
    if isinstance(error, AnswerTooLarge):
        return GatewayError("TOO_LARGE", "the answer is too large: ask for fewer items, or omit fields")
    if isinstance(error, DaemonUnavailable | EndpointError | ClosedError):
        return GatewayError("DAEMON_UNAVAILABLE", str(error))
    return GatewayError("BAD_ANSWER", str(error))
