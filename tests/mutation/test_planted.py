"""The harness is itself tested: bugs are planted in a copy of the daemon, and must be caught.

`python -m tests.mutation` plants all of them, and lists what caught each; here are some.
"""

import re
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest

from tests.crash.soak import CAMPAIGNS
from tests.mutation import __main__, runner
from tests.mutation.bugs import bugs
from tests.mutation.results import Results
from tests.mutation.runner import HISTORIES, Verdict, named_tests, planted, searches, try_out
from tests.mutation.seeds import SEEDS
from tests.mutation.sites import CHECKSUMS, LOCKS, NAMES, PACKAGE, SYNCS, Mutant, sites
from tests.mutation.verdicts import ARGUED, TESTS
from tests.simulation.campaign import Plan, run

# With a seed whose history finds it soon: the whole run takes them from the first on.
SAMPLE = {
    "journal/writer.py: sync: sync_data": 1,
    "tree/file_writer.py: _sync_ground: sync_all": 11,
    "answered before the sync": 120,
    "a repeat is stored again": 1,
}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_bug_is_caught(name: str) -> None:
    """A daemon with the bug breaks a promise in the simulation."""
    mutant = next(mutant for mutant in planted() if mutant.name == name)
    verdict = try_out(mutant, first=SAMPLE[name])
    assert verdict.how == "simulation"
    assert ": Violation: " in verdict.reason


def test_a_hang_is_no_catch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as a hang, and is not good, in the simulation and in a named test."""
    monkeypatch.setattr(runner, "_SECONDS_MAX", 2)
    endless = "while True:\n    pass\n"
    for name in ("an endless loop", next(iter(TESTS))):
        verdict = try_out(Mutant(name, "datadir/filesystem.py", endless))
        assert (verdict.how, verdict.is_good) == ("hangs", False)


def test_a_search_begins_where_the_bug_was_caught_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not caught there is looked for in all histories, and what nobody can see in a few."""
    monkeypatch.setitem(SEEDS, "moved", 35)
    moved, new = (list(searches(Mutant(name, "", ""), 1)) for name in ("moved", "new"))
    assert [(one.first, one.histories) for one in moved[:2]] == [(35, 1)] * 2
    assert moved[2:] == new
    tried = [seed for one in new for seed in range(one.first, one.first + one.histories)]
    assert Counter(tried) == Counter([*range(1, 9), *range(1, HISTORIES + 1), *range(1, HISTORIES + 1)])
    argued = searches(Mutant(next(iter(ARGUED)), "", ""), 1)
    assert 0 < sum(one.histories for one in argued) < 10


def test_an_odd_end_is_no_catch() -> None:
    """A process of the harness that is killed, or can't begin, is reported as broken, and is not good."""
    for text, said in (
        ("import os\nos.kill(os.getpid(), 9)\n", "exit status -9: nothing said"),
        ("import sys\nsys.exit('out of luck')\n", "exit status 1: out of luck"),
    ):
        verdict = try_out(Mutant("an odd end", "datadir/filesystem.py", text))
        assert (verdict.how, verdict.is_good, verdict.reason) == ("broken", False, said)
        assert verdict.seconds > 0


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug whose verdict is written down as good is not planted again; a cut line of the file counts not."""
    tried: list[str] = []

    def try_out(mutant: Mutant) -> Verdict:
        tried.append(mutant.name)
        how = "hangs" if mutant.name == "b" and len(tried) < 4 else "test"
        return Verdict(mutant.name, how, "reason", 1.5)

    monkeypatch.setattr(__main__, "planted", lambda: [Mutant(name, "", "") for name in "abc"])
    monkeypatch.setattr(__main__, "try_out", try_out)
    results = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", ["mutation", "--jobs", "1", "--results", str(results)])
    assert __main__.main() == 1
    with results.open("a") as file:
        file.write('{"name": "c", "how": "ha')
    assert __main__.main() == 0
    assert tried == ["a", "b", "c", "b"]
    assert Results(results).known["b"] == Verdict("b", "test", "reason", 1.5)


def test_every_bug_can_still_be_planted() -> None:
    """Each change of the text applies, makes sense as Python, and has a name of its own."""
    mutants = planted()
    for mutant in mutants:
        compile(mutant.source, mutant.file, "exec")
        assert mutant.source != (PACKAGE / mutant.file).read_text()
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names)
    assert set(TESTS) | set(ARGUED) | set(SEEDS) <= set(names)
    assert len(list(bugs())) > 30
    assert CAMPAIGNS["planted"].rounds >= len(mutants)


def test_no_file_is_left_out() -> None:
    """As many places are found as a search of the text finds, in whatever folder a module lies."""
    names = "|".join(sorted(SYNCS | NAMES | LOCKS | {"entry_matches"}))
    call = re.compile(rf"(?<!def )\b(?:{names})\(")
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.glob("**/*.py")}
    expected = {file: len(call.findall(text)) for file, text in texts.items()}
    found = Counter(mutant.file for mutant in sites() if not mutant.name.split(" (")[0].endswith("checksum"))
    assert found == Counter({file: count for file, count in expected.items() if count})
    assert found.total() > 60


def test_a_call_outside_of_the_simulation_has_a_named_test() -> None:
    """What the simulation does not run, it can't notice."""
    ran: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            ran.add((frame.f_code.co_filename, frame.f_code.co_name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        for seed in range(1, 11):
            run(seed, Plan(requests=12, sample=0, nested=0))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    unnamed = [mutant.name.split(": ") for mutant in sites() if not named_tests(mutant)]
    assert len(unnamed) > 30
    assert not [name for name in unnamed if (str(PACKAGE / name[0]), name[1]) not in ran]


def test_every_call_that_counts_is_among_the_planted_ones() -> None:
    """Each sync, rename, link, exchange, lock and checksum of the daemon's text is taken out once."""
    found = {mutant.name.split(": ")[2].split(" ")[0] for mutant in planted() if ".py: " in mutant.name}
    assert {"sync_data", "sync", "sync_all", "rename", "give_name", "exchange", "flock"} <= found
    assert {"checksum", "entry_matches"} <= found
    assert found <= SYNCS | NAMES | LOCKS | CHECKSUMS | {"checksum"}
