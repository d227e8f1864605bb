"""What `status` shows: one screen of 80 columns, from a `Report`. No I/O.

Text from outside, such as paths and faults, is escaped here, before it is wrapped.
"""

import textwrap
import time
from collections.abc import Iterator

from perstack_storage.protocol import escaped

from .status_report import Backup, Disk, Projection, Report, Stats

WIDTH = 80
_LABEL = 10
_GLUE = "\0"  # a space at which no line is broken; no path and no message has this character
_THOUSAND, _TENTHS_UNTIL = 1000, 100
_SPANS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_MINUTE = 60
_FREE_PARTS_MIN = 0.05
# As deploy/prometheus/alerts.yml has it.
_INDEX_LAG_SECONDS, _TREE_LAG_SECONDS = 1.0, 300.0
_GRAVE = ("STORAGE_FULL", "DAMAGED", "INTERNAL")


def lines(report: Report, now: float) -> Iterator[str]:
    """The screen below the headline, line by line.

    Args:
        report: what was found.
        now: seconds since 1970.
    """
    for label, text in _rows(report, now):
        yield from _wrapped(label, text)
    for note in report.notes:
        yield from _wrapped("note", note)


def headline(report: Report) -> list[str]:
    """Whether it is healthy, and why not: mostly one line."""
    if report.running is None and not report.healthy:
        text = f"can't tell: {report.reason}"
    elif report.running is False or report.healthy:
        text = report.reason or "healthy"
    else:
        text = f"not healthy: {report.reason}"
    return _fill(text, "", "  ")


def notes(report: Report) -> list[str]:
    """What is worth a look though requests are served, by the rules of the alerts; without line breaks."""
    return [note.replace(_GLUE, " ") for note in _notes(report)]


def _notes(report: Report) -> Iterator[str]:
    if report.disk is not None and report.disk.free_bytes < _FREE_PARTS_MIN * report.disk.total_bytes:
        yield "the disk is nearly full; without room stores are refused (STORAGE_FULL)"
    stats = report.stats
    if stats is None:
        return
    if stats.tree.fault:
        yield f"the tree can't go on: {stats.tree.fault}"
    log = stats.replication
    if log.enabled and not log.connected:
        reason = f": {log.fault}" if log.fault else ""
        yield f"no server of the replicated log can be used, so stores wait{reason}"
    elif log.fault:
        yield f"the replicated log: {log.fault}"
    for name, one, most in (
        ("index", stats.index, _INDEX_LAG_SECONDS),
        ("tree", stats.tree, _TREE_LAG_SECONDS),
    ):
        if (one.lag_seconds or 0) > most:
            yield f"the {name} is far behind"
    if stats.tree.blocked:
        yield f"{_count(stats.tree.blocked, 'file')} of the tree can't be written: the log names them"
    for code in _GRAVE:
        if stats.refused.get(code):
            yield f"{_count(stats.refused[code], 'request')} refused with {code} since the start: see the log"


def _rows(report: Report, now: float) -> Iterator[tuple[str, str]]:
    yield "base", report.base
    if report.process is not None or report.daemon is not None:
        yield "process", _process(report, now)
    if report.endpoint and report.running is not False:
        took = "" if report.answer_seconds is None else f" (answers in {report.answer_seconds * 1000:.0f} ms)"
        yield "endpoint", report.endpoint + took
    if report.stats is not None:
        yield from _of_stats(report, report.stats)
    if report.disk is not None:
        yield from _of_disk(report.disk)
    if report.backup is not None:
        yield "backup", _backup(report.backup, report, now)
    if report.stats is not None:
        yield "errors", ", ".join(_errors(report.stats)) or "none since the start"


def _process(report: Report, now: float) -> str:
    process, parts = report.process, []
    if process is not None:
        parts.append(f"{process.role or 'unknown'} {process.pid}")
    if report.daemon is not None:
        parts.append(f"version {report.daemon.version}")
    if process is not None and process.started_ms is not None:
        started = process.started_ms / 1000
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
        parts.append(f"since {clock} ({span(now - started)})")
    elif report.stats is not None:
        parts.append(f"since {span(report.stats.uptime_seconds)}")
    if process is not None and process.is_stopped:
        parts.append("stopped")
    return ", ".join(parts)


def _of_stats(report: Report, stats: Stats) -> Iterator[tuple[str, str]]:
    history = "" if report.daemon is None else f" of history {report.daemon.store[:12]}"
    yield "position", f"{stats.position:,}{history}"
    yield "index", _lag(stats.index)
    yield "tree", _lag(stats.tree)
    log = stats.replication
    if log.enabled:
        state = "connected" if log.connected else "not connected"
        yield "log", f"{state}, {_count(log.lag_messages, 'message')} to apply"
    packed = stats.journal.packed
    if packed.fault:
        yield "packing", f"stopped by: {packed.fault}"
    elif packed.segments:
        yield (
            "packed",
            f"{_count(packed.segments, 'segment')}, {size(packed.bytes)} in {size(packed.packed_bytes)}",
        )
    if stats.deletions.pending:
        held = f", held back by: {stats.deletions.fault}" if stats.deletions.fault else ""
        yield "erasing", f"{_count(stats.deletions.pending, 'deletion')} to erase{held}"
    if report.rates is not None:
        reads = "" if report.rates.reads is None else f", {_rate(report.rates.reads)} reads/s"
        yield "rates", f"{_rate(report.rates.stores)} records stored/s{reads}"
    waiting = stats.reads.waiting + stats.reads.pending
    yield (
        "under way",
        f"{_count(stats.held.requests, 'store')} ({size(stats.held.bytes)}), {_count(waiting, 'read')},"
        f" {_count(stats.reads.following, 'subscription')}",
    )
    yield (
        "clients",
        f"{_count(stats.connections.open, 'connection')} ({stats.connections.accepted:,} since the start),"
        f" {_count(stats.sessions, 'session')}",
    )


def _lag(one: Projection) -> str:
    if one.fault:
        return f"stopped by: {one.fault}"
    if one.lag_records is None:
        return "starting"
    if not one.lag_records:
        return "up to date"
    behind = [size(one.lag_bytes or 0)]
    if one.lag_seconds is not None:
        behind.append(span(one.lag_seconds))
    return f"{_count(one.lag_records, 'record')} behind ({', '.join(behind)})"


def _of_disk(disk: Disk) -> Iterator[tuple[str, str]]:
    used = 1 - disk.free_bytes / disk.total_bytes if disk.total_bytes else 0.0
    inodes = f", {disk.free_inodes:,} inodes free" if disk.free_inodes else ""
    yield (
        "disk",
        f"{size(disk.free_bytes)} free of {size(disk.total_bytes)} ({used * 100:.0f}{_GLUE}% used){inodes}",
    )
    parts = []
    if disk.journal_bytes is not None and disk.journal_files is not None:
        parts.append(f"journal {size(disk.journal_bytes)} in {_count(disk.journal_files, 'file')}")
    if disk.index_bytes is not None:
        parts.append(f"index {size(disk.index_bytes)}")
    if disk.tree_bytes is not None and disk.tree_free_bytes is not None:
        parts.append(
            f"tree {size(disk.tree_bytes)} on its own disk ({size(disk.tree_free_bytes)} free there)"
        )
    if parts:
        yield "", ", ".join(parts)


def _backup(backup: Backup, report: Report, now: float) -> str:
    text = f"{span(now - backup.time_ms / 1000)} old, up to position {backup.position:,}"
    same = report.daemon is not None and report.daemon.store == backup.store
    if same and report.stats is not None and report.stats.position >= backup.position:
        text += f" ({_count(report.stats.position - backup.position, 'record')} since)"
    return f"{text}, in {backup.path}"


def _errors(stats: Stats) -> Iterator[str]:
    """Counts since the start that are not 0."""
    if stats.refused:
        codes = ", ".join(f"{code} {count:,}" for code, count in sorted(stats.refused.items()) if count)
        if codes:
            yield f"refused: {codes}"
    connections, outbox = stats.connections, stats.outbox
    for count, what in (
        (stats.reads.failed, "failed read"),
        (stats.journal.slow_syncs, "slow sync"),
        (stats.index.faults, "fault of the index"),
        (stats.tree.faults, "fault of the tree"),
        (stats.index.starts - 1, "restart of the index"),
        (stats.tree.starts - 1, "restart of the tree"),
        (stats.index.rebuilds, "rebuild of the index"),
        (sum(connections.failed.values()), "failed handshake"),
        (sum(connections.cut.values()), "connection that was cut"),
        (sum(connections.paused.values()), "pause of accepting"),
        (outbox.dropped + outbox.gone, "lost answer"),
        (outbox.stalled, "client that reads no answers now"),
    ):
        if count > 0:
            yield _count(count, what)


def _wrapped(label: str, text: str) -> list[str]:
    """A row; what is too long goes on below."""
    return _fill(text, f"  {label:<{_LABEL}}", " " * (_LABEL + 2))


def _fill(text: str, first: str, others: str) -> list[str]:
    """Lines of 80 columns. A word is not broken, so that a path can be copied."""
    filled = textwrap.wrap(
        _GLUE.join(escaped(piece) for piece in text.split(_GLUE)),
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in filled]


# --- numbers ---------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A duration: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min, 3 d 04 h."""
    if seconds < _MINUTE:
        return f"{max(seconds, 0.0):.1f}{_GLUE}s"
    whole = round(seconds)
    for length, unit, smaller_length, smaller in _SPANS:
        if whole >= length:
            parts = (f"{whole // length}", unit, f"{whole % length // smaller_length:02d}", smaller)
            return _GLUE.join(parts)
    return f"{whole}{_GLUE}s"


def size(count: int) -> str:
    """A number of bytes: 12 B, 3.9 KB, 1.2 MB."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < _THOUSAND:
            break
        value, unit = value / _THOUSAND, larger
    digits = 0 if unit == "B" or value >= _TENTHS_UNTIL else 1
    return f"{value:.{digits}f}{_GLUE}{unit}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= _TENTHS_UNTIL else f"{value:g}"


_PLURALS = {
    "fault of the index": "faults of the index",
    "fault of the tree": "faults of the tree",
    "restart of the index": "restarts of the index",
    "restart of the tree": "restarts of the tree",
    "rebuild of the index": "rebuilds of the index",
    "connection that was cut": "connections that were cut",
    "pause of accepting": "pauses of accepting",
    "client that reads no answers now": "clients that read no answers now",
}


def _count(number: int, what: str) -> str:
    """A number with its noun: 1 record, 2 records."""
    return f"{number:,}{_GLUE}{what if number == 1 else _PLURALS.get(what, what + 's')}"
