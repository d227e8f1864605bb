"""The daemon on a simulated machine: crashed at its system calls, recovered, and held to its promises.

Many more seeds, and more of their calls, are for `python -m tests.simulation run`.
"""

from collections.abc import Callable
from random import Random

import pytest

from perstack_stored.journal.writer import JournalWriter
from tests.helpers.daemon import open_files
from tests.simulation.campaign import Counts, FoundError, Plan, run
from tests.simulation.workload import Workload

pytestmark = pytest.mark.timeout(900)  # it is all calculation: beside other load it takes long


@pytest.mark.long
def test_a_history_survives_a_crash_at_every_call() -> None:
    """A short history is crashed before each of its system calls, and recovers each time."""
    counts = run(51, Plan(requests=3, nested=0.0, fault_odds=0.0))
    assert counts.points == counts.calls > 100
    assert counts.recoveries > 2 * counts.points
    assert counts.acknowledged > 3
    assert counts.looks > counts.points


@pytest.mark.parametrize("seed", [3, 7, 20, 29])
def test_histories_survive_crashes_and_faults_here_and_there(seed: int) -> None:
    """Longer histories, with failing calls and several lives, are crashed at some of their calls."""
    counts = run(seed, Plan(sample=0.008))
    assert counts.points > 5
    assert counts.recoveries > 2 * counts.points


def test_histories_pack_segments_and_leave_files_out() -> None:
    """The keeper is a part of the machine, as are changes of what the tree leaves out."""
    counts = Counts()
    for seed in (1, 3, 6):
        counts.add(run(seed, Plan(sample=0.0, nested=0.0, fault_odds=0.0)))
    assert counts.packed > 3
    assert counts.recycled > 1
    assert counts.left_out > 10


def test_old_jobs_leave_the_tree_in_histories() -> None:
    """Finished jobs leave, and come back by new records, also by those that have no file."""
    counts = Counts()
    for seed in (5, 13, 21):
        counts.add(run(seed, Plan(sample=0.004, nested=0.0, fault_odds=0.0)))
    assert counts.jobs_left > 5


def test_what_is_found_can_be_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken promise names seed and place; that place alone breaks it again, in the same words."""
    monkeypatch.setattr(JournalWriter, "sync", _syncs_nothing)
    monkeypatch.setattr(JournalWriter, "sync_soon", _syncs_nothing_soon)
    plan = Plan(requests=8, nested=0.0, fault_odds=0.0)
    with pytest.raises(FoundError) as found:
        run(4, plan)
    where = str(found.value).split("--at ")[1].split()[0]
    seed = int(str(found.value).split("replay ")[1].split()[0])
    with pytest.raises(FoundError) as again:
        run(seed, plan._replace(only=where))
    assert str(again.value).splitlines()[0] == str(found.value).splitlines()[0]


def _syncs_nothing(journal: JournalWriter) -> None:
    """Any history shows it at once: what is acknowledged does not outlive the first power cut."""
    if journal.mark != journal.written:
        journal._note_synced(journal.written, 0.0)


def _syncs_nothing_soon(journal: JournalWriter, notify: Callable[[], None]) -> None:
    _syncs_nothing(journal)
    notify()


@pytest.mark.long
def test_a_seed_gives_the_same_history_in_every_run() -> None:
    """Two runs of a seed make the same calls, crash at the same places and check as much."""
    first, second = (vars(run(11, Plan(requests=8, sample=0.008))) for _ in range(2))
    assert first == second


def test_a_history_goes_on_undisturbed_by_the_crashes_that_are_tried() -> None:
    """So a replay, which tries one of them, sees what was found among many."""
    alone, crashed = (run(2, Plan(sample=sample, nested=0.0)) for sample in (0.0, 0.003))
    assert crashed.points > 3
    assert alone.packed > 0
    assert alone.calls == crashed.calls


def test_a_history_leaves_nothing_open() -> None:
    """`make soak` runs hundreds of histories, of thousands of killed indexes, in one process."""
    run(11, Plan(requests=4, sample=0.005))
    before = open_files()
    run(11, Plan(requests=8, sample=0.01))
    assert {fd: file for fd, file in open_files().items() if fd not in before} == {}


def test_the_workload_has_what_the_promises_are_about() -> None:
    """All kinds, events that share a name, repeats, files that are rewritten, values beyond a page."""
    workload = Workload(Random(1))
    values = [workload.value() for _ in range(300)]
    assert {value.op for value in values} == {"storeJob", "storeCheckpoint", "storeEvent", "storeRunSetting"}
    assert len(set(values)) < len(values)
    assert max(len(value.payload) for value in values) > 4096
