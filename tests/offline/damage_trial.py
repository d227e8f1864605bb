"""One damage of one base, judged: found, named, repaired, and nothing else came of it."""

import random
import traceback
from itertools import zip_longest
from pathlib import Path
from typing import Any

from perstack_stored.errors import ConfigError, DamageError, LostEndError, Refusal, StoredError
from tests.offline.damage_base import Made, linked_copy
from tests.offline.damage_places import Place, damage
from tests.offline.inprocess import Checked, Repaired, Started


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
        self._base = linked_copy(made.path, folder / "trial")
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
        checked = Checked(linked_copy(self._base, self._base.with_name("checked")))
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
        started = self._start(linked_copy(self._base, self._base.with_name("checked")))
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
