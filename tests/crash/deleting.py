"""A client of the campaigns that deletes: jobs, runs, and the secrets of settings (see recorder.py).

What it has deleted it begins again under the same ids, in a new session. A store of the old session comes
late sometimes: it must be refused, also by a daemon that was killed meanwhile.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.crash.deleted import OF_JOB, OF_RUN, REDACTION
from tests.crash.observed import Observer, digest
from tests.crash.recorder import Log, Recorder, Temper, values
from tests.helpers.raw_client import setting

_TEMPER = Temper(8, 5, 0.0, gives_up=False)  # who gives up the first number has no session that is new
_JOBS = 3


class Deleter(Recorder):
    """Stores some, deletes of it, looks whether it is gone, and begins again."""

    def __init__(self, endpoint: str, log: Log, name: str, seed: int) -> None:
        self._late: set[int] = set()
        super().__init__(endpoint, log, name, seed, _TEMPER)
        jobs = [f"{name}-j{n}" for n in range(_JOBS)]
        self._stores = {
            job: values(job, random.Random(seed + n), 0, moves=False) for n, job in enumerate(jobs)
        }
        self._begin()

    def _begin(self) -> None:
        self._begin_session()
        self._late.clear()
        self._job = self._rng.choice(list(self._stores))
        self._left = self._rng.randint(1, 10)
        self._next = self._delete

    def _store_more(self) -> None:
        if self._left:
            super()._store_more()
        elif not self._unanswered:
            self._next()

    def _take_stores(self, count: int) -> list[tuple[str, bytes]]:
        self._left -= 1
        return [next(self._stores[self._job]) for _ in range(count)]

    def _delete(self) -> None:
        run = f"r{self._rng.randrange(3)}"
        op = self._rng.choice((OF_JOB, OF_RUN, OF_RUN, REDACTION))
        value: dict[str, Any] = {"jobId": self._job}
        if op != OF_JOB:
            value["runId"] = run
        if op == REDACTION:
            value["setting"] = setting(run, jobId=self._job, model=f"redacted {self._next_seq}")
        self._store([(op, json.dumps(value, separators=(",", ":")).encode())])
        self._next = self._look if op == OF_JOB else self._begin

    def _look(self) -> None:
        """It is acknowledged: no read shows the job any more. What a reader is shown, the judge decides."""
        self._next = self._be_late if self._rng.random() < 0.5 else self._begin
        asked = time.monotonic()
        try:
            with Observer(self._endpoint, answer_seconds=2) as observer:
                records, _ = observer.page(0, jobId=self._job, limit=1000)
        except TimeoutError:
            return
        for record in records:
            self._log.say("saw", position=record.position, digest=digest(record), asked=asked)

    def _be_late(self) -> None:
        self._late.add(self._next_seq)
        self._store(self._take_stores(1))
        self._left = 0
        self._next = self._begin

    def _answered(self, header: dict[str, Any]) -> bool:
        frame = self._unanswered.get(header["id"])
        if frame is not None and "part" not in header and not _is_retryable(header):
            assert header["ok"] != (frame.seq in self._late), f"{header} to {frame}"
        return super()._answered(header)


def _is_retryable(header: dict[str, Any]) -> bool:
    return not header["ok"] and header["error"]["retryable"]


def main() -> None:
    """Entry of the process: `python -m tests.crash.deleting ENDPOINT HISTORY SEED`."""
    endpoint, history, seed = sys.argv[1:]
    Deleter(endpoint, Log(Path(history)), Path(history).stem, int(seed)).run()


if __name__ == "__main__":
    main()
