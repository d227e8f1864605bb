"""Which records are erased, and what stands in their places. No I/O.

A deletion removes records at once from all reads; erasing replaces their bytes. What stays is a gap that
names the deletion, and as much as index and fences need, of jobs and runs that are still there.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from . import deletions, gaps, values
from .gaps import Gap
from .kinds import Kind
from .owners import owner_of

OF_CHECKPOINT, OF_SETTING = "storeCheckpoint", "storeRunSetting"
_EXPERT_CHARS_MAX = 200
Buffer = bytes | bytearray | memoryview
_Key = tuple[str, str | None]


class Removal(NamedTuple):
    """A deletion: of a job, or with `run` of a run, or only of the settings of that run."""

    position: int
    job: str
    run: str | None
    is_redaction: bool


class Erasures:
    """Deletions whose records must be erased. False if there are none."""

    def __init__(self, removals: Iterable[Removal]) -> None:
        self._removed: dict[_Key, list[int]] = {}
        self._redacted: dict[_Key, list[int]] = {}
        self._jobs: set[str] = set()
        for position, job, run, is_redaction in sorted(removals):
            of_kind = self._redacted if is_redaction else self._removed
            of_kind.setdefault((job, run), []).append(position)
            self._jobs.add(job)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def gap_for(self, position: int, kind: int, payload: Buffer) -> Gap | None:
        """The gap that takes the place of a record; None if the record stays.

        Raises:
            Refusal: the value can't be decoded.
        """
        if kind == Kind.GAP:
            return self._less_of(position, gaps.decode(payload))
        if kind == Kind.DELETION and not deletions.decode(payload).is_redaction:
            return None
        job, run = owner_of(kind, payload)
        if job not in self._jobs:
            return None
        at = _first(self._removed.get((job, None)), position)
        if at:
            return Gap(removed=at)
        at = _first(self._removed.get((job, run)), position)
        if at:
            if kind == Kind.CHECKPOINT:
                checkpoint = values.decode(kind, payload)
                assert isinstance(checkpoint, values.Checkpoint), "it was decoded as one"
                # It may have replaced one of another run, which must not come back.
                return Gap(removed=at, op=OF_CHECKPOINT, jobId=job, id=checkpoint.id)
            return Gap(removed=at, jobId=job)
        if kind in {Kind.RUN_SETTING, Kind.DELETION}:
            at = _first(self._redacted.get((job, run)), position)
            if at:
                # The run goes on, and began with this record.
                expert = _expert_of(kind, payload)
                return Gap(removed=at, op=OF_SETTING, jobId=job, runId=run, expertKey=expert)
        return None

    def _less_of(self, position: int, gap: Gap) -> Gap | None:
        """A gap that tells less of what is deleted; None if it may stay as it is."""
        job = gap.job
        if job not in self._jobs:
            return None
        if _first(self._removed.get((job, None)), position):
            return Gap(removed=gap.removed)
        if gap.runId and _first(self._removed.get((job, gap.runId)), position):
            return Gap(removed=gap.removed, jobId=job)
        return None


def _first(positions: list[int] | None, after: int) -> int:
    """The first of some positions after one; 0 if there is none."""
    if positions is None:
        return 0
    number = bisect_right(positions, after)
    return positions[number] if number < len(positions) else 0


def _expert_of(kind: int, payload: Buffer) -> str:
    if kind == Kind.DELETION:
        payload = deletions.decode(payload).value
    setting = values.decode(Kind.RUN_SETTING, payload)
    assert isinstance(setting, values.RunSetting), "it was decoded as one"
    return setting.expertKey[:_EXPERT_CHARS_MAX]
