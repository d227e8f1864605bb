"""What schemathesis loads before `make inspect-fuzz`: ids that exist, and counts of what was answered."""

import atexit
import json
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis  # type: ignore[import-not-found]

JOBS = ("job-completed", "job-delegated", "job-failed", "captured-b")
KNOWN: dict[str, tuple[str, ...]] = {
    "job": JOBS, "run": ("run-1", "run-child-0"), "position": tuple(map(str, range(1, 200))),
    "checkpoint": ("job-completed-c72",), "from": ("job-completed-c72",), "to": ("job-completed-c72",),
}  # fmt: skip
_lock = threading.Lock()
_random = random.Random(1)
_counts: Counter[str] = Counter()


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(_: Any, case: Any, __: Any) -> None:
    """Of requests that obey the document half ask for what is stored."""
    if case.meta is None or case.meta.generation.mode != schemathesis.GenerationMode.POSITIVE:
        return
    with _lock:
        if _random.random() < 0.5:
            return
        for values in (case.path_parameters, case.query):
            for name in values or ():
                if name in KNOWN:
                    values[name] = _random.choice(KNOWN[name])


@schemathesis.hook  # type: ignore[untyped-decorator]
def after_call(_: Any, case: Any, response: Any) -> None:
    """Count the answer."""
    mode = "none" if case.meta is None else case.meta.generation.mode.value
    with _lock:
        _counts[f"status {response.status_code}"] += 1
        _counts[f"mode {mode}"] += 1


def _tell() -> None:
    Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(_counts))


atexit.register(_tell)
