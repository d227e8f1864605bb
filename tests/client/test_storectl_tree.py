"""`perstack-storectl tree` and `usage`: how the runs of a job hang together, and what they used."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._views import graph
from perstack_storage._views.graph import Run as Node
from tests.helpers.daemon import RunningDaemon, captured_run, running_daemon, under_other_job
from tests.helpers.replay import METHODS
from tests.helpers.storectl import Run, on_terminal, runner
from tests.hostile.texts import HOSTILE, acted_on
from tests.offline.bases import USAGE, setting

JOB = "job-beta"
CHILDREN = ["bylphijvovpryj97etk24pgr", "qnb0g3gw0k7cnarzra1ycvw4", "k056jqvcwte54y5cfz664430"]
LAST = "xzaom1iesakctk1eqyhdamgl"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run b, whose job delegates to three runs at a time."""
    with running_daemon(tmp_path_factory.mktemp("tree") / "perstack") as running:
        with Client(running.endpoint) as client, client.pipeline() as pipeline:
            for op, value in captured_run("b"):
                getattr(pipeline, METHODS[op])(under_other_job(value, JOB))
        yield running


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as client:
        yield client


def test_delegates_stand_below_and_the_run_that_goes_on_beside(daemon: RunningDaemon) -> None:
    place = ["--base-path", str(daemon.base), "--no-pager", "tree", JOB]
    status, text = on_terminal(place, 80)
    assert status == 0
    assert text.splitlines() == [
        "RUN           EXPERT   STATUS             STEPS  TOKENS   TOOK  NOTE",
        "job-beta      main     completed             11  28,800  4.9 s",
        "├─ run1       main     stoppedByDelegate      1   1,200  0.3 s",
        "│  ├─ bylphi  child-0  completed            2-6   7,200  3.0 s",
        "│  ├─ qnb0g3  child-1  completed            2-6   7,200  3.0 s",
        "│  └─ k056jq  child-2  completed            2-6   7,200  2.9 s",
        "└▶ xzaom1     main     completed           7-11   6,000  1.3 s  continues run1",
    ]
    assert all(len(line) <= 40 for line in on_terminal(place, 40)[1].splitlines())
    assert max(map(len, on_terminal(place, 200)[1].splitlines())) <= 200


def test_the_tree_as_json_has_a_run_a_line(run: Run) -> None:
    values = run("tree", JOB, "--json").values
    assert [(v["run"], v["depth"]) for v in values] == [
        ("run1", 0), *((child, 1) for child in CHILDREN), (LAST, 0)
    ]  # fmt: skip
    assert [v["delegatedBy"] for v in values] == [None, "run1", "run1", "run1", None]
    assert [v["continues"] for v in values] == [None, None, None, None, "run1"]
    assert values[1]["toolCallId"] == "toolu_0"
    assert sum(v["events"] for v in values) == 839


def test_usage_counts_nothing_twice(run: Run, client: Client) -> None:
    """The sum over runs, experts and models is what the job itself says."""
    job = client.retrieve_job(JOB)
    assert job is not None
    ran = run("usage", JOB, "--json")
    (counts,) = ran.values
    assert counts["total"] == job["usage"]
    for part in ("runs", "experts", "models"):
        assert sum(usage["totalTokens"] for usage in counts[part].values()) == 28_800
    assert counts["runs"][LAST]["totalTokens"] == 6_000
    assert set(counts["experts"]) == {"main", "child-0", "child-1", "child-2"}
    assert ran.error == ""
    rows = [re.split("  +", line) for line in run("usage", JOB).lines]
    assert ["TOTAL", "24,000", "0", "4,800", "0", "28,800"] in rows


def test_usage_by_model_comes_from_the_run_settings(run: Run, client: Client) -> None:
    _store_run(client, "modelled", "one")
    client.store_run_setting(_setting("modelled", "one", "small-model"))
    _store_run(client, "modelled", "two")
    (counts,) = run("usage", "modelled", "--json").values
    assert {name: usage["totalTokens"] for name, usage in counts["models"].items()} == {
        "small-model": 3, "unknown": 3
    }  # fmt: skip
    assert ["small-model", "1", "0", "2", "0", "3"] in [
        re.split("  +", line) for line in run("usage", "modelled").lines
    ]


def test_usage_of_a_job_reads_no_settings_of_other_jobs(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first setting of a run counts, and what a redaction makes of it."""
    _store_run(client, "alone", "one")
    client.store_run_setting(_setting("alone", "one", "first-model"))
    client.store_run_setting(_setting("alone", "one", "later-model"))
    monkeypatch.setattr(Client, "get_all_runs", None)
    assert list(run("usage", "alone", "--json").values[0]["models"]) == ["first-model"]
    client.redact_run_setting(_setting("alone", "one", "redacted-model"))
    assert list(run("usage", "alone", "--json").values[0]["models"]) == ["redacted-model"]


def test_a_run_without_checkpoint_is_in_the_tree_and_named_beside_the_usage(run: Run, client: Client) -> None:
    client.store_event(_event("bare", "r", "completeRun"))
    (value,) = run("tree", "bare", "--json").values
    assert (value["status"], value["usage"]) == ("completed", None)
    used = run("usage", "bare")
    assert (used.lines, "a run has no checkpoint" in used.error) == (["bare"], True)
    assert "its program stored no job" in run("tree", "bare").out


def test_what_does_not_exist_ends_with_status_1(run: Run) -> None:
    for command in ("tree", "usage"):
        ran = run(command, "none")
        assert (ran.status, ran.out) == (1, "")
        assert "job not found: none" in ran.error


def test_hostile_values_are_escaped(run: Run, client: Client) -> None:
    nasty: Any = "".join(HOSTILE.values())
    checkpoint = _checkpoint("nasty", "r", "c") | {
        "status": nasty,
        "error": {"name": nasty, "message": nasty},
    }
    by = {"runId": nasty, "toolCallId": nasty, "checkpointId": nasty}
    client.store_checkpoint(checkpoint | {"delegatedBy": by})
    client.store_event(_event("nasty", "r", "startRun") | {"expertKey": nasty})
    for form in ([], ["--json"], ["--color", "always"]):
        for command in ("tree", "usage"):
            ran = run(command, "nasty", *form)
            assert ran.status == 0
            assert acted_on(re.sub(r"\x1b\[\d?\d?m", "", ran.out) + ran.error) == []


# --- how runs hang together --------------------------------------------------------------------------


def node(id: str, expert: str, steps: tuple[int, int], status: str = "completed", **more: Any) -> Node:
    return Node(
        id, expert, status=status, first_step=steps[0], last_step=steps[1],
        started=float(steps[0]), ended=float(steps[1]), **more,
    )  # fmt: skip


def shown(nodes: list[Node]) -> list[tuple[str, int, str | None]]:
    walked = graph.walk(graph.connect(nodes), nodes)
    return [(placed.run.id, len(placed.last) - 1, placed.run.continues) for placed in walked]


def test_a_run_may_delegate_again_and_so_may_its_delegates() -> None:
    stopped = graph.STOPPED
    by = {"delegated_by": "a", "delegated_call": "1"}
    nodes = [
        node("a", "main", (1, 1), stopped),
        node("b", "child", (2, 2), stopped, **by),
        node("c", "leaf", (3, 3), delegated_by="b", delegated_call="2"),
        node("b2", "child", (4, 4), **by),
        node("a2", "main", (5, 5), stopped),
        node("d", "leaf", (6, 6), delegated_by="a2", delegated_call="3"),
        node("a3", "main", (7, 7)),
    ]
    assert shown(nodes[::-1]) == [
        ("a", 0, None), ("b", 1, None), ("c", 2, None), ("b2", 1, "b"),
        ("a2", 0, "a"), ("d", 1, None), ("a3", 0, "a2"),
    ]  # fmt: skip


def test_of_two_runs_that_wait_the_tool_calls_tell_which_goes_on() -> None:
    nodes = [
        node("a", "main", (1, 1), graph.STOPPED, calls=frozenset({"1", "2"})),
        node("b", "main", (1, 2), graph.STOPPED, calls=frozenset({"3"})),
        node("x", "main", (4, 4), results=frozenset({"1"})),
        node("y", "main", (5, 5)),
    ]
    assert [continues for _, _, continues in shown(nodes)] == [None, None, "a", "b"]


def test_a_usage_whose_start_is_not_known_is_inferred() -> None:
    def used(tokens: int) -> dict[str, float]:
        return dict.fromkeys(graph.USAGE_FIELDS, tokens)

    nodes = [
        node("a", "main", (1, 1), graph.STOPPED, reached=used(10)),
        node("b", "child", (2, 2), reached=used(5), delegated_by="a"),
        node("a2", "main", (3, 3), reached=used(19)),
    ]
    graph.connect(nodes)
    assert nodes[2].own == used(4)


def test_rings_and_deep_delegations_are_shown_once() -> None:
    ring = [node(str(n), "e", (n, n), delegated_by=str((n + 1) % 3)) for n in range(3)]
    assert sorted(id for id, _, _ in shown(ring)) == ["0", "1", "2"]
    itself = [node("a", "e", (1, 1), delegated_by="a")]
    assert shown(itself) == [("a", 0, None)]
    below = (node(str(n), "e", (n, n), delegated_by=str(n - 1)) for n in range(1, 3000))
    deep = [node("0", "e", (0, 0)), *below]
    assert [depth for _, depth, _ in shown(deep)] == list(range(3000))


def _event(job: str, run: str, type: str) -> Any:
    return {
        "type": type, "id": f"{run}-{type}", "expertKey": "k", "timestamp": 1000,
        "jobId": job, "runId": run, "stepNumber": 1,
    }  # fmt: skip


def _checkpoint(job: str, run: str, id: str) -> Any:
    return {
        "id": id, "jobId": job, "runId": run, "status": "proceeding", "stepNumber": 1, "messages": [],
        "usage": USAGE, "expert": {"key": "k", "name": "n", "version": "v"},
    }  # fmt: skip


def _store_run(client: Client, job: str, run: str) -> None:
    client.store_event(_event(job, run, "startRun"))
    client.store_checkpoint(_checkpoint(job, run, f"c-{run}"))


def _setting(job: str, run: str, model: str) -> Any:
    return json.loads(setting(jobId=job, runId=run, model=model)[1])
