"""The names that `perstack_storage` offers."""

from typing import TYPE_CHECKING

from perstack_storage._core.answers import Page
from perstack_storage._core.errors import (
    RETRYABLE,
    AnswerTooLarge,
    CheckpointNotFound,
    ClosedError,
    DaemonUnavailable,
    Deleted,
    EndpointError,
    ErrorCode,
    Forbidden,
    JobTakenOver,
    KeyRefused,
    NestedTooDeeply,
    NotFlushed,
    OutcomeUnknown,
    PositionGone,
    ProtocolError,
    Refused,
    StorageError,
    TooMuchOutstanding,
)
from perstack_storage._core.filters import (
    CheckpointFilters,
    EventFilters,
    FollowOptions,
    JobFilters,
    RecordFilters,
    RunFilters,
)
from perstack_storage._core.shapes import (
    Checkpoint,
    Deletion,
    EventMeta,
    ExpertRef,
    Job,
    JobSummary,
    Record,
    RunEvent,
    RunSetting,
    RunSummary,
    Size,
    Usage,
)
from perstack_storage._functions.adapter import DefaultFileSystem, FileSystem
from perstack_storage._functions.default import close_default_client, default_client
from perstack_storage._functions.functions import (
    create_default_file_system,
    create_initial_job,
    default_retrieve_checkpoint,
    default_store_checkpoint,
    default_store_event,
    get_all_jobs,
    get_all_runs,
    get_checkpoints_by_job_id,
    get_event_contents,
    get_events_by_run,
    retrieve_job,
    store_job,
    store_run_setting,
)
from perstack_storage._functions.paths import (
    default_get_run_dir,
    get_checkpoint_dir,
    get_checkpoint_path,
    get_job_dir,
    get_jobs_dir,
)
from perstack_storage._sync.atomic import AtomicBatch
from perstack_storage._sync.client import Client
from perstack_storage._sync.future import StoreFuture
from perstack_storage._sync.pipeline import Pipeline
from perstack_storage._sync.resumed import ResumedJob
from perstack_storage._version import __version__
from perstack_storage._wire.endpoint import resolve_base, resolve_endpoint, socket_path_of
from perstack_storage._wire.keys import CurveKeys

if TYPE_CHECKING:
    from perstack_storage._async.atomic import AsyncAtomicBatch
    from perstack_storage._async.client import AsyncClient
    from perstack_storage._async.pipeline import AsyncPipeline
    from perstack_storage._async.resumed import AsyncResumedJob

__all__ = [
    "RETRYABLE",
    "AnswerTooLarge",
    "AsyncAtomicBatch",
    "AsyncClient",
    "AsyncPipeline",
    "AsyncResumedJob",
    "AtomicBatch",
    "Checkpoint",
    "CheckpointFilters",
    "CheckpointNotFound",
    "Client",
    "ClosedError",
    "CurveKeys",
    "DaemonUnavailable",
    "DefaultFileSystem",
    "Deleted",
    "Deletion",
    "EndpointError",
    "ErrorCode",
    "EventFilters",
    "EventMeta",
    "ExpertRef",
    "FileSystem",
    "FollowOptions",
    "Forbidden",
    "Job",
    "JobFilters",
    "JobSummary",
    "JobTakenOver",
    "KeyRefused",
    "NestedTooDeeply",
    "NotFlushed",
    "OutcomeUnknown",
    "Page",
    "Pipeline",
    "PositionGone",
    "ProtocolError",
    "Record",
    "RecordFilters",
    "Refused",
    "ResumedJob",
    "RunEvent",
    "RunFilters",
    "RunSetting",
    "RunSummary",
    "Size",
    "StorageError",
    "StoreFuture",
    "TooMuchOutstanding",
    "Usage",
    "__version__",
    "close_default_client",
    "create_default_file_system",
    "create_initial_job",
    "default_client",
    "default_get_run_dir",
    "default_retrieve_checkpoint",
    "default_store_checkpoint",
    "default_store_event",
    "get_all_jobs",
    "get_all_runs",
    "get_checkpoint_dir",
    "get_checkpoint_path",
    "get_checkpoints_by_job_id",
    "get_event_contents",
    "get_events_by_run",
    "get_job_dir",
    "get_jobs_dir",
    "resolve_base",
    "resolve_endpoint",
    "retrieve_job",
    "socket_path_of",
    "store_job",
    "store_run_setting",
]
