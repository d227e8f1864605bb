"""The judge of a campaign: compares what was acknowledged with all records of each daemon.

It reads page by page, from daemons that run or from bases of a campaign that was cut off, and knows nothing
of sessions and servers.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import Raw

from .answers import Answers

_EXAMPLES_MAX = 10
_PAGE_RECORDS = 500


class Stored(NamedTuple):
    """A record: its position, its value's id, and all of it in one form."""

    position: int
    id: str
    whole: str


@dataclass
class Verdict:
    """What was found.

    Attributes:
        records: of the daemon that has most.
        lost: stores that were acknowledged, and are not there at that position.
        doubled: stores that stand there more than once.
        reordered: stores that stand after a later one of the same writer.
        unasked: stores that stand there, and were refused or, if all were answered, never acknowledged.
        unequal: positions at which daemons differ.
        examples: the first of each, in words.
    """

    records: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    unasked: int = 0
    unequal: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.reordered or self.unasked or self.unequal)

    def note(self, what: str, example: str) -> None:
        """Count a fault."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(f"{what}: {example}")


def of_daemon(raw: Raw, acked: int) -> Iterator[Stored]:
    """All records of a daemon, up to `acked`, the newest that any daemon has acknowledged, at least."""
    answer = raw.ask("getEvent", {"position": acked}, atLeast=acked)
    assert answer.header["ok"] or not acked, answer.header
    after = 0
    while True:
        page, next_after = raw.page(after, _PAGE_RECORDS)
        for record in page:
            text = json.dumps(record, sort_keys=True)
            yield Stored(record["position"], str(record["value"].get("id")), text)
        if next_after == after:
            return
        after = next_after


def of_base(base: Path) -> Iterator[Stored]:
    """All records of a base that is not served."""
    dump = subprocess.Popen(
        [sys.executable, "-m", "perstack_stored", "dump", "--base-path", str(base), "--show-secrets"],
        stdout=subprocess.PIPE,
    )
    with dump:
        assert dump.stdout is not None
        for line in dump.stdout:
            record = json.loads(line)
            yield Stored(record["position"], str(record["value"].get("id")), line.decode())
    assert dump.returncode == 0, f"dump of {base} ended with status {dump.returncode}"


def compare(answers: Sequence[Answers], logs: Sequence[Iterable[Stored]], *, is_whole: bool) -> Verdict:
    """Judge the answers by the records of all daemons.

    Args:
        answers: of all writers.
        logs: records of each daemon.
        is_whole: all stores were answered, and all daemons have all; else daemons may lack the end.
    """
    verdict = Verdict()
    writers = {one.name: one for one in answers}
    last = dict.fromkeys(writers, 0)
    there: dict[str, set[int]] = {name: set() for name in writers}
    for expected, found in enumerate(zip_longest(*logs), 1):
        present = [one for one in found if one is not None]
        record = present[0]
        verdict.records += 1
        if len(set(present)) > 1 or (is_whole and len(present) < len(found)):
            verdict.note("unequal", f"position {expected}: {[one and one.whole[:200] for one in found]}")
        if record.position != expected:
            verdict.note("unequal", f"position {record.position} stands where {expected} belongs")
        name, _, number = record.id.rpartition("-")
        if name not in writers:
            continue
        seq, writer = int(number), writers[name]
        if seq in there[name]:
            verdict.note("doubled", f"{record.id} again at {record.position}")
        elif seq < last[name]:
            verdict.note("reordered", f"{record.id} after {last[name]}")
        last[name] = max(last[name], seq)
        there[name].add(seq)
        acked = writer.acked.get(seq)
        if acked is not None and acked != record.position:
            verdict.note("lost", f"{record.id} was acknowledged at {acked} and is at {record.position}")
        elif seq in writer.refused or (is_whole and acked is None):
            verdict.note("unasked", f"{record.id} at {record.position}")
    for name, writer in writers.items():
        _find_lost(verdict, writer, there[name])
    return verdict


def _find_lost(verdict: Verdict, writer: Answers, there: set[int]) -> None:
    """Count stores that were acknowledged and are nowhere, or refused though nothing was wrong with them."""
    for seq in writer.acked.keys() - there:
        verdict.note("lost", f"{writer.name}-{seq}, acknowledged at {writer.acked[seq]}")
    for seq, code in writer.refused.items():
        if code != "BAD_VALUE":
            verdict.note("lost", f"{writer.name}-{seq} was refused: {code}")


def judge(answers: Sequence[Answers], daemons: Sequence[RunningDaemon]) -> Verdict:
    """Judge a campaign whose stores were all answered, by what its daemons answer."""
    acked = max((one.newest for one in answers), default=0)
    with ExitStack() as stack:
        raws = [stack.enter_context(Raw(daemon.endpoint)) for daemon in daemons]
        return compare(answers, [of_daemon(raw, acked) for raw in raws], is_whole=True)
