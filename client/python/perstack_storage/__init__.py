"""The Python client of perstack-stored; never imports the daemon."""

from perstack_storage._client import Client, Page
from perstack_storage._endpoint import resolve_base, resolve_endpoint, socket_path_of
from perstack_storage._errors import (
    RETRYABLE,
    CheckpointNotFound,
    ClosedError,
    DaemonUnavailable,
    EndpointError,
    ErrorCode,
    OutcomeUnknown,
    ProtocolError,
    Refused,
    StorageError,
)
from perstack_storage._pipeline import Pipeline
from perstack_storage._shapes import (
    Checkpoint,
    EventMeta,
    ExpertRef,
    Job,
    Record,
    RunEvent,
    RunSetting,
    Usage,
)
from perstack_storage._version import __version__

__all__ = [
    "RETRYABLE",
    "Checkpoint",
    "CheckpointNotFound",
    "Client",
    "ClosedError",
    "DaemonUnavailable",
    "EndpointError",
    "ErrorCode",
    "EventMeta",
    "ExpertRef",
    "Job",
    "OutcomeUnknown",
    "Page",
    "Pipeline",
    "ProtocolError",
    "Record",
    "Refused",
    "RunEvent",
    "RunSetting",
    "StorageError",
    "Usage",
    "__version__",
    "resolve_base",
    "resolve_endpoint",
    "socket_path_of",
]
