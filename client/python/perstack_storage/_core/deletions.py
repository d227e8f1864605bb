"""The names of the deletions, once for both clients."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from perstack_storage._core.conditions import Condition, Conditional
from perstack_storage._core.jsonio import dumps
from perstack_storage._core.shapes import RunSetting

R = TypeVar("R")


class Deletions(Generic[R]):
    """Deletions of a client, which return their position. They are stores, in the order of the calls.

    After the answer no read shows what was deleted, by any client. A late store of a session that began
    before is refused as `Deleted`, this client's own too: to begin a new job under the id, make a new client.
    The daemon must let this client delete, else it is `Forbidden`.
    """

    def delete_job(self, job_id: str, why: str | None = None) -> R:
        """Deletes a job: all that was stored of it so far. One that does not exist is deleted as well.

        Args:
            job_id: the job's id.
            why: kept with the deletion, at most 200 characters.
        """
        return self._delete("deleteJob", job_id, None, why)

    def delete_run(self, job_id: str, run_id: str, why: str | None = None) -> R:
        """Deletes a run: its setting, checkpoints and events; the job and its other runs stay."""
        return self._delete("deleteRun", job_id, run_id, why)

    def redact_run_setting(self, setting: RunSetting | Mapping[str, Any], why: str | None = None) -> R:
        """Puts a setting in the place of all that were stored of its run, which no read shows any more.

        For secrets that must go while the run stays: `setting` is the stored one without them. A setting
        that is stored later changes only its `updatedAt`, as ever. At most 256 KiB.
        """
        given = {"jobId": setting["jobId"], "runId": setting["runId"], "why": why, "setting": setting}
        body = dumps({name: value for name, value in given.items() if value is not None})
        return self._store("redactRunSetting", Conditional(body, Condition()))

    def _delete(self, op: str, job_id: str, run_id: str | None, why: str | None) -> R:
        given = {"jobId": job_id, "runId": run_id, "why": why}
        body = dumps({name: value for name, value in given.items() if value is not None})
        # Alone in its frame: what shares it with a deletion that is forbidden would be refused too.
        return self._store(op, Conditional(body, Condition()))

    def _store(self, op: str, body: bytes) -> R:
        raise NotImplementedError
