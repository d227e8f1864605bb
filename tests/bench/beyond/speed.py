"""Stores and reads of three daemons that share a journal, in turn with a daemon by itself."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from perstack_storage import Client
from tests.bench.load import Load, percentile
from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import job

from .report import Figures
from .world import LIMIT_SECONDS, Plan, ending, position, servers, settle, three_daemons, work

_MANY, _ONE, _READS = "8 x 64", "1 x 1", "reads"
_AGENTS = 16  # numbers of a round


def measure(root: Path, figures: Figures, plan: Plan) -> None:
    """Take rounds in turn; another mode begins each round."""
    root.mkdir()
    with ExitStack() as stack:
        local = [stack.enter_context(ending(RunningDaemon(root / "local"))).start().endpoint]
        cluster = stack.enter_context(servers(root / "servers"))
        daemons = stack.enter_context(three_daemons(cluster, root))
        modes = {"local": local, "replicated": [daemon.endpoint for daemon in daemons]}
        for endpoints in modes.values():
            with Client(endpoints[0], timeout_s=LIMIT_SECONDS) as client:
                client.store_job(job("read"))
        for n in range(plan.rounds):
            if plan.is_over:
                figures.left_out.append(f"speed: round {n + 1} and later ones, time was up")
                break
            for mode in list(modes)[:: 1 if n % 2 == 0 else -1]:
                _round(figures, plan, mode, modes[mode], _AGENTS * n)
            for part, name in ((_MANY, "events/s"), (_ONE, "p50 ms"), (_ONE, "p99 ms")):
                ours, theirs = (figures.values[part, f"{mode}, {name}"][-1] for mode in modes)
                figures.add(part, f"replicated against local, {name.partition(' ')[0]}", theirs / ours)
            here = figures.values[_READS, "local mode, p50 ms"][-1]
            strict = figures.values[_READS, "replicated, strict, p50 ms"][-1]
            figures.add(_READS, "strict p50 less local mode's, ms", strict - here)


def _round(figures: Figures, plan: Plan, mode: str, endpoints: Sequence[str], first: int) -> None:
    before = position(endpoints[0])
    many = work(endpoints, Load(8, 64, plan.seconds), first)
    figures.add(_MANY, f"{mode}, events/s", many.count / (many.end - many.begin))
    settle(endpoints)
    one = work(endpoints[:1], Load(1, 1, plan.seconds), first + 8)
    figures.add(_ONE, f"{mode}, p50 ms", percentile(one.latencies_ms, 0.5))
    figures.add(_ONE, f"{mode}, p99 ms", percentile(one.latencies_ms, 0.99))
    stored = position(endpoints[0]) - before
    if stored != many.count + one.count:
        figures.left_out.append(f"{mode}: {many.count + one.count} acknowledged, {stored} stored")
    settle(endpoints)
    if mode == "local":
        figures.add(_READS, "local mode, p50 ms", _read_ms(endpoints[0], plan.seconds))
    else:
        figures.add(_READS, "replicated, strict, p50 ms", _read_ms(endpoints[0], plan.seconds))
        figures.add(_READS, "replicated, local reads, p50 ms", _read_ms(endpoints[-1], plan.seconds))


def _read_ms(endpoint: str, seconds: float) -> float:
    """Median time of a small read, one after the other."""
    found = []
    with Client(endpoint, timeout_s=LIMIT_SECONDS) as client:
        client.retrieve_job("read")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            before = time.perf_counter()
            assert client.retrieve_job("read") is not None
            found.append(1000 * (time.perf_counter() - before))
    return percentile(found, 0.5)
