"""The demo's comparison must not overlook anything: answers and tree of a real daemon, tampered with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client
from tests.demo.agents import STORES
from tests.demo.compare import (
    Item,
    Sections,
    answers_expected,
    compare,
    events_section,
    listings_expected,
    tree_expected,
)
from tests.demo.readers import read_answers, read_listings, read_tree
from tests.demo.workload import Jobs, interleaved, jobs_of_agents
from tests.helpers.daemon import eventually, running_daemon

JOB = "agent1-a1"
RUN = "run1"
EVENTS = events_section(JOB, RUN)


@pytest.fixture(scope="module")
def jobs() -> Jobs:
    return jobs_of_agents(1, {"a": 1})[0]


@pytest.fixture(scope="module")
def stored(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Client]]:
    base = tmp_path_factory.mktemp("demo") / "base"
    with running_daemon(base), Client(base_path=base) as client:
        with client.pipeline() as pipeline:
            for _, call in interleaved(jobs):
                getattr(pipeline, STORES[call.op])(call.value)
        eventually(lambda: client.stats()["tree"]["lagRecords"] == 0, "the tree is complete")
        yield base, client


@pytest.fixture
def answers(stored: tuple[Path, Client]) -> Sections:
    return read_answers(stored[1], JOB, [RUN])


@pytest.fixture
def tree(stored: tuple[Path, Client], tmp_path: Path) -> Path:
    """A copy of the tree, to be tampered with."""
    shutil.copytree(stored[0] / "jobs", tmp_path / "jobs")
    return tmp_path


def twins(tree: Path) -> tuple[Path, Path]:
    """Two files of different events with the same time, step and type."""
    second = next((tree / "jobs" / JOB / "runs" / RUN).glob("*.n0002.json"))
    return second.with_name(second.name.replace(".n0002", "")), second


def event_id(jobs: Jobs, data: bytes) -> str:
    """The id of an event, from what was sent."""
    return next(item.name for item in answers_expected(JOB, jobs[JOB])[EVENTS] if item.data == data)


def test_says_nothing_where_all_is_as_sent(
    jobs: Jobs, stored: tuple[Path, Client], answers: Sections
) -> None:
    """The answers, the listings and the tree of a daemon are as they were sent."""
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == []
    assert compare(listings_expected(jobs), read_listings(stored[1])) == []
    assert compare(tree_expected(JOB, jobs[JOB]), read_tree(stored[0], JOB)) == []


def test_reports_an_event_removed_from_an_answer(jobs: Jobs, answers: Sections) -> None:
    """An event that is not in the answer is missing."""
    gone = answers[EVENTS].pop(100)
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [("missing", EVENTS, gone.name)]


def test_reports_an_event_altered_in_an_answer(jobs: Jobs, answers: Sections) -> None:
    """An event with one other byte is altered."""
    name, data = answers[EVENTS][100]
    answers[EVENTS][100] = Item(name, data[:-2] + b" " + data[-1:])
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [("altered", EVENTS, name)]


def test_reports_an_event_doubled_in_an_answer(jobs: Jobs, answers: Sections) -> None:
    """An event that is there twice is doubled."""
    answers[EVENTS].insert(101, answers[EVENTS][100])
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [
        ("doubled", EVENTS, answers[EVENTS][100].name)
    ]


@pytest.mark.parametrize("place", [0, 99, 373])
def test_reports_an_event_moved_in_an_answer(jobs: Jobs, answers: Sections, place: int) -> None:
    """An event at another place is out of order, and only that one."""
    moved = answers[EVENTS].pop(200)
    answers[EVENTS].insert(place, moved)
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [("out of order", EVENTS, moved.name)]


def test_reports_an_event_that_nobody_sent(jobs: Jobs, answers: Sections) -> None:
    """An event with another id was never sent."""
    answers[EVENTS].append(Item("stranger", b"{}"))
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [("never sent", EVENTS, "stranger")]


def test_reports_a_checkpoint_and_a_job_that_are_gone(jobs: Jobs, answers: Sections) -> None:
    """Whatever else is missing is reported like an event."""
    checkpoint = answers[f"checkpoints of {JOB}"].pop()
    del answers[f"job {JOB}"]
    assert compare(answers_expected(JOB, jobs[JOB]), answers) == [
        ("missing", f"job {JOB}", JOB),
        ("missing", f"checkpoints of {JOB}", checkpoint.name),
    ]


def test_reports_a_removed_file(jobs: Jobs, tree: Path) -> None:
    """A file that is not in the tree is missing."""
    _, second = twins(tree)
    name = event_id(jobs, second.read_bytes())
    second.unlink()
    assert ("missing", EVENTS, name) in compare(tree_expected(JOB, jobs[JOB]), read_tree(tree, JOB))


def test_reports_a_torn_and_an_altered_file(jobs: Jobs, tree: Path) -> None:
    """A file that ends early, and one whose JSON says the same in other bytes."""
    first, second = twins(tree)
    torn, altered = event_id(jobs, first.read_bytes()), event_id(jobs, second.read_bytes())
    first.write_bytes(first.read_bytes()[:-10])
    second.write_bytes(second.read_bytes() + b"\n")
    found = compare(tree_expected(JOB, jobs[JOB]), read_tree(tree, JOB))
    assert ("missing", EVENTS, torn) in found
    assert ("altered", EVENTS, altered) in found


def test_reports_a_doubled_file(jobs: Jobs, tree: Path) -> None:
    """The same event under a second name."""
    first, _ = twins(tree)
    shutil.copy(first, first.with_name(first.name.replace(".json", ".n9999.json")))
    found = compare(tree_expected(JOB, jobs[JOB]), read_tree(tree, JOB))
    assert ("doubled", EVENTS, event_id(jobs, first.read_bytes())) in found


def test_reports_files_in_another_order(jobs: Jobs, tree: Path) -> None:
    """Two events that share time, step and type, numbered the other way round."""
    first, second = twins(tree)
    names = {event_id(jobs, path.read_bytes()) for path in (first, second)}
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    (found,) = compare(tree_expected(JOB, jobs[JOB]), read_tree(tree, JOB))
    assert found[:2] == ("out of order", EVENTS)
    assert found[2] in names


def test_reports_a_file_that_does_not_belong_there(jobs: Jobs, tree: Path) -> None:
    """A file whose name is none of the tree's."""
    stray = tree / "jobs" / JOB / "runs" / RUN / "notes.txt"
    stray.write_text("mine")
    assert compare(tree_expected(JOB, jobs[JOB]), read_tree(tree, JOB)) == [
        ("never sent", "files in the tree", str(stray.relative_to(tree)))
    ]
