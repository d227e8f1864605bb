"""The command that stores what comes in."""

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from perstack_storage import Refused
from perstack_storage._core.jsonio import loads
from perstack_storage._storectl import tables
from perstack_storage._storectl.call import OK, REFUSED, Call, complain

KINDS = {
    "job": "store_job",
    "checkpoint": "store_checkpoint",
    "event": "store_event",
    "run-setting": "store_run_setting",
}


class _InputError(Exception):
    """What came from standard input is not what it must be."""


def put(call: Call) -> int:
    """Store what comes in; every value is tried, whatever becomes of the others."""
    store = KINDS[call.given.kind]
    problem: _InputError | None = None
    pipeline = call.client.pipeline()
    with contextlib.suppress(Refused), pipeline:  # all refusals are looked at below
        try:
            for value in _values(sys.stdin.buffer):
                getattr(pipeline, store)(value)
        except _InputError as error:
            problem = error
    refused = {refusal.index: refusal for refusal in pipeline.refusals}
    for number, position in enumerate(pipeline.positions):
        if number in refused:
            complain(f"value {number + 1}: {refused[number].message}")
        if call.out.as_json:
            call.out.line(tables.json_line({"position": position}))
    stored = [position for position in pipeline.positions if position is not None]
    if stored and not call.out.as_json:
        what = "a value at position" if len(stored) == 1 else f"{len(stored)} values, the last at position"
        call.out.line(f"stored {what} {max(stored)}")
    if problem is not None:
        complain(f"{problem}; {len(stored)} before it were stored" if stored else str(problem))
    elif not pipeline.positions:
        complain("standard input is empty: nothing to store")
    return REFUSED if refused or problem is not None or not pipeline.positions else OK


def _values(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects that come in: one in each line, or a single one over any number of lines."""
    begun = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = loads(line)
        except ValueError as error:
            if begun:
                raise _InputError(f"line {number} is not JSON: {error}") from None
            try:
                value = loads(line + lines.read())
            except ValueError:
                raise _InputError(f"line {number} is not JSON, nor is the whole: {error}") from None
        begun = True
        if not isinstance(value, dict):
            raise _InputError(f"line {number} is not a JSON object")
        yield value
