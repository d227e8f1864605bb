"""The judge on a tree, and on a real daemon with its store; it shares no code with either."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.case import Case, text
from tests.crash.judge import Verdict, judge, judge_tree
from tests.crash.load import load
from tests.crash.projection import Projection
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import job


def test_the_projection_names_the_files_of_the_tree(tmp_path: Path) -> None:
    """Last job, first setting with the time of the last one, events that share a name numbered."""
    files = Projection(Case(tmp_path).records).files()
    assert json.loads(files["jobs/j1/job.json"])["totalSteps"] == 3
    assert b'\n  "id": "j1"' in files["jobs/j1/job.json"]
    run = "jobs/j1/runs/r1"
    assert json.loads(files[f"{run}/event-1717171717200-0-startRun.json"])["id"] == "e1"
    assert json.loads(files[f"{run}/event-1717171717200-0-startRun.n0002.json"])["id"] == "e2"
    found = json.loads(files[f"{run}/run-setting.json"])
    assert (found["model"], found["updatedAt"]) == ("m", 1717171717200)
    assert len(files) == 6


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda files: files.pop("jobs/j1/job.json"), "lost"),
        (lambda files: files.update({"jobs/j1/job.json": b'{"id'}), "torn"),
        (lambda files: files.update({"jobs/j2/job.json": b"{}"}), "invented"),
    ],
    ids=["missing", "half", "nobody's"],
)
def test_a_tree_that_is_not_the_projection_is_named(
    tmp_path: Path, change: Callable[[dict[str, bytes]], object], kind: str
) -> None:
    """A file that is missing, half or nobody's."""
    expected = Projection(Case(tmp_path).records).files()
    found = dict(expected)
    judge_tree(found, expected, verdict := Verdict())
    assert not verdict.kinds
    change(found)
    judge_tree(found, expected, verdict)
    assert verdict.kinds == {kind}


@pytest.mark.long
def test_a_real_store_is_judged_whole_until_something_is_changed(tmp_path: Path) -> None:
    """Recording clients, a daemon, a tree; then an acknowledgement nobody gave, and changed files."""
    with running_daemon(tmp_path / "base") as daemon:
        with load(daemon.endpoint, tmp_path / "history", 1, look=daemon.base) as clients:
            awaiting = tmp_path / "history" / "s1-0-awaiting.jsonl"
            eventually(lambda: awaiting.exists() and awaiting.stat().st_size > 100_000, "stores")
            clients.join()
        verdict = judge(clients.histories, daemon.endpoint, daemon.base)
        assert not verdict.kinds, str(verdict)
        assert verdict.acknowledged > 100
        assert verdict.records > 100
        assert verdict.files > 50

        answer = [
            line for line in map(json.loads, awaiting.read_bytes().splitlines()) if line["do"] == "stored"
        ][-1]
        sent = {"do": "sent", "t": answer["t"], "session": answer["session"], "seq": answer["seq"] + 1}
        with awaiting.open("a") as history:
            history.write(json.dumps({**sent, "stores": [["storeJob", text(job("lost"))]]}) + "\n")
            history.write(json.dumps({**sent, "do": "stored", "positions": [verdict.records + 1]}) + "\n")
        changed, removed, *_ = sorted((daemon.base / "jobs").rglob("event-*.json"))
        whole = changed.read_bytes()
        changed.unlink()
        changed.write_bytes(whole[:-1])
        removed.unlink()
        (daemon.base / "jobs" / "foreign.json").write_bytes(b"{}")
        command = [sys.executable, "-m", "tests.crash.judge", str(daemon.base), daemon.endpoint]
        judged = subprocess.run(
            [*command, *map(str, clients.histories)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert judged.returncode == 1, judged.stderr
    assert "lost 2, doubled 0, reordered 0, torn 1, invented 1" in judged.stdout, judged.stdout


def test_the_judge_knows_neither_daemon_nor_client() -> None:
    """A judge that shared code with the accused would share its mistakes."""
    program = "import sys, tests.crash.judge; print([n for n in sys.modules if n.startswith('perstack')])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert found.stdout.strip() == "[]"
