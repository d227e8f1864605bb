"""`perstack-storectl log`: the events of a job as a person reads them, from a real daemon."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._storectl import folding, ids, runs, selection, style
from perstack_storage._views import wording
from perstack_storage._views.cells import Span, width_of
from tests.helpers.daemon import RunningDaemon, captured_run, running_daemon, under_other_job
from tests.helpers.replay import METHODS
from tests.helpers.storectl import Run, on_terminal, runner
from tests.hostile.texts import HOSTILE, acted_on

JOB, OTHER = "job-beta", "job-other"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run b, whose job delegates to three runs at a time, and an older job."""
    with running_daemon(tmp_path_factory.mktemp("log") / "perstack") as running:
        with Client(running.endpoint) as client, client.pipeline() as pipeline:
            for op, value in captured_run("b"):
                getattr(pipeline, METHODS[op])(under_other_job(value, JOB))
            pipeline.store_job({**_first_job(), "id": OTHER, "startedAt": 1})
        yield running


def _first_job() -> Any:
    return next(value for op, value in captured_run("b") if op == "storeJob")


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


@pytest.fixture
def stored() -> list[Any]:
    """The events as they were stored."""
    return [value for op, value in captured_run("b") if op == "storeEvent"]


def test_all_runs_come_in_time_order_and_the_newest_job_by_default(run: Run, stored: list[Any]) -> None:
    events = run("log", "--json").values
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in stored)
    assert {event["id"] for event in events} == {event["id"] for event in stored}
    assert {event["jobId"] for event in events} == {JOB}
    assert run("log", OTHER) == (0, "", "")


def test_a_line_has_time_with_zone_run_step_type_and_text(run: Run) -> None:
    lines = run("log", JOB).lines
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d  ", line) for line in lines)
    first = lines[0].split(None, 2)[2].split()
    assert first == ["run1", "1", "startRun", "main:", "Do", "it."]
    assert any('readTextFile(path="/workspace/data.txt")' in line for line in lines)
    assert any("waits for child-0, child-1, child-2" in line for line in lines)
    assert any("child-1 for main: CHILD_1 go" in line for line in lines)
    assert any("main goes on with child-1, child-2, child-0" in line for line in lines)


def test_deltas_are_one_line_unless_all_are_asked_for(run: Run, stored: list[Any]) -> None:
    deltas = [event for event in stored if event["type"] in wording.DELTAS]
    lines = [line for line in run("log").lines if re.search(r" \d+ deltas?, [\d.]+ K?B, [\d.]+ s$", line)]
    assert sum(int(line.split(" deltas,")[0].split()[-1]) for line in lines) == len(deltas)
    assert 10 < len(lines) < 60
    verbose = run("log", "--verbose").lines
    assert len(verbose) == len(stored)
    assert any(deltas[0]["delta"] in line for line in verbose)


def test_a_run_and_steps_are_chosen(run: Run, stored: list[Any]) -> None:
    some = run("log", "--run", "bylp", "--json").values
    assert some
    assert {event["runId"] for event in some} == {"bylphijvovpryj97etk24pgr"}
    for given, wanted in (
        ("5", {5}), (">9", {10, 11}), (">=10", {10, 11}), ("<2", {1}), ("<=2", {1, 2}), ("3-4", {3, 4})
    ):  # fmt: skip
        events = run("log", "--step", given, "--json").values
        assert {event["stepNumber"] for event in events} == wanted
        assert len(events) == sum(event["stepNumber"] in wanted for event in stored)


def test_kinds_are_chosen_and_each_adds_lines(run: Run) -> None:
    def types(*arguments: str) -> set[str]:
        return {event["type"] for event in run("log", "--json", *arguments).values}

    tools = {"callTools", "resolveToolResults", "attemptCompletion"}
    assert types("--tools") == tools
    delegations = types("--delegations")
    assert {"callDelegate", "stopRunByDelegate", "startRun", "completeRun"} <= delegations
    assert types("--tools", "--delegations") == tools | delegations
    assert types("--type", "callTools") == types("--type", "call") == {"callTools"}
    assert types("--type", "callTools", "--type", "startRun") == {"callTools", "startRun"}
    assert run("log", "--errors") == (0, "", "")


def test_a_text_is_looked_for_in_whatever_case_with_lines_around(run: Run) -> None:
    alone = run("log", "--filter", "child_1 GO").lines
    assert len(alone) == 3
    around = run("log", "--filter", "child_1 GO", "--context", "1").lines
    assert set(alone) < set(around)
    assert len(around) == 7  # call, delegate and start, with what stands around them
    far = run("log", "--type", "completeRun", "--context", "1").lines
    assert "--" in far
    assert run("log", "--filter", "s1-0 abcdefgh", "--type", "streamReasoning").lines


def test_the_last_lines_of_those_chosen(run: Run) -> None:
    """Those are read from the end, and are the same lines."""
    everything = run("log").lines
    for count in (1, 3, 60, 9999):
        assert run("log", "--last", str(count)).lines == everything[-count:]
    assert run("log", "--last", "9" * 30).lines == everything
    assert run("log", "--verbose", "--last", "99").lines == run("log", "--verbose").lines[-99:]
    assert run("log", "--json", "--last", "99").values == run("log", "--json").values[-99:]
    around = ("log", "--context", "1", "--tools")
    assert run(*around, "--last", "9").lines == run(*around).lines[-9:]
    assert run("log", "--tools", "--last", "2").lines == run("log", "--tools").lines[-2:]


def test_pages_are_read_as_they_are_needed(daemon: RunningDaemon) -> None:
    """Of many events a small page is read for the first line, whatever comes later."""
    with Client(daemon.endpoint) as client:
        with client.pipeline() as pipeline:
            for number in range(3000):
                pipeline.store_event(_event("long", number))
        before = client.stats()["reads"]["answered"]
        events = runs.events(client, "long", "r", runs.Which())
        assert [next(events)["id"] for _ in range(16)] == [f"e{number}" for number in range(16)]
        assert client.stats()["reads"]["answered"] == before + 1
        assert sum(1 for _ in events) == 3000 - 16
        assert client.stats()["reads"]["answered"] < before + 15


def test_a_summary_counts(run: Run, stored: list[Any]) -> None:
    (counts,) = run("log", "--summary", "--json").values
    assert counts["events"] == len(stored)
    assert counts["runs"]["run1"] == 5
    assert counts["toolCalls"] == {
        "readTextFile": 15, "attemptCompletion": 4, "child-0": 1, "child-1": 1, "child-2": 1
    }  # fmt: skip
    assert counts["errors"] == 0
    assert f"{len(stored)} events of 5 runs in 4.9 s" in run("log", "--summary").out


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_lines_fit_and_the_day_stands_above(daemon: RunningDaemon, columns: int) -> None:
    status, text = on_terminal(["--base-path", str(daemon.base), "--no-pager", "log"], columns)
    head, day, *lines = text.splitlines()
    assert status == 0
    assert head.startswith("job-beta  completed  11 steps  28,800 tokens")
    assert re.fullmatch(r"── 2026-11-23, UTC[+-]\d\d:\d\d ──", day)
    assert max(map(width_of, lines)) == columns
    assert lines[0].split()[1:4] == ["run1", "1", "startRun" if columns > 100 else "start"]


def test_colours_are_for_terminals_unless_asked_for(daemon: RunningDaemon, run: Run) -> None:
    place = ["--base-path", str(daemon.base), "--no-pager", "log", "--last", "3"]
    assert "\x1b[" in on_terminal(place, NO_COLOR="")[1]
    assert "\x1b[" not in on_terminal(place, NO_COLOR="1")[1]
    assert "\x1b[" not in on_terminal(place, NO_COLOR="", TERM="dumb")[1]
    assert "\x1b[" not in on_terminal([*place, "--color", "never"], NO_COLOR="")[1]
    assert "\x1b[" in on_terminal([*place, "--color", "always"], NO_COLOR="1")[1]
    assert "\x1b" not in run("log").out
    assert "\x1b[" in run("log", "--color", "always").out
    assert "\x1b" not in run("log", "--color", "always", "--json").out


def test_ids_may_be_cut_to_a_beginning_that_no_other_has(run: Run) -> None:
    assert run("job", "job-b", "--json") == run("job", JOB, "--json")
    ran = run("log", "job-")
    assert (ran.status, ran.out) == (1, "")
    assert ran.error.splitlines() == [
        "perstack-storectl: 2 jobs begin with job-:", f"  {JOB}", f"  {OTHER}"
    ]  # fmt: skip
    assert run("events", "job-b", "byl", "--json").values
    checkpoint = run("checkpoints", JOB, "--json").values[0]["id"]
    assert run("checkpoint", JOB, checkpoint[:5], "--json").values[0]["id"] == checkpoint
    assert "did you mean 'bylphijvovpryj97etk24pgr'?" in run("events", JOB, "bylphijvovpryj97etk24pgX").error


def test_a_job_that_is_known_by_its_events_only_is_found(run: Run, daemon: RunningDaemon) -> None:
    with Client(daemon.endpoint) as client:
        client.store_event(_event("events-only", 1))
    assert [event["id"] for event in run("log", "events-only", "--json").values] == ["e1"]
    assert run("job", "events-only").status == 1


def test_errors_are_retries_stops_and_tools_that_failed(run: Run, daemon: RunningDaemon) -> None:
    failed = {"toolResults": [{"toolName": "exec", "result": [{"type": "textPart", "text": "Error: no"}]}]}
    error = {"error": {"name": "APICallError", "message": "gone", "statusCode": 503, "isRetryable": True}}
    with Client(daemon.endpoint) as client:
        for event in (
            _event("faulty", 1, type="startGeneration"),
            _event("faulty", 2, type="resolveToolResults", **failed),
            _event("faulty", 3, type="retry", reason="overloaded"),
            _event("faulty", 4, type="stopRunByError", **error),
            _event("faulty", 5, type="stopRunByExceededMaxSteps"),
        ):
            client.store_event(event)
    assert [event["id"] for event in run("log", "faulty", "--errors", "--json").values] == [
        "e2", "e3", "e4", "e5"
    ]  # fmt: skip
    lines = run("log", "faulty").lines
    assert lines[1].endswith("exec: Error: no")
    assert lines[3].endswith("APICallError: gone (status 503, may be tried again)")
    (counts,) = run("log", "faulty", "--summary", "--json").values
    assert (counts["errors"], counts["failedTools"]) == (4, {"exec": 1})


def test_events_of_any_shape_are_shown(run: Run, daemon: RunningDaemon) -> None:
    """Fields that the daemon does not check may hold anything, and a terminal gets nothing to act on."""
    fields = (
        "toolCalls", "toolResults", "toolResult", "messages", "newMessages", "inputMessages", "text", "delta",
        "checkpoint", "initialCheckpoint", "error", "reason", "usage", "pendingToolCalls",
    )  # fmt: skip
    nasty = "".join(HOSTILE.values())
    deep: Any = {"contents": [{"text": nasty, "toolName": nasty}], "toolName": nasty, "args": {nasty: nasty}}
    deep |= {"usage": {"totalTokens": nasty}, "delegateTo": [{"expert": {"key": nasty}}], "name": nasty}
    with Client(daemon.endpoint) as client, client.pipeline() as pipeline:
        number = 0
        for type in (*wording.KINDS, "o\u202edd"):
            for filling in (None, 7, nasty, [], [nasty], {}, deep, [deep, deep], {nasty: nasty}, True, 1e300):
                number += 1
                values: Any = dict.fromkeys(fields, filling)
                pipeline.store_event(_event("shapes", number, type=type, expertKey=nasty, **values))
    for form in ([], ["--summary"], ["--verbose"], ["--json"], ["--color", "always"], ["--errors"]):
        ran = run("log", "shapes", *form)
        assert ran.status == 0
        assert acted_on(re.sub(r"\x1b\[\d?\d?m", "", ran.out) + ran.error) == []
        assert not any(line.startswith(("fake", "\rfake")) for line in ran.lines)


def _event(job: str, number: int, **more: Any) -> Any:
    return {
        "type": "t", "id": f"e{number}", "expertKey": "k", "timestamp": 1000 + number,
        "jobId": job, "runId": "r", "stepNumber": number,
    } | more  # fmt: skip


# --- parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x", ">", "1-", "-1", "5-1", "1.5", "\u0665", ">" + "9" * 99])
def test_what_is_no_range_of_steps_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no range of steps"):
        selection.steps(text)


def test_a_run_is_read_only_as_far_as_it_is_needed() -> None:
    """One that begins later is not read before its time has come, from both ends."""
    read: list[int] = []

    def run(first: int) -> Iterator[folding.Item]:
        for time in (first, first + 1):
            read.append(time)
            yield folding.Item({"timestamp": time}, "")

    items = folding.merged([(20.0, run(20)), (9.0, run(10)), (10.5, run(11))])
    assert [next(items).time for _ in range(3)] == [10, 11, 11]
    assert read == [10, 11, 11]
    assert [item.time for item in items] == [12, 20, 21]

    def back(last: int) -> Iterator[folding.Item]:
        for time in (last, last - 1):
            yield folding.Item({"timestamp": time}, "")

    merged = folding.merged([(9, back(8)), (21, back(20)), (8, back(7))], newest_first=True)
    assert [item.time for item in merged] == [20, 19, 8, 7, 7, 6]


def test_context_shows_each_line_once_and_marks_what_is_left_out() -> None:
    items = [folding.Item({"n": n}, str(n)) for n in range(12)]
    found = selection.with_context(iter(items), lambda item: item.event["n"] in {2, 4, 9}, 1)
    assert [None if item is None else item.event["n"] for item in found] == [1, 2, 3, 4, 5, None, 8, 9, 10]


def test_names_are_cut_to_what_tells_them_apart() -> None:
    assert ids.shortest(["abcdef", "abcxyz", "b"], 2) == {"abcdef": "abcd", "abcxyz": "abcx", "b": "b"}
    assert ids.shortest(["run", "run1"], 1) == {"run": "run", "run1": "run1"}


def test_a_coloured_line_is_cut_by_what_is_seen() -> None:
    spans = [Span("日本", "red"), Span("語abc", "dim")]
    plain = style.rendered(spans, 7, coloured=False)
    assert width_of(plain) <= 7
    assert plain.endswith("…")
    assert re.sub(r"\x1b\[\d*m", "", style.rendered(spans, 7, coloured=True)) == plain
    assert style.rendered(spans, 9, coloured=False) == "日本語abc"
