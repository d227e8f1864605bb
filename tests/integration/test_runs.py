"""The main job on real input: captured runs from many agents at once, read back by every way there is."""

import subprocess
from pathlib import Path

import pytest

from perstack_storage import CheckpointNotFound, Client
from tests.helpers.daemon import eventually, files_of, golden, running_daemon
from tests.helpers.replay import (
    METHODS,
    Agents,
    assert_all_stored_once_in_order,
    assert_reads_give_what_was_sent,
    check_command,
    expected_tree,
    tree_is_complete,
)

READS = {
    "retrieveJob": "retrieve_job",
    "getAllJobs": "get_all_jobs",
    "retrieveCheckpoint": "retrieve_checkpoint",
    "getCheckpointsByJobId": "get_checkpoints_by_job_id",
    "getEventsByRun": "get_events_by_run",
    "getEventContents": "get_event_contents",
    "getAllRuns": "get_all_runs",
}


def test_the_reference_s_calls_give_the_reference_s_files_and_answers(tmp_path: Path) -> None:
    """reference-golden.json, through the real daemon: same files, same bytes, same answers."""
    expected = golden()
    with running_daemon(tmp_path / "perstack") as daemon, Client(daemon.endpoint) as client:
        for call in expected["calls"]:
            getattr(client, METHODS[call["op"]])(call["value"])
        for read in expected["reads"]:
            if "error" in read:
                with pytest.raises(CheckpointNotFound) as caught:
                    client.retrieve_checkpoint(*read["args"])
                assert str(caught.value) == read["error"]
            else:
                assert getattr(client, READS[read["op"]])(*read["args"]) == read["ok"], read
        eventually(lambda: tree_is_complete(client), "the tree is complete")
        files = {f"perstack/{name}": content.decode() for name, content in files_of(daemon.base).items()}
        assert files == expected["tree"]


def test_captured_runs_from_eight_agents_are_stored_completely_and_in_order(tmp_path: Path) -> None:
    """Runs a, b and c, un-awaited, from 8 processes: read back by position, by API, and from the tree."""
    with running_daemon(tmp_path / "base") as daemon:
        sent = Agents(daemon.endpoint, ["a", "b", "c", "a", "b", "a", "b", "a"]).join()
        with Client(daemon.endpoint) as client:
            assert_all_stored_once_in_order(client, sent)
            assert_reads_give_what_was_sent(client, sent)
            eventually(lambda: tree_is_complete(client), "the tree is complete")
        assert files_of(daemon.base) == expected_tree(sent)
        assert daemon.stop() == 0
    checked = subprocess.run(check_command(daemon.base), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
