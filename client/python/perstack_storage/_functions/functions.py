"""The functions of Perstack's storage under its own names, in snake_case; one client for all of them.

What they raise is what the same call of `Client` raises.
"""

import time
from typing import TYPE_CHECKING, cast

from perstack_storage._core.shapes import Checkpoint, EventMeta, Job, RunEvent, RunSetting
from perstack_storage._functions.adapter import DefaultFileSystem, FileSystem, GetRunDir, write_setting
from perstack_storage._functions.default import default_client
from perstack_storage._functions.paths import default_get_run_dir

if TYPE_CHECKING:
    from perstack_storage._core.inputs import J
    from perstack_storage._core.shapes import CheckpointFields, EventFields, JobFields

_DEFAULT_FS = DefaultFileSystem()

# --- jobs ------------------------------------------------------------------------------------------


def create_initial_job(job_id: str, expert_key: str, max_steps: int | None = None) -> Job:
    """Returns a new job that starts now; it is not stored. Without `max_steps` it has no such field."""
    job: Job = {
        "id": job_id,
        "status": "running",
        "coordinatorExpertKey": expert_key,
        "totalSteps": 0,
        "usage": {
            "inputTokens": 0,
            "outputTokens": 0,
            "reasoningTokens": 0,
            "totalTokens": 0,
            "cachedInputTokens": 0,
        },
        "startedAt": time.time_ns() // 1_000_000,
    }
    if max_steps is not None:
        job["maxSteps"] = max_steps
    return job


def store_job(job: "Job | JobFields | J") -> int:
    """Stores a job; of one id the last one counts. Returns its position."""
    return default_client().store_job(job)


def retrieve_job(job_id: str) -> Job | None:
    """Returns a job, or None where it is unknown."""
    return default_client().retrieve_job(job_id)


def get_all_jobs() -> list[Job]:
    """Returns all jobs by `startedAt`, newest first."""
    return default_client().get_all_jobs()


# --- checkpoints -----------------------------------------------------------------------------------


def default_store_checkpoint(checkpoint: "Checkpoint | CheckpointFields | J") -> int:
    """Stores a checkpoint; of one id the last one counts. Returns its position."""
    return default_client().store_checkpoint(checkpoint)


def default_retrieve_checkpoint(job_id: str, checkpoint_id: str) -> Checkpoint:
    """Returns a checkpoint.

    Raises:
        CheckpointNotFound: there is none, or no such job.
    """
    return default_client().retrieve_checkpoint(job_id, checkpoint_id)


def get_checkpoints_by_job_id(job_id: str) -> list[Checkpoint]:
    """Returns the checkpoints of a job by `stepNumber`, ties in the order stored."""
    return default_client().get_checkpoints_by_job_id(job_id)


# --- events ----------------------------------------------------------------------------------------


def default_store_event(event: "RunEvent | EventFields | J") -> int:
    """Stores an event; the same one again, byte for byte, is kept once. Returns its position."""
    return default_client().store_event(event)


def get_events_by_run(job_id: str, run_id: str) -> list[EventMeta]:
    """Returns time, step and type of the events of a run by `stepNumber`, ties in the order stored."""
    return default_client().get_events_by_run(job_id, run_id)


def get_event_contents(job_id: str, run_id: str, max_step_number: int | None = None) -> list[RunEvent]:
    """Returns the events of a run by `timestamp`, up to a step where one is given."""
    return default_client().get_event_contents(job_id, run_id, max_step_number)


# --- run settings ----------------------------------------------------------------------------------


def store_run_setting(
    setting: "RunSetting | J",
    fs: FileSystem | None = None,
    get_run_dir: GetRunDir | None = None,
) -> int | None:
    """Stores the setting of a run; where there is one, only `updatedAt` changes.

    Args:
        setting: the setting.
        fs: another file system than that of `create_default_file_system`. The setting is written through
            it, as the reference does: the daemon does not see it, and nothing is checked or synced.
        get_run_dir: the same with another folder than that of `default_get_run_dir`.

    Returns:
        Its position; None where it was not the daemon that stored it.
    """
    is_default_dir = get_run_dir is None or get_run_dir is default_get_run_dir
    if is_default_dir and (fs is None or type(fs) is DefaultFileSystem):
        return default_client().store_run_setting(setting)
    given = cast("RunSetting", setting)
    where = (get_run_dir or default_get_run_dir)(given["jobId"], given["runId"])
    write_setting(given, fs or _DEFAULT_FS, where)
    return None


def get_all_runs() -> list[RunSetting]:
    """Returns the settings of all runs by `updatedAt`, newest first."""
    return default_client().get_all_runs()


def create_default_file_system() -> FileSystem:
    """Returns the default file system; `store_run_setting` knows it, and goes through the daemon."""
    return _DEFAULT_FS
