"""Puts a simulated machine beneath the daemon's code, and small bounds in the place of large ones."""

import queue
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog

from perstack_stored.datadir import background_sync as syncer
from perstack_stored.datadir import filesystem as files
from perstack_stored.index import page_checksums
from perstack_stored.journal import clock as journal_clock
from perstack_stored.journal import erasing, segment_beginning, segment_file, sessions
from perstack_stored.journal import preallocation as prepare
from perstack_stored.journal import writer as journal
from perstack_stored.projection import index_projection, tree_projection
from perstack_stored.projection import worker as follower
from perstack_stored.read import open_answers, subscriptions, turns, window, window_reader
from perstack_stored.read import thread as read_thread
from perstack_stored.server import dispatch, loop, projections, retention, status
from perstack_stored.store import commit, fences, group_commit
from perstack_stored.tree import cursor as tree_cursor
from perstack_stored.tree import file_writer, remover, requests, sweep
from perstack_stored.tree_import import first_start
from perstack_stored.tree_import import survey as import_survey
from tests.simulation.kernel import Kernel
from tests.simulation.system_calls import SimulatedLibc, SimulatedOs
from tests.simulation.tasks import FakeCondition, FakeQueue, FakeThread

_SILENT = 50  # only what is critical


class _Time:
    """The module `time` of the machine that runs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(Kernel.current.clock, name)


def _randbits(bits: int) -> int:
    return Kernel.current.random.getrandbits(bits)


def _token_hex(size: int) -> str:
    return Kernel.current.random.randbytes(size).hex()


def _uuid4() -> uuid.UUID:
    return uuid.UUID(bytes=Kernel.current.random.randbytes(16))


@contextmanager
def simulated() -> Iterator[None]:
    """The daemon's modules run on the machine `Kernel.current`."""
    system = SimulatedOs()
    clock = _Time()
    FakeThread.scheduler = lambda: Kernel.current.scheduler
    FakeCondition.now = lambda: Kernel.current.clock.up
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_SILENT))
    with ExitStack() as stack:

        def put(module: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(module, name, value))

        put(files, "os", system)
        put(files, "_libc", SimulatedLibc(system))
        for module in (
            commit, dispatch, follower, group_commit, import_survey, first_start, journal, journal_clock,
            loop, open_answers, prepare, projections, read_thread, remover, retention, sessions, status,
            subscriptions, sweep, syncer, window, window_reader,
        ):  # fmt: skip
            put(module, "time", clock)
        put(syncer, "threading", SimpleNamespace(Thread=FakeThread))
        put(syncer, "queue", SimpleNamespace(SimpleQueue=FakeQueue, Empty=queue.Empty))
        put(prepare, "threading", SimpleNamespace(Thread=FakeThread))
        put(fences, "threading", SimpleNamespace(Thread=FakeThread))
        put(fences, "queue", SimpleNamespace(SimpleQueue=FakeQueue, Empty=queue.Empty))
        put(retention, "threading", SimpleNamespace(Thread=FakeThread))
        put(retention, "queue", SimpleNamespace(SimpleQueue=FakeQueue, Empty=queue.Empty))
        put(requests, "secrets", SimpleNamespace(token_hex=_token_hex))
        put(turns, "queue", SimpleNamespace(SimpleQueue=FakeQueue))
        put(read_thread, "threading", SimpleNamespace(Thread=FakeThread))
        put(subscriptions, "threading", SimpleNamespace(Thread=FakeThread, Condition=FakeCondition))
        put(segment_beginning, "secrets", SimpleNamespace(randbits=_randbits))
        put(erasing, "secrets", SimpleNamespace(randbits=_randbits))
        put(journal, "uuid", SimpleNamespace(uuid4=_uuid4))
        put(files.FileSystem, "is_alone", lambda _files, fd: Kernel.current.is_alone(fd))
        # What a killed task had open is gone with its machine.
        put(segment_file.OpenSegment, "__del__", lambda _segment: None)
        put(follower, "_LOOK_SECONDS", 0.0)
        put(page_checksums, "_PATIENCE_MS", 0)  # while it waits, no reader of the machine goes on
        # Bounds so small that a short history reaches them.
        put(journal, "GROWTH_BYTES", 4096)
        put(fences, "AT_ONCE_BYTES", 2048)
        put(fences, "HISTORY_BYTES", 20_000)
        put(tree_cursor, "UNSYNCED_RECORDS_MAX", 9)  # no slice is larger
        put(file_writer, "_FOLDERS_OPEN_MAX", 3)
        put(remover, "UNLINKED_AT_ONCE", 2)
        put(sweep, "_UNLINKS_AT_ONCE", 3)
        put(sweep, "_NAMES_AT_ONCE", 1)
        put(sweep, "_LEAVING_MAX", 1)
        put(remover, "_LISTED_AT_ONCE", 3)
        put(group_commit, "_FEW_REQUESTS", 1)
        put(group_commit, "_GATHERED_REQUESTS_MAX", 2)
        put(group_commit, "_INLINE_SECONDS_MAX", -1.0)
        put(dispatch, "NEAR_THE_END_RECORDS", 40)
        put(window_reader, "RECORDS_MAX", 12)
        put(window_reader, "_SPANS_MAX", 2)
        put(index_projection, "INDEX_SLICE", (3, 1 << 12))
        put(tree_projection, "TREE_SLICE", (2, 1 << 12))
        put(tree_projection, "TREE_SLICE_HELPED", (5, 1 << 13))
        put(tree_projection, "HELPED_LAG_RECORDS", 3)
        try:
            yield
        finally:
            structlog.configure(**before)


def random_of(*parts: object) -> Random:
    """Random numbers that depend on the parts alone."""
    return Random("/".join(map(str, parts)))
