"""Where the tree keeps what: absolute paths, the same from any directory. Nothing is read or made."""

import os
import re

from perstack_storage._functions.default import default_base

_ID_BYTES_MAX = 200
_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


def get_jobs_dir() -> str:
    """Returns the folder that holds a folder for each job."""
    return os.path.join(default_base(), "jobs")


def get_job_dir(job_id: str) -> str:
    """Returns the folder of a job.

    Raises:
        ValueError: no job can have this id; so do the other functions here.
    """
    return os.path.join(get_jobs_dir(), _checked(job_id, "job_id"))


def get_checkpoint_dir(job_id: str) -> str:
    """Returns the folder of a job's checkpoints."""
    return os.path.join(get_job_dir(job_id), "checkpoints")


def get_checkpoint_path(job_id: str, checkpoint_id: str) -> str:
    """Returns the file of a checkpoint."""
    return os.path.join(get_checkpoint_dir(job_id), _checked(checkpoint_id, "checkpoint_id") + ".json")


def default_get_run_dir(job_id: str, run_id: str) -> str:
    """Returns the folder of a run: its setting and its events."""
    return os.path.join(get_job_dir(job_id), "runs", _checked(run_id, "run_id"))


def _checked(id: str, name: str) -> str:
    """Returns an id of which section 6 of `proto/wire.md` says that it may be stored."""
    length = len(id.encode(errors="surrogatepass"))
    if not 1 <= length <= _ID_BYTES_MAX or id in {".", ".."} or _FORBIDDEN.search(id):
        raise ValueError(
            f"{name} must be 1 to {_ID_BYTES_MAX} bytes without slash, backslash or control characters,"
            f' and not "." or "..": {id[:_ID_BYTES_MAX]!r}'
        )
    return id
