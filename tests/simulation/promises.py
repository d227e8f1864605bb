"""The promises about a journal, checked against all that clients sent, were answered, and were shown."""

import json
from typing import Any

from perstack_stored.journal.clock import CLOCK_STEP_MS
from tests.simulation.clients import Ledger, Violation
from tests.simulation.expected import DELETION, EVENT, GAP, IMPORTED, JOB, SETTING, Stored
from tests.simulation.workload import KINDS, Value, job_of, op_of


def check_records(records: list[Stored], ledger: Ledger) -> None:
    """Acknowledged, whole, once, in order, all or nothing, nothing invented, nothing taken back.

    Raises:
        Violation: a promise was broken.
    """
    _check_row(records, ledger)
    _check_sent(records, ledger)
    _check_atomic(records, ledger)
    _check_expected(records, ledger)
    _check_kept(records, ledger)
    _check_deleted(records)
    _check_retired(records, ledger)


def _check_row(records: list[Stored], ledger: Ledger) -> None:
    time_ms = 0
    for i, stored in enumerate(records):
        if stored.position != i + 1:
            raise Violation(f"position {stored.position} stands where {i + 1} is due")
        # A start, and the stop before it, write entries without records: the clock may have been put back
        # far by then, and forward since.
        if 0 < time_ms - stored.time_ms <= CLOCK_STEP_MS and i not in ledger.starts:
            raise Violation(f"the time of position {stored.position} is before that of the one before")
        time_ms = stored.time_ms


def _check_sent(records: list[Stored], ledger: Ledger) -> None:
    last_seq: dict[bytes, int] = {}
    imported: set[bytes] = set()
    for stored in records:
        position = stored.position
        value = Value(op_of(stored.kind, stored.payload), stored.payload)
        if stored.flags & IMPORTED:
            if stored.payload in imported or stored.payload not in ledger.imported:
                raise Violation(f"position {position} was imported twice, or was in no file")
            imported.add(stored.payload)
        elif stored.seq:
            if ledger.sent.get((stored.session, stored.seq)) != value:
                raise Violation(f"position {position} holds what was never sent as number {stored.seq}")
            if stored.seq <= last_seq.get(stored.session, 0):
                raise Violation(f"number {stored.seq} of a session is there twice, or too late: {position}")
            last_seq[stored.session] = stored.seq
        elif value not in ledger.loose and not _is_retired(stored):
            raise Violation(f"position {position} holds what was never sent")


def _check_atomic(records: list[Stored], ledger: Ledger) -> None:
    numbers = {(stored.session, stored.seq): stored.position for stored in records if stored.seq}
    for (session, seq), (count, is_refused) in ledger.atomic.items():
        found = [numbers[session, seq + i] for i in range(count) if (session, seq + i) in numbers]
        if found and (is_refused or found != list(range(found[0], found[0] + count))):
            raise Violation(f"of the {count} stores of an atomic batch these positions are there: {found}")


def _check_expected(records: list[Stored], ledger: Ledger) -> None:
    """What was stored found what it expected; what did not find it is not there."""
    by_job: dict[str, list[Stored]] = {}
    for stored in records:
        number = stored.session, stored.seq
        if number in ledger.conflicts:
            raise Violation(f"position {stored.position} holds what was refused as a conflict")
        value = json.loads(stored.payload)
        of_job = by_job.setdefault(value["id"] if stored.kind == JOB else value["jobId"], [])
        if number in ledger.expected:
            job, position = ledger.expected[number]
            others = [s for s in by_job.get(job, []) if s.position > position and s.session != stored.session]
            if others:
                raise Violation(
                    f"position {stored.position} expected no other store for {job} after {position}, but"
                    f" {others[0].position} is one"
                )
        of_job.append(stored)


def _check_kept(records: list[Stored], ledger: Ledger) -> None:
    for position, value in ledger.acknowledged.items():
        if position > len(records):
            raise Violation(f"position {position} was acknowledged and is lost")
        found = records[position - 1]
        if (found.kind, found.payload) != (KINDS[value.op], value.payload):
            raise Violation(f"position {position} was acknowledged with another value")
    for (session, seq), position in ledger.numbers.items():
        found = records[position - 1]
        if (found.session, found.seq) != (session, seq):
            raise Violation(f"position {position} belongs to another store than was said")
    for position, stored in ledger.seen.items():
        if position > len(records) or records[position - 1] != stored:
            raise Violation(f"position {position} was shown to a reader and is lost or changed")


def _check_deleted(records: list[Stored]) -> None:
    """No session stores to what was deleted after it began."""
    begun: dict[bytes, int] = {}
    deleted: dict[tuple[str, str | None], int] = {}
    for stored in records:
        found = json.loads(stored.payload)
        if stored.seq:
            begun.setdefault(stored.session, stored.position)
        if stored.kind == DELETION and "setting" not in found:
            deleted[found["jobId"], found.get("runId")] = stored.position
        elif stored.seq:
            job = job_of(Value(op_of(stored.kind, stored.payload), stored.payload))
            last = max(deleted.get((job, None), 0), deleted.get((job, found.get("runId")), 0))
            if last > begun[stored.session]:
                raise Violation(f"position {stored.position} brings back what was deleted at {last}")


def _is_retired(stored: Stored) -> bool:
    """Whether retention has stored a record."""
    return stored.kind == DELETION and "why" in json.loads(stored.payload)


def _check_retired(records: list[Stored], ledger: Ledger) -> None:
    """Retention deletes jobs that have ended, that were kept for long enough, and that nobody stores to."""
    alive: dict[str, list[Stored]] = {}
    most = [0]  # jobs up to each position: how many there were at the same time
    for stored in records:
        value = json.loads(stored.payload)
        job = value["id"] if stored.kind == JOB else value["jobId"]
        is_deletion = stored.kind == DELETION and "setting" not in value
        if is_deletion and _is_retired(stored):
            _check_one_retired(stored, alive.get(job, []), most, ledger)
        if is_deletion and "runId" not in value:
            alive.pop(job, None)
        elif not is_deletion and not _is_repeat(stored, alive.get(job, [])):
            alive.setdefault(job, []).append(stored)
        most.append(max(most[-1], len(alive)))


def _is_repeat(stored: Stored, of_job: list[Stored]) -> bool:
    """Whether an event was stored before: such a repeat makes no job newer."""
    return stored.kind == EVENT and any((one.kind, one.payload) == (EVENT, stored.payload) for one in of_job)


def _check_one_retired(stored: Stored, of_job: list[Stored], most: list[int], ledger: Ledger) -> None:
    value = json.loads(stored.payload)
    versions = [json.loads(one.payload) for one in of_job if one.kind == JOB]
    if not versions or versions[-1]["status"] != "completed":
        raise Violation(f"position {stored.position} deletes a job that has not ended: {value}")
    newest = max(of_job, key=lambda one: one.position)
    for noted in ledger.retired:
        if noted.payload != stored.payload or not newest.position <= noted.looked_at < stored.position:
            continue
        if value["why"] == "age" and newest.time_ms <= noted.aged_ms:
            return
        if value["why"] == "jobs" and 0 < noted.jobs < most[noted.looked_at]:
            return
    raise Violation(f"position {stored.position} deletes too soon: {value}, last record {newest.position}")


def as_seen(stored: Stored, ledger: Ledger) -> Stored:
    """A record as it was before it was erased: somebody must have been shown it.

    Raises:
        Violation: nobody was, or more than its value has changed.
    """
    if stored.kind != GAP:
        return stored
    seen = ledger.seen.get(stored.position)
    if seen is None:
        raise Violation(f"position {stored.position} was erased before anybody was shown it")
    changed = seen._replace(kind=GAP, flags=0, payload=stored.payload)
    if changed != stored or len(seen.payload) != len(stored.payload):
        raise Violation(f"position {stored.position} was erased, and more of it has changed")
    return seen


def check_erased(records: list[Stored], ledger: Ledger) -> None:
    """What was erased had been deleted, by the deletion that it names.

    Raises:
        Violation: something else was erased.
    """
    for stored in records:
        if stored.kind != GAP:
            continue
        seen, by = ledger.seen[stored.position], json.loads(stored.payload)["removed"]
        if by <= stored.position or by > len(records):
            raise Violation(f"position {stored.position} was erased by what stands at {by}")
        # A redaction that removed something may be erased itself later.
        if not removes(json.loads(as_seen(records[by - 1], ledger).payload), seen):
            raise Violation(f"position {stored.position} was erased, and {by} does not delete it")


def removed_records(records: list[Stored]) -> list[Stored]:
    """Records that are there, and were deleted."""
    found = [(stored.position, json.loads(stored.payload)) for stored in records if stored.kind == DELETION]
    return [
        stored
        for stored in records
        if stored.kind != GAP
        and any(position > stored.position and removes(by, stored) for position, by in found)
    ]


def removes(deletion: dict[str, Any], stored: Stored) -> bool:
    """Whether a deletion removes a record that stands before it."""
    value = json.loads(stored.payload)
    is_setting = stored.kind == SETTING or "setting" in value
    if (stored.kind == DELETION or "setting" in deletion) and not is_setting:
        return False
    if value["id" if stored.kind == JOB else "jobId"] != deletion["jobId"]:
        return False
    return "runId" not in deletion or value.get("runId") == deletion["runId"]
