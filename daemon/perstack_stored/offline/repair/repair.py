"""`repair`: restores a damaged journal, with gaps for records without evidence.

It writes only the journal, and sets the index aside, whose addresses are wrong afterwards. The tree does not
change: `check` names its files of lost records, and `rebuild` writes what the journal has.
"""

import tempfile
import uuid

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import DataDir
from perstack_stored.datadir.pending_repair import is_unfinished
from perstack_stored.errors import ConfigError
from perstack_stored.model import gaps
from perstack_stored.model.gaps import GapRange
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import keeping_sessions, progress
from perstack_stored.protocol.frames import STORE_OPS
from perstack_stored.tree.cursor import cursor_store, load_cursor

from .evidence import IndexEvidence, Known
from .fill import GapFiller
from .pieces import Segment
from .rewrite import SegmentRewriter, sessions_before
from .survey import DamageSurvey
from .swap import Done, carry_out, commit, prepare

FINDINGS = {
    "record_gone": "record lost: no valid copy in index, tree or journal; its position is now a gap",
    "records_gone": "records lost, of which nothing is known; their positions are now gaps",
    "older_gone": "lost values that were replaced later, or settings that were stored again",
}
NOTES = {
    "journal_damage": "what was found damaged",
    "record_restored": "record restored at its position, by the checksum in the index or of its entry",
    "repeat_gone": "an event that repeated an earlier one; nothing is lost with it",
    "index_not_usable": "the index could not be used as evidence",
    "repair_finished": "a repair that was interrupted was completed",
}


def repair(base: DataDir, report: Report, *, dry_run: bool) -> Done | None:
    """Repair the journal of a locked base; returns None if nothing was written.

    Args:
        base: the base.
        report: takes damage, restored records, and lost ones.
        dry_run: only report.

    Raises:
        NewerFormatError: a newer version wrote the journal; nothing was changed.
        ConfigError: it can't be repaired.
        OSError: a file can't be read or written; the next run begins again or goes on.
    """
    finished = None
    if is_unfinished(base.files, base.folders.stored):
        if dry_run:
            raise ConfigError("a repair was interrupted; run it without --dry-run to complete it")
        finished = carry_out(base.files, base.folders)
        report.add("repair_finished", segments=", ".join(finished.segments), kept_in=finished.kept_in)
    survey = DamageSurvey(base.files, base.folders.journal)
    try:
        with tempfile.TemporaryDirectory(prefix="perstack-stored-repair-") as scratch:
            return _Repair(base, report, survey, scratch).run(dry_run=dry_run) or finished
    finally:
        survey.close()


class _ReportedCounts:
    """Reports the result for each position, and remembers lost ones."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._pending: GapRange | None = None
        self._pending_name = ""
        self.lost: list[GapRange] = []
        self.restored_records = 0
        self.gone_records = 0

    def restored(self, position: int, known: Known, kind: int, source: str) -> None:
        """Report a restored record."""
        self.flush()
        if kind == Kind.GAP:
            return
        self.restored_records += 1
        op = STORE_OPS.get(kind, "delete")
        self._report.add(
            "record_restored", position=position, op=op, file="/".join(known.path) or None, source=source
        )

    def gone(self, position: int, known: Known) -> None:
        """Report a lost record."""
        gap = known.gap
        gaps.add(self.lost, position)
        self.gone_records += 1
        if known.kind:
            self.flush()
            self._report.add("record_gone", position=position, op=gap.op, file="/".join(known.path))
            return
        name = "repeat_gone" if gap.isRepeat else "older_gone" if gap.isOlder else "records_gone"
        if self._pending is None or name != self._pending_name or self._pending.last != position - 1:
            self.flush()
            self._pending, self._pending_name = GapRange(position, position), name
        self._pending = self._pending._replace(last=position)

    def flush(self) -> None:
        """Report a range that has ended."""
        if self._pending is not None:
            self._report.add(self._pending_name, first=self._pending.first, last=self._pending.last)
            self._pending = None


class _Repair:
    """One repair, from the survey on."""

    def __init__(self, base: DataDir, report: Report, survey: DamageSurvey, scratch: str) -> None:
        self._base = base
        self._report = report
        self._survey = survey
        self._scratch = scratch
        self._counts = _ReportedCounts(report)

    def run(self, *, dry_run: bool) -> Done | None:
        files, folders = self._base.files, self._base.folders
        store = self._survey.store or cursor_store(files, folders.stored) or uuid.uuid4().bytes
        vouchers = IndexEvidence(self._base, store, self._scratch)
        known_position = max(load_cursor(files, folders.stored, store).position, vouchers.position)
        with progress("journal (segments)", len(self._survey.segments)) as advance:
            for segment in self._survey.find_holes(known_position):
                self._report_damage(segment)
                advance(1)
        damaged = [segment for segment in self._survey.segments if segment.is_damaged]
        self._report.compared["segments"] = len(self._survey.segments)
        self._report.compared["records"] = self._survey.position
        if not damaged:
            vouchers.close()
            return None
        vouchers.look_up([hole for segment in damaged for hole in segment.holes])
        if vouchers.reason:
            self._report.add("index_not_usable", reason=vouchers.reason)
        filler = GapFiller(self._survey, vouchers, self._counts)
        done = None
        if dry_run:
            self._write(SegmentRewriter(files, None, self._survey, filler, store))
        else:
            folder = prepare(files, folders.stored)
            names = self._write(SegmentRewriter(files, folder, self._survey, filler, store))
            done = commit(files, folders, folder, names)
            files.close(folder)
        vouchers.close()
        self._report.compared |= {
            "restored": self._counts.restored_records,
            "gone": self._counts.gone_records,
        }
        return done

    def _report_damage(self, segment: Segment) -> None:
        holes = {(hole.start, hole.reason): hole for hole in segment.holes}
        if segment.header is None and not any(reason == segment.reason for _, reason in holes):
            self._report.add("journal_damage", segment=segment.name, offset=0, reason=segment.reason)
        elif segment.bad_packing is not None and not segment.holes:
            reason = segment.bad_packing.reason
            self._report.add("journal_damage", segment=segment.name, offset=0, reason=reason)
        for hole in segment.holes:
            position = hole.first if hole.first <= hole.last else None
            self._report.add(
                "journal_damage",
                segment=segment.name,
                offset=hole.start,
                position=position,
                reason=hole.reason,
            )

    def _write(self, writer: SegmentRewriter) -> list[str]:
        """Rewrite the segments that need it; return their names."""
        survey, lost = self._survey, self._counts.lost
        names = []
        previous_end = 0
        for segment in survey.segments:
            is_last = segment.number == len(survey.segments)
            # A segment with an unproven end is rewritten, and so synced.
            is_rewritten = segment.is_damaged or not (is_last or survey.segments[segment.number].header)
            sessions = keeping_sessions(Settings())
            if is_rewritten or is_last:
                sessions_before(survey, segment, sessions)
                holes = [GapRange(hole.first, hole.last) for hole in segment.holes if hole.first <= hole.last]
                # Holes are forgotten even if filled: a restored entry carries its session again.
                is_rewritten |= sessions.forget_positions(lost + holes)
            if is_rewritten:
                previous_end = writer.rewrite(segment, previous_end, sessions)
                names.append(segment.name)
                self._counts.flush()
                continue
            assert segment.header is not None
            if segment.header.previous_end != previous_end:
                writer.with_end_before(segment, previous_end)
                names.append(segment.name)
            previous_end = segment.end
        return names
