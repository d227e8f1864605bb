"""Metrics for Prometheus: made at each scrape from the daemon's counters.

Runs in the threads of `observe/http.py`. daemon/docs/metrics.md lists every metric.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from perstack_storage.protocol import ErrorCode
from perstack_stored import __version__

from .counters import Histogram, MetricsSource

_PREFIX = "perstack_stored_"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Metrics(Collector):
    """Collects all metrics but those of the interpreter's process."""

    def __init__(self, watched: MetricsSource) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        """All metrics at this moment."""
        stats = self._watched.stats()
        yield _labelled(
            GaugeMetricFamily, "info", "Version, and the history that is served.",
            ("version", "history"), {(__version__, self._watched.store): 1},
        )  # fmt: skip
        yield _gauge("uptime_seconds", "Seconds since the start.", stats["uptimeSeconds"])
        yield from self._requests(stats)
        yield from self._connections()
        yield from self._journal(stats)
        yield from _queues(stats)
        yield from self._workers(stats)
        yield from _mirror(stats["mirror"])
        tree = stats["treeMirror"]
        yield _gauge("tree_mirror_lag_seconds", "The same of the tree's mirror.", tree["lagSeconds"])
        yield _gauge("tree_mirror_fault", "1 if the tree's mirror can't go on.", float(bool(tree["fault"])))
        yield _gauge("copy_fault", "1 if a copy of a mirror can't follow it.", bool(stats["copy"]["fault"]))
        yield from _replication(stats["replication"])
        yield from self._processes()

    def _requests(self, stats: dict[str, Any]) -> Iterator[Metric]:
        # Series begin at 0: `rate` and `increase` don't see a first count that comes with its series.
        outcomes: dict[tuple[str, ...], float] = {(op, "ok"): 0 for op in self._watched.operations}
        refused = {(code.value,): 0 for code in ErrorCode}
        seconds: dict[str, list[Histogram]] = {"store": [], "read": []}
        for number, counter in enumerate(self._watched.requests):
            for key, count in dict(counter.outcomes).items():
                outcomes[key] = outcomes.get(key, 0) + count
            seconds["read" if number else "store"].append(counter.seconds)
        yield _counter("messages", "Messages received.", stats["messages"])
        yield _labelled(
            CounterMetricFamily, "requests", 'Requests answered: "ok", or the code of the error.',
            ("operation", "outcome"), outcomes,
        )  # fmt: skip
        yield _histogram(
            "request_seconds", "From taking a request in to its answer, but for reads that wait for records.",
            "kind", {kind: _sum_of(parts) for kind, parts in seconds.items()},
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "records_stored", "Records stored, by operation.",
            ("operation",), {(op,): count for op, count in stats["stored"].items()},
        )  # fmt: skip
        yield _counter(
            "stores_repeated", "Stores sent again, answered with their position.", stats["repeated"]
        )
        yield _labelled(
            CounterMetricFamily, "refused", "Errors by code, items of batches too.",
            ("code",), refused | {(code,): count for code, count in stats["refused"].items()},
        )  # fmt: skip
        deletions = stats["deletions"]
        yield _counter("deletions_stored", "Deletions of jobs and runs stored.", deletions["stored"])
        yield _gauge("deletion_guards", "Deletions that late stores can't undo.", deletions["guards"])
        yield _counter(
            "deletion_guards_ended_early", "Guards that ended early: too many.", deletions["guardsEndedEarly"]
        )
        yield _gauge("deletions_pending", "Deletions that are not erased yet.", deletions["pending"])
        yield _gauge("oldest_deletion_seconds", "Age of the oldest of these.", deletions["oldestSeconds"])
        yield _counter("erased_records", "Deleted records that were erased.", deletions["erasedRecords"])
        yield _gauge("erasing_failed", "1 while a deletion can't be erased.", int(bool(deletions["fault"])))
        retention = stats["retention"]
        yield _counter("retention_deleted", "Jobs that retention deleted.", retention["deleted"])
        yield _gauge("retention_candidates", "Jobs that it would delete now.", retention["candidates"])
        yield _gauge("retention_candidate_bytes", "Their bytes on disk.", retention["candidateBytes"])
        yield _gauge("retention_fault", "1 if a sweep failed.", float(bool(retention["fault"])))
        yield _counter("reads_failed", "Reads that met a fault of the daemon.", stats["reads"]["failed"])

    def _connections(self) -> Iterator[Metric]:
        connections = self._watched.connections()
        yield _gauge("connections", "Connections that are open.", connections["open"])
        yield _counter("connections_accepted", "Connections since the start.", connections["accepted"])
        for key, name, about in (
            ("failed", "handshakes_failed", "Connections that came to nothing."),
            ("cut", "connections_cut", "Connections by ipc that the daemon closed: they broke a bound."),
            ("paused", "accepting_paused", "Times that clients by ipc had to wait to be let in."),
        ):
            counts = {(reason,): count for reason, count in connections[key].items()}
            yield _labelled(CounterMetricFamily, name, about, ("reason",), counts)
        yield _gauge(
            "half_frames_bytes",
            "What has come by ipc of messages that are not complete.",
            connections["halfBytes"],
        )

    def _journal(self, stats: dict[str, Any]) -> Iterator[Metric]:
        loop = self._watched.loop
        yield _gauge("position", "Position of the last record that is on disk.", stats["position"])
        yield _histogram(
            "commit_records", "Stores taken to the journal at once.", None, {"": loop.commit_records}
        )
        yield _histogram("sync_seconds", "Duration of the journal's fdatasync.", None, {"": loop.syncs})
        yield _counter(
            "slow_syncs", "Those that took longer than slow-sync-ms.", stats["journal"]["slowSyncs"]
        )
        sizes = _sizes(self._watched.journal)
        yield _gauge("journal_bytes", "Bytes of the journal's files, room made ahead included.", sum(sizes))
        yield _gauge("journal_segments", "Files of the journal.", len(sizes))
        packed = stats["journal"]["packed"]
        yield _gauge("packed_segments", "Segments of the journal that are packed.", packed["segments"])
        yield _gauge("packed_logical_bytes", "Bytes of these before they were packed.", packed["bytes"])
        yield _gauge("packed_file_bytes", "Bytes of these now.", packed["packedBytes"])
        yield _gauge("packing_failed", "1 while a segment can't be packed.", int(bool(packed["fault"])))
        disk = os.statvfs(self._watched.journal)
        yield _gauge("disk_free_bytes", "Free on the base's file system.", disk.f_bavail * disk.f_frsize)

    def _workers(self, stats: dict[str, Any]) -> Iterator[Metric]:
        now = time.monotonic()
        course = self._watched.loop.course
        workers = {worker.kind: stats[worker.kind] for worker in self._watched.projections}
        known = {kind: facts for kind, facts in workers.items() if facts["position"] is not None}

        def each(name: str, help: str, values: dict[str, float]) -> Metric:  # noqa: A002
            labelled = {(kind,): value for kind, value in values.items()}
            return _labelled(GaugeMetricFamily, name, help, ("follower",), labelled)

        yield each("follower_position", "How far it is.", {k: v["position"] for k, v in known.items()})
        yield each(
            "follower_lag_records",
            "Records that it lags.",
            {k: v["lagRecords"] for k, v in known.items()},
        )
        yield each("follower_lag_bytes", "Bytes that it lags.", {k: v["lagBytes"] for k, v in known.items()})
        yield each(
            "follower_lag_seconds", "Age of the oldest record that it has not applied.",
            {k: course.lag_seconds(now, v["position"]) for k, v in known.items()},
        )  # fmt: skip
        yield each(
            "follower_fault", "1 if it can't go on.", {k: float(bool(v["fault"])) for k, v in workers.items()}
        )
        yield _labelled(
            CounterMetricFamily, "follower_starts", "Times that it was started.",
            ("follower",), {(kind,): facts["starts"] for kind, facts in workers.items()},
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "follower_faults", "Times that something stopped it.",
            ("follower",), {(kind,): facts["faults"] for kind, facts in workers.items()},
        )  # fmt: skip
        yield _counter(
            "index_rebuilds", "Times that the index could not be used, and was rebuilt.",
            stats["index"]["rebuilds"],
        )  # fmt: skip
        yield _gauge(
            "tree_blocked_files",
            "Paths of the tree that another file or folder occupies.",
            stats["tree"]["blocked"],
        )
        yield _gauge(
            "tree_whole",
            "0 while files that an unclean stop left torn or missing are written again.",
            float(stats["tree"]["whole"]),
        )

    def _processes(self) -> Iterator[Metric]:
        pids = {"server": os.getpid()}
        pids |= {worker.kind: worker.pid for worker in self._watched.projections if worker.pid is not None}
        memory, cpu = {}, {}
        for name, pid in pids.items():
            try:
                memory[(name,)] = memory_bytes(pid)
                cpu[(name,)] = _cpu_seconds(pid)
            except (OSError, ValueError):  # it has just ended
                continue
        yield _labelled(
            GaugeMetricFamily,
            "memory_bytes",
            "Memory (PSS, or RSS where that can't be had).",
            ("process",),
            memory,
        )
        yield _labelled(CounterMetricFamily, "cpu_seconds", "Time of processors used.", ("process",), cpu)


def _queues(stats: dict[str, Any]) -> Iterator[Metric]:
    queued, reads, outbox = stats["held"], stats["reads"], stats["outbox"]
    yield _gauge("held_requests", "Stores that wait to be written.", queued["requests"])
    yield _gauge("held_bytes", "Bytes of stores that wait to be written.", queued["bytes"])
    yield _labelled(
        GaugeMetricFamily, "reads", "Reads that wait for the index, are under way, or wait for new records.",
        ("state",), {(state,): reads[state] for state in ("waiting", "pending", "following")},
    )  # fmt: skip
    yield _gauge("parts_bytes", "What has come of values in parts.", stats["partsBytes"])
    yield _gauge("stalled_clients", "Clients that don't read their answers.", outbox["stalled"])
    yield _labelled(
        CounterMetricFamily, "answers_lost", "Answers not sent: the client did not read, or was gone.",
        ("reason",), {("dropped",): outbox["dropped"], ("gone",): outbox["gone"]},
    )  # fmt: skip
    yield _gauge("sessions", "Sessions that are remembered.", stats["sessions"])
    cursors = stats["cursors"]
    yield _gauge("cursors", "Named cursors.", cursors["count"])
    yield _gauge(
        "cursors_lag_records_max", "Records after the named cursor furthest back.", cursors["maxLagRecords"]
    )
    yield _labelled(
        GaugeMetricFamily, "cursor_lag_records", "Records after a named cursor, of the 100 furthest back.",
        ("cursor",), {(name,): lag for name, lag in cursors["lagRecords"].items()},
    )  # fmt: skip


def _replication(log: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("replication_lag_messages", "Messages of the log not applied here.", log["lagMessages"])
    yield _gauge("replication_connected", "1 if the log's servers can be reached.", float(log["connected"]))
    yield _gauge("replication_in_flight", "Messages on their way into the log.", log["inFlight"])
    yield _counter("replication_resent", "Messages sent again.", log["resent"])


def _mirror(mirror: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("mirror_lag_records", "Records that are not in the bucket.", mirror["lagRecords"] or 0)
    yield _gauge("mirror_lag_bytes", "Bytes of the journal that are not there.", mirror["lagBytes"] or 0)
    yield _gauge("mirror_lag_seconds", "Age of the oldest record not there.", mirror["lagSeconds"])
    yield _gauge("mirror_fault", "1 if the mirror can't go on.", float(bool(mirror["fault"])))
    yield _counter("mirror_faults", "Times that something stopped it.", mirror["faults"])
    yield _counter("mirror_pieces", "Objects made in the bucket.", mirror["pieces"])
    yield _counter("mirror_bytes", "Bytes of the journal in these.", mirror["bytes"])
    yield _counter("mirror_packed_bytes", "Bytes of these objects.", mirror["packedBytes"])
    yield _gauge("mirror_segments_to_replace", "Segments erased in, old in the bucket.", mirror["toReplace"])
    yield _counter("mirror_starts", "Times that its process was started.", mirror["starts"])


# --- families --------------------------------------------------------------------------------------


def _gauge(name: str, help: str, value: float) -> Metric:  # noqa: A002 - the library's word
    return GaugeMetricFamily(_PREFIX + name, help, value=value)


def _counter(name: str, help: str, value: float) -> Metric:  # noqa: A002
    return CounterMetricFamily(_PREFIX + name, help, value=value)


def _labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    help: str,  # noqa: A002
    labels: tuple[str, ...],
    values: Mapping[Any, float],
) -> Metric:
    family = kind(_PREFIX + name, help, labels=labels)
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family


def _histogram(name: str, help: str, label: str | None, parts: dict[str, Histogram]) -> Metric:  # noqa: A002
    family = HistogramMetricFamily(_PREFIX + name, help, labels=() if label is None else (label,))
    for key, histogram in parts.items():
        counts, total = list(histogram.counts), histogram.total
        buckets, running = [], 0
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(() if label is None else (key,), buckets, total)
    return family


def _sum_of(parts: Iterable[Histogram]) -> Histogram:
    first, *rest = parts
    result = Histogram(first.bounds)
    for histogram in (first, *rest):
        result.counts = [a + b for a, b in zip(result.counts, list(histogram.counts), strict=True)]
        result.total += histogram.total
    return result


# --- values from the system ------------------------------------------------------------------------


def _sizes(folder: str) -> list[int]:
    sizes = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                sizes.append(entry.stat(follow_symlinks=False).st_size)
            except FileNotFoundError:  # renamed meanwhile
                continue
    return sizes


def memory_bytes(pid: int) -> int:
    """Memory of a process in bytes: PSS, which counts its share of shared pages, or RSS where unknown."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        pass
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
