"""Runs steps of `rebuild` in a child process: one record may kill it, as when memory is short.

A record of the tree at which it dies twice is passed over, as in the daemon. One of the index can't be: the
index would miss an acknowledged record. So the old index stays, and the error names the record.
"""

import os
import pickle
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import click

from perstack_stored.errors import StartFailedError, StoredError
from perstack_stored.process.parent_death import die_with
from perstack_stored.process.worker_status import WorkerStatus
from perstack_stored.tree.blocked import BlockedRecord, Deaths


class Step(NamedTuple):
    """Options of a child.

    Attributes:
        names_records: an earlier child died; take small steps, and name each record.
        blocked: records at which children died.
        retries: write again the records that the tree passes over.
    """

    status: WorkerStatus
    names_records: bool
    blocked: tuple[BlockedRecord, ...]
    retries: bool = False


class _Raised(NamedTuple):
    """An error of the child in a form that can be pickled."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    facts: dict[str, Any]

    def again(self) -> Exception:
        if issubclass(self.kind, OSError):
            return self.kind(*self.arguments)
        error = self.kind.__new__(self.kind, *self.arguments)
        error.args = self.arguments
        error.__dict__.update(self.facts)
        return error


def in_child(work: Callable[[Step], Any], *, passes_over: bool) -> Any:
    """Run a step in a child, again if it dies at a record; return the step's result.

    Args:
        work: the step.
        passes_over: whether it can go on without a record.

    Raises:
        StartFailedError: the child died repeatedly.
        StoredError, OSError, sqlite3.Error: as raised by the step.
    """
    deaths = Deaths()
    blocked: dict[int, BlockedRecord] = {}
    names_records = False
    while True:
        status, fd = WorkerStatus.shared()
        os.close(fd)
        code, answer_text = _run(work, Step(status, names_records, tuple(blocked.values())))
        if answer_text is not None:
            answer = pickle.loads(answer_text)  # noqa: S301 - from the child of this process
            if isinstance(answer, _Raised):
                raise answer.again()
            return answer
        record = deaths.note(status)
        at = f" at record {status.position}" if status.position else ""
        click.echo(f"perstack-stored: the process that rebuilds ended with status {code}{at}", err=True)
        if record is not None and passes_over and record.position not in blocked:
            blocked[record.position] = record
        elif record is not None or (names_records and not status.position):
            raise StartFailedError(f"rebuilding ends with status {code} again and again{at}")
        names_records = True


def _run(work: Callable[[Step], Any], step: Step) -> tuple[int, bytes | None]:
    """Return the exit status of a child, and its pickled answer, if any."""
    sys.stdout.flush()
    sys.stderr.flush()
    own, other = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(own)
        die_with(parent)
        _child(other, work, step)
    os.close(other)
    try:
        with open(own, "rb") as pipe:
            answer_text = pipe.read()
    finally:
        _, ended = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(ended)
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    return code, answer_text if code == 0 else None


def _child(pipe: int, work: Callable[[Step], Any], step: Step) -> NoReturn:
    """Run in the child, and end it."""
    code = 1
    try:
        answer = _answer(work, step)
        with open(pipe, "wb") as out:
            out.write(pickle.dumps(answer))
        code = 0
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception as error:  # noqa: BLE001 - its text is not shown: it may hold a piece of a value
        where = traceback.extract_tb(error.__traceback__)[-1]
        click.echo(f"{type(error).__name__} at {where.filename}:{where.lineno}", err=True)
    finally:
        os._exit(code)


def _answer(work: Callable[[Step], Any], step: Step) -> Any:
    try:
        return work(step)
    except OSError as error:
        return _Raised(type(error), (error.errno, error.strerror, error.filename), {})
    except (StoredError, sqlite3.Error) as error:
        return _Raised(type(error), error.args, error.__dict__)
