"""How soon a new node serves: with all records in the stream, or with a backup or a mirror and its tail."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from perstack_storage import Client
from tests.bench.load import Load, event
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.s3 import ENVIRONMENT, s3_server
from tests.mirror.bases import restore, run, url_of

from .report import Figures
from .world import LIMIT_SECONDS, STREAM, Plan, ending, position, servers, work

PART = "new node"
_BACKED_UP = 0.9  # of the records; the rest is the tail
_FILL_SECONDS = 5.0
_PREFIX = "bench"


def measure(root: Path, figures: Figures, plan: Plan) -> None:
    """Fill a stream, then let new nodes join in each way, in turn."""
    root.mkdir()
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(root))
        cluster = stack.enter_context(servers(root / "servers"))
        mirror = ("--mirror", url_of(_PREFIX), "--mirror-endpoint", s3.url)
        flags = ("--journal", cluster.url(STREAM), "--tree-leave-out", "streamReasoning")
        daemon = RunningDaemon(root / "first", *flags, *mirror, environment=ENVIRONMENT)
        first = stack.enter_context(ending(daemon)).start()
        backup = root / "backup"
        _fill(first, int(plan.records * _BACKED_UP), plan, 0)
        done = run("backup", "--base-path", str(first.base), str(backup))
        assert done.returncode == 0, done.stderr
        _fill(first, plan.records, plan, 1_000_000)
        _await_mirror(first)
        count = position(first.endpoint)
        if count < plan.records:
            figures.left_out.append(f"{PART}: {count:,} of {plan.records:,} records, time was up")
        figures.add(PART, "records", count)
        ways: dict[str, Callable[[Path], None]] = {
            "from a backup, s": lambda base: _restore_backup(backup, base),
            "from a mirror, s": lambda base: _restore_mirror(s3.url, base),
            "from the stream alone, s": lambda _: None,
        }
        for n in range(plan.joins):
            for name, prepare in ways.items():
                if n and plan.is_over:
                    figures.left_out.append(f"{PART}: {name}: time {n + 1} and later ones, time was up")
                    continue
                base = root / f"joins{n}-{len(figures.values)}"
                begun = time.monotonic()
                prepare(base)
                restored = time.monotonic() - begun
                with ending(RunningDaemon(base, "--journal", cluster.url(STREAM))) as new:
                    _await_serving(new, count)
                    figures.add(PART, name, time.monotonic() - begun)
                if restored > 0.1:
                    figures.add(PART, f"of that, the restore {name}", restored)
                shutil.rmtree(base)


def _fill(daemon: RunningDaemon, count: int, plan: Plan, first: int) -> None:
    """Store until a daemon has a number of records; no longer than the time allows."""
    while position(daemon.endpoint) < count and not plan.is_over:
        work([daemon.endpoint], Load(8, 64, min(_FILL_SECONDS, plan.seconds)), first)
        first += 8


def _await_mirror(daemon: RunningDaemon) -> None:
    with Client(daemon.endpoint, timeout_s=LIMIT_SECONDS) as client:

        def is_there() -> bool:
            stats = client.stats()
            return bool(stats["mirror"]["position"] == stats["position"])

        eventually(is_there, "the mirror has all", LIMIT_SECONDS)


def _restore_backup(backup: Path, base: Path) -> None:
    done = run("restore", str(backup), "--base-path", str(base))
    assert done.returncode == 0, done.stderr


def _restore_mirror(url: str, base: Path) -> None:
    restore(_PREFIX, url, base)


def _await_serving(daemon: RunningDaemon, count: int) -> None:
    """It serves: a strict read was answered, which sees all records, and a store acknowledged."""
    daemon.start(wait=False)
    with Client(daemon.endpoint, timeout_s=LIMIT_SECONDS) as client:
        assert client.retrieve_job("none") is None
        assert client.store_event(event(9, 0)) > count
