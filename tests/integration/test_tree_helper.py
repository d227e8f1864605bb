"""A tree that lags: two processes make its files, in the order of the journal, whatever becomes of one."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from perstack_storage import Client
from perstack_stored.tree.helper import HELPED_LAG_RECORDS
from perstack_stored.tree.write import Write, divided
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, checkpoint, event, job, setting
from tests.integration.filled import assert_checked

JOBS = 7
ROUNDS = HELPED_LAG_RECORDS // JOBS + 300


def write(position: int, job: str, name: str = "e") -> Write:
    return Write(position, ("jobs", job, "runs", "r"), name, bytes, replaces=False)


@pytest.mark.parametrize("counts", [{}, {"a": 1}, {"a": 9, "b": 1}, {"a": 5, "b": 4, "c": 3, "d": 3}])
def test_whole_jobs_are_divided_about_evenly_and_in_order(counts: dict[str, int]) -> None:
    """Within a job files appear in the order of the journal: so no job has two writers."""
    jobs = [name for i in range(10) for name, count in counts.items() if i < count]
    writes = [write(i, name) for i, name in enumerate(jobs)]
    ours, theirs = divided(writes)
    assert sorted(ours + theirs) == writes
    assert [w.position for w in ours] == sorted(w.position for w in ours)
    assert not {w.folders[1] for w in ours} & {w.folders[1] for w in theirs}
    assert abs(len(ours) - len(theirs)) <= max(counts.values(), default=0)
    assert not theirs or len(counts) > 1


def helper_of(daemon: RunningDaemon) -> int | None:
    """Process id of the tree's helper."""
    tree = daemon.workers().get("tree")
    if tree is None:
        return None
    found = Path(f"/proc/{tree}/task/{tree}/children").read_text().split()
    return int(found[0]) if found else None


def store_much(endpoint: str) -> None:
    """Events, and values that replace each other, of several jobs."""
    with Client(endpoint, timeout_s=60) as client, client.pipeline() as pipeline:
        for n in range(ROUNDS):
            for k in range(JOBS):
                pipeline.store_event(event(f"e{n}", jobId=f"j{k}", timestamp=1000 + n))
                if n % 50 == k:
                    pipeline.store_job(job(f"j{k}", totalSteps=n))
                    pipeline.store_checkpoint(checkpoint(f"c{n % 3}", jobId=f"j{k}", stepNumber=n))
                    pipeline.store_run_setting(setting(jobId=f"j{k}", updatedAt=n))


def complete_after(
    base: Path, disturb: Callable[[RunningDaemon, int], None], helpers: Callable[[RunningDaemon], None]
) -> None:
    """Lets the tree lag, disturbs the helper when there is one, and waits for the whole tree."""
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        eventually(lambda: "tree" in daemon.workers(), "the tree's process runs")
        tree = daemon.workers()["tree"]
        signals.stop(tree)
        store_much(daemon.endpoint)
        os.kill(tree, signal.SIGCONT)
        eventually(lambda: helper_of(daemon) is not None, "it has a helper")
        helper = helper_of(daemon)
        if helper is not None:
            disturb(daemon, helper)
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is whole")
        helpers(daemon)
        for k in range(JOBS):
            newest = json.loads((base / f"jobs/j{k}/job.json").read_bytes())
            assert newest["totalSteps"] == max(n for n in range(ROUNDS) if n % 50 == k)
            assert len(list((base / f"jobs/j{k}").glob("runs/*/event-*"))) == ROUNDS
        assert daemon.stop() == 0
    assert_checked(base)


def test_a_helper_makes_part_of_the_files_and_the_tree_is_right(tmp_path: Path) -> None:
    """Of every kind, those that are replaced included."""

    def no_trouble(daemon: RunningDaemon) -> None:
        assert not daemon.events("tree_helper_ended")
        assert not daemon.events("tree_help_failed")

    complete_after(tmp_path / "base", lambda daemon, helper: None, no_trouble)


def test_a_helper_that_is_killed_leaves_its_part_to_the_other(tmp_path: Path) -> None:
    """What it had made stays; nothing waits for it."""

    def noticed(daemon: RunningDaemon) -> None:
        eventually(lambda: bool(daemon.events("tree_helper_ended")), "it is logged")
        assert not daemon.events("follower_ended")

    complete_after(tmp_path / "base", lambda daemon, helper: os.kill(helper, signal.SIGKILL), noticed)


def test_a_helper_dies_with_the_daemon_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """It never writes beside the next one; what is written already is only compared."""

    def crash(daemon: RunningDaemon, helper: int) -> None:
        daemon.kill()
        eventually(lambda: not Path(f"/proc/{helper}").exists(), "it is gone")
        daemon.start()

    complete_after(tmp_path / "base", crash, lambda daemon: None)
