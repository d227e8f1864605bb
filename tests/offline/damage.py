"""Damage at thousands of places of a base: each must be found and named, and nothing else may come of it.

    python -m tests.offline.damage --places 5000 --seed 7

A base is made once, damaged at one place at a time, started and asked, checked, and repaired: one that was
stopped in order, and one that was killed with a torn tail. A fault is reported with the seed of its place.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import INDEX_NAME, DataDir, open_folders
from perstack_stored.errors import ConfigError, DamageError, LostEndError, Refusal, StoredError
from perstack_stored.index.connection import connect
from perstack_stored.index.writer import IndexWriter
from perstack_stored.journal.entry_format import NO_SESSION, SEGMENT_HEADER_BYTES, Record, padded
from perstack_stored.journal.options import JournalOptions
from perstack_stored.journal.reader import JournalReader, LogPosition
from perstack_stored.journal.segment_walk import walk
from perstack_stored.journal.writer import Append, JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.locked import keeping_sessions, slices
from perstack_stored.protocol.frames import STORE_KINDS
from perstack_stored.tree.cursor import Cursor, save_cursor
from perstack_stored.tree.writer import TreeWriter
from tests.crash.progress import Figures, Progress, add
from tests.helpers.daemon import captured_run, under_other_job
from tests.helpers.datadir import dumps
from tests.offline.bases import one_of_each
from tests.offline.inprocess import Checked, EndingFiles, Repaired, Started

_RECORDS_OF_A_RUN = 60
_BATCH = 7
_TORN_BYTES = 700
_CHECKPOINT_EVERY = 40
_TELL_SECONDS = 5
_PLACES_A_BASE = 50


class Made(NamedTuple):
    """A base to be damaged, and what is true of it."""

    path: Path
    answers: dict[str, list[Any]]
    proven: dict[str, int]  # of each segment: all before this offset was on disk
    padding: dict[str, frozenset[int]]  # of each segment: the offsets that no checksum covers
    position: int  # up to here all is on disk
    is_clean: bool


class Place(NamedTuple):
    """A damage: a file of the base, an offset, and what is done there."""

    file: str
    offset: int
    how: str

    def __str__(self) -> str:
        return f"{self.how} {self.file} at {self.offset}"


HOWS = ("flip", "zero", "noise", "cut")


# --- a base ----------------------------------------------------------------------------------------


def _calls() -> list[tuple[str, bytes]]:
    """Runs as they were captured, and one of each thing that is special."""
    calls = list(one_of_each())
    for name in "abc":
        run = captured_run(name)[:_RECORDS_OF_A_RUN]
        calls += [(op, dumps(under_other_job(value, f"job-{name}"))) for op, value in run]
    return calls


def make(path: Path, *, clean: bool) -> Made:
    """Make a base of several segments, of two sessions and none, that was stopped in order, or not."""
    (path / ".stored/journal").mkdir(parents=True)
    (path / ".stored/lock").write_bytes(b'{"pid": 4194305, "role": "daemon"}\n')
    files = EndingFiles()
    folders = open_folders(files, str(path))
    batches = list(_batches(_calls()))
    third = len(batches) // 3
    proven: dict[str, int] = {}
    journal = _open(files, folders.journal)
    save_cursor(files, folders.stored, journal.store, Cursor(0, clean=True))
    for number, batch in enumerate(batches):
        if number and number % third == 0 and number < 3 * third:
            files.close(journal._fd)  # as if it had been killed
            journal = _open(files, folders.journal)
        journal.append(batch)
    reader = JournalReader(files, folders.journal)
    path_of_index = str(path / ".stored" / INDEX_NAME)
    following = IndexWriter(path_of_index, reader, journal.store)
    for number, entry in enumerate(list(reader.entries(following.place, journal.mark))):
        following.apply([entry])
        if number % _CHECKPOINT_EVERY == 0:
            following.checkpoint()  # so that there is something in the file, and in the log
    database = connect(path_of_index, read_only=True)
    tree = TreeWriter(DataDir(str(path), files, folders), database, reader, journal.store)
    for portion in slices(reader.entries(reader.start(), journal.mark)):
        tree.apply(portion)
    tree.sync(clean=True)
    tree.close()
    mark = journal.mark
    database.close()
    if clean:
        following.close()
        journal.close()
    else:
        _tear(files, journal)
        _freeze_index(path)
        following.close()
        _thaw_index(path)
    proven = {p.name: _proven(reader, p.name, mark, clean=clean) for p in _segments(path)}
    padding = {name: _padding(files, reader, name, end) for name, end in proven.items()}
    files.end()
    os.close(folders.base)
    answers = Started(_copy(path, path.parent / f"{path.name}-whole")).answers
    return Made(path, answers, proven, padding, mark.position, clean)


def _open(files: FileSystem, journal_dir: int) -> JournalWriter:
    return JournalWriter(
        files,
        journal_dir,
        keeping_sessions(Settings()),
        JournalOptions(1 << 20, 64 << 10, ahead=False),
    )


def _batches(calls: list[tuple[str, bytes]]) -> Iterator[list[Append]]:
    """Batches of one to seven frames, alternately of two sessions and of none."""
    pick = random.Random(5)
    sessions = {bytes([n]) * 16: 0 for n in (1, 2)}
    rest = [Record(STORE_KINDS[op], 0, value) for op, value in calls]
    while rest:
        batch = []
        for _ in range(pick.randint(1, _BATCH)):
            count = pick.randint(1, 4)
            records, rest = rest[:count], rest[count:]
            session = pick.choice([*sessions, NO_SESSION])
            seq = 0
            if session != NO_SESSION:
                seq = sessions[session] + 1
                sessions[session] += len(records)
            if records:
                batch.append(Append(session, seq, records))
        if batch:
            yield batch


def _tear(files: FileSystem, journal: JournalWriter) -> None:
    """A last batch that was not acknowledged: whole, torn, and whole again."""
    records = [Record(Kind.EVENT, 0, dumps(_late(n))) for n in range(6)]
    journal.write([Append(NO_SESSION, 0, [item]) for item in records])
    end = journal.written.offset
    os.pwrite(journal._fd, os.urandom(_TORN_BYTES), end - _TORN_BYTES)
    files.close(journal._fd)


def _late(n: int) -> dict[str, Any]:
    event = {"type": "startRun", "id": f"late-{n}", "expertKey": "me", "timestamp": 1800000000000 + n}
    return {**event, "jobId": "late", "runId": "late", "stepNumber": 0, "text": "x" * 200}


def _freeze_index(base: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-sums"):
        path = base / ".stored" / (INDEX_NAME + suffix)
        if path.exists():
            shutil.copy(path, path.with_name(path.name + ".frozen"))


def _thaw_index(base: Path) -> None:
    """The index as it was while it was open: with what had not come from its log."""
    for path in (base / ".stored").glob("*.frozen"):
        path.rename(path.with_name(path.name.removesuffix(".frozen")))


def _segments(base: Path) -> list[Path]:
    return sorted((base / ".stored/journal").glob("*.segment"))


def _proven(reader: JournalReader, name: str, mark: LogPosition, *, clean: bool) -> int:
    number = int(name.split(".", maxsplit=1)[0])
    reader.chain.refresh()
    end = reader.chain.end_of(number)
    if end is not None:
        return end
    return mark.offset + (64 if clean else 0)


def _padding(files: FileSystem, reader: JournalReader, name: str, end: int) -> frozenset[int]:
    """Offsets between the entries of a segment: an entry begins at a multiple of eight."""
    number = int(name.split(".", maxsplit=1)[0])
    found: set[int] = set()
    for entry in walk(reader.chain.file(number), SEGMENT_HEADER_BYTES, end):
        length = entry.header.length
        found.update(range(entry.offset + length, entry.offset + padded(length)))
    return frozenset(found)


def _copy(base: Path, target: Path) -> Path:
    """A copy to be damaged. Files of the tree are never written to, so a second name will do."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base / ".stored", target / ".stored")
    shutil.copytree(base / "jobs", target / "jobs", copy_function=os.link)
    return target


# --- places ----------------------------------------------------------------------------------------


def places(made: Made, count: int, pick: random.Random) -> list[Place]:
    """Places of all kinds: half of them in the journal, the rest in all else."""
    journal = [f".stored/journal/{path.name}" for path in _segments(made.path)]
    small = [".stored/tree.cursor", ".stored/lock"]
    indexes = [f".stored/{p.name}" for p in (made.path / ".stored").glob("index.sqlite*")]
    tree = [str(p.relative_to(made.path)) for p in sorted((made.path / "jobs").rglob("*.json"))]
    found = []
    for _ in range(count):
        name = pick.choice(pick.choices([journal, small, indexes, tree], [50, 6, 24, 20])[0])
        size = max(1, _used(made, name))
        how = pick.choices(HOWS, [60, 10, 15, 15])[0]
        # The headers are small and hit too seldom by chance.
        within = 200 if pick.random() < 0.15 else size
        found.append(Place(name, pick.randrange(min(size, within)), how))
    return found


def _used(made: Made, name: str) -> int:
    """Size of a file, without the zeros that a segment has in store."""
    data = (made.path / name).read_bytes()
    return len(data.rstrip(b"\0")) + 64 if name.endswith(".segment") else len(data)


def damage(base: Path, place: Place, pick: random.Random) -> bool:
    """Damage a copy; whether anything is different now."""
    path = base / place.file
    before = path.read_bytes()
    data = bytearray(before)
    if place.how == "cut":
        del data[place.offset :]
    elif place.offset < len(data):
        if place.how == "flip":
            data[place.offset] ^= 1 << pick.randrange(8)
        else:
            start = place.offset // 512 * 512 if place.how == "zero" else place.offset
            length = min(512, len(data) - start)
            data[start : start + length] = bytes(length) if place.how == "zero" else pick.randbytes(length)
    path.unlink()  # it may be a second name
    path.write_bytes(data)
    return bytes(data).rstrip(b"\0") != before.rstrip(b"\0") or (
        len(data) != len(before) and not place.file.endswith(".segment")
    )


# --- what may come of it ---------------------------------------------------------------------------


class WrongError(Exception):
    """A damage had an effect that it must not have."""


def _expect(condition: object, what: str) -> None:
    if not condition:
        raise WrongError(what)


def _untimed(answers: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Answers without the times of records, which a repair may not know."""
    untimed = [{**item, "time": 0} for item in answers["readAll"]]
    return {**answers, "readAll": untimed}


class Trial:
    """One damage of one base, judged."""

    def __init__(self, made: Made, place: Place, folder: Path, seed: int) -> None:
        self._made = made
        self._place = place
        self._base = _copy(made.path, folder / "trial")
        self.changed = damage(self._base, place, random.Random(seed))
        before, after = ((base / place.file).read_bytes() for base in (made.path, self._base))
        padding = made.padding.get(Path(place.file).name, frozenset())
        changed = (n for n, (a, b) in enumerate(zip_longest(before, after)) if a != b and n not in padding)
        # Noise may leave the first bytes as they were, or begin in what belongs to no entry; a cut may take
        # zeros only.
        self._first = next(changed, len(before))

    def run(self) -> str:
        """What came of it, in a word.

        Raises:
            WrongError: something that must not be.
        """
        if self._place.file.startswith("jobs/"):
            return self._tree()
        checked = Checked(_copy(self._base, self._base.with_name("checked")))
        started = self._start(self._base.with_name("checked"))
        if isinstance(started, Started) and not self._is_proven_journal():
            return self._compare(started)
        _expect(self.changed, f"nothing was changed, and yet: {started}")
        if isinstance(started, Started):
            # Nobody reads the sessions of an older segment: it is up to check.
            _expect(started.answers == self._made.answers, "an answer changed")
        self._named(started, checked)
        return self._repair(started)

    def _start(self, base: Path) -> Started | StoredError:
        try:
            return Started(base)
        except (StoredError, Refusal) as error:
            return error

    def _is_proven_journal(self) -> bool:
        name = Path(self._place.file).name
        return self.changed and name in self._made.proven and self._first < self._made.proven[name]

    def _compare(self, started: Started) -> str:
        if started.answers == self._made.answers:
            return "no effect"
        _expect(not self._made.is_clean, "an answer changed")
        kept = [item for item in self._made.answers["readAll"] if item["position"] <= started.mark.position]
        _expect(started.mark.position >= self._made.position, "an acknowledged record was cut")
        _expect(started.answers["readAll"] == kept, "more than the torn tail was cut")
        return "torn tail cut"

    def _named(self, error: Started | StoredError, checked: Checked) -> None:
        name = Path(self._place.file).name
        if isinstance(error, DamageError):
            _expect(error.segment in str(error) and str(error.offset) in str(error), "the place is not named")
        _expect(
            isinstance(error, (Started, DamageError, LostEndError, Refusal)) or "version" in str(error),
            f"a start fails for another reason: {error}",
        )
        _expect(checked.findings, f"check finds nothing, but a start fails: {error}")
        if self._is_proven_journal():
            places = [facts for found, facts in checked.lines if found == "journal_damage"]
            named = any(facts["segment"] == name and facts["offset"] <= self._first for facts in places)
            is_end = checked.findings & {"index_ahead", "tree_ahead"} and self._place.how != "flip"
            # Of a header that is damaged, the end of the segment before may be all that is reported.
            _expect(named or is_end, f"check names another place: {checked.lines[:3]}")

    def _repair(self, error: Started | StoredError) -> str:
        base = self._base
        try:
            done = Repaired(base)
        except ConfigError as refused:
            _expect(not self._made.is_clean or "store" in str(refused), f"repair refuses: {refused}")
            raise WrongError(f"repair refuses: {refused}") from None
        _expect(done.damage, f"repair finds nothing, but a start failed: {error}")
        _expect(Repaired(base, dry_run=True).lines == [], "a second repair finds something")
        started = self._start(base)
        _expect(isinstance(started, Started), f"a start fails behind the repair: {started}")
        assert isinstance(started, Started)
        there = {item["position"]: (item["op"], item["value"]) for item in started.answers["readAll"]}
        for item in self._made.answers["readAll"]:
            position = item["position"]
            if position in there:
                _expect(
                    there[position] == (item["op"], item["value"]), f"position {position} is another record"
                )
            elif position <= self._made.position:
                _expect(position in done.gone, f"position {position} is gone and not named")
        unknown = set(there) - {item["position"] for item in self._made.answers["readAll"]}
        _expect(not unknown, f"positions {unknown} came out of nothing")
        _expect(started.mark.position >= self._made.position, "positions will be given out again")
        if not done.gone and self._made.is_clean:
            _expect(
                _untimed(started.answers) == _untimed(self._made.answers),
                "an answer changed, and nothing is named",
            )
        checked = Checked(base)
        allowed = {"tree_wrong_content", "tree_missing_file"} if done.gone else set()
        _expect(checked.findings <= allowed, f"check finds {checked.lines[:3]} behind the repair")
        return "repaired, records gone" if done.gone else "repaired whole"

    def _tree(self) -> str:
        """A file of the tree: answers don't change, check names it, a rebuild writes it."""
        started = self._start(_copy(self._base, self._base.with_name("checked")))
        _expect(isinstance(started, Started) and started.answers == self._made.answers, "an answer changed")
        if not self.changed:
            return "no effect"
        checked = Checked(self._base)
        named = ("tree_wrong_content", self._place.file) in {(n, f.get("path")) for n, f in checked.lines}
        _expect(named, f"check does not name the file: {checked.lines[:3]}")
        return "named by check"


def run(made: Made, place: Place, folder: Path, seed: int) -> str:
    """Try one place.

    Raises:
        WrongError: something came of it that must not; also for any error that nobody expects.
    """
    try:
        return Trial(made, place, folder, seed).run()
    except WrongError:
        raise
    except Exception as error:
        raise WrongError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}") from error


def campaign(rounds: int, seed: int, folder: Path, progress: Progress) -> Figures:
    """For `make soak`: damage at a number of places; raises if anything was wrong."""
    total: Figures = {"wrong": 0}
    done = 0
    while done < rounds and not progress.time_is_up:
        share = min(_PLACES_A_BASE, rounds - done)
        place = folder / f"from-{done}"
        place.mkdir()
        outcomes, wrong = damages(share, seed + done, place, progress.after(done))
        shutil.rmtree(place)
        done += share
        figures: Counter[str] = Counter()
        for outcome, count in outcomes.items():
            figures[outcome.partition(": ")[2]] += count
        figures["wrong"] += figures.pop("WRONG", 0)
        add(total, dict(figures))
        progress.tell(total)
        assert not wrong, "\n".join(wrong)
    return total


def damages(
    count: int, seed: int, folder: Path, on_round: Callable[[int], None]
) -> tuple[Counter[str], list[str]]:
    """Damage two bases at a number of places; returns what came of it, and what was wrong."""
    bases = [make(folder / "clean", clean=True), make(folder / "crashed", clean=False)]
    pick = random.Random(seed)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    trials = [(made, place) for made in bases for place in places(made, -(-count // len(bases)), pick)]
    for n, (made, place) in enumerate(trials):
        area = place.file.split("/")[1 if place.file.startswith(".stored") else 0].split(".")[0]
        try:
            outcome = run(made, place, folder, seed + n)
        except WrongError as error:
            outcome = "WRONG"
            wrong.append(f"{made.path.name}: {place} (seed {seed + n}): {error}")
        outcomes[f"{area}: {outcome}"] += 1
        on_round(n + 1)
    return outcomes, wrong


def main() -> None:
    """Run the campaign; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        if time.monotonic() - said > _TELL_SECONDS:
            said = time.monotonic()
            print(f"{done} of {arguments.places} places", flush=True)

    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        outcomes, wrong = damages(arguments.places, arguments.seed, Path(folder), tell)
    for line in wrong:
        print(line)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    print(f"{sum(outcomes.values())} places, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
