"""perstack-storectl against a real daemon: each command, on a terminal, in a pipe and as JSON."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._core.masking import masked
from perstack_storage._storectl import completion
from perstack_storage._storectl.arguments import make_parser
from perstack_storage._views import cells, units
from perstack_stored.model.masking import mask
from tests.helpers.daemon import RunningDaemon, captured_run, eventually, golden, running_daemon
from tests.helpers.replay import METHODS
from tests.helpers.storectl import COMMAND, Run, on_terminal, runner
from tests.hostile.texts import HOSTILE, acted_on
from tests.offline.bases import USAGE

CANARY = "canary-7f3a"
JOB, RUN = "job1", "run1"


def setting() -> dict[str, Any]:
    values = [call for call in _calls_of_golden() if "providerConfig" in call]
    found: dict[str, Any] = json.loads(json.dumps(values[0]))
    found |= {
        "jobId": JOB,
        "runId": RUN,
        "perstackApiKey": CANARY,
        "proxyUrl": f"http://user:{CANARY}@proxy:80",
        "env": {"HOME": CANARY, "OTHER": {"deep": CANARY}},
        "providerConfig": {
            "providerName": "amazon-bedrock",
            "apiKey": CANARY,
            "accessKeyId": CANARY,
            "secret_access_key": CANARY,
            "headers": {"X-Any": CANARY},
            "nested": [{"session-token": CANARY, "credentials": {"client": CANARY}}],
        },
    }
    return found


def _calls_of_golden() -> Iterator[dict[str, Any]]:
    def within(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            yield value
            for item in value.values():
                yield from within(item)
        elif isinstance(value, list):
            for item in value:
                yield from within(item)

    return within(golden())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run a and a setting full of secrets. Tests that store use other jobs."""
    with running_daemon(tmp_path_factory.mktemp("storectl") / "perstack") as running:
        with Client(running.endpoint) as client:
            with client.pipeline() as pipeline:
                for op, value in captured_run("a"):
                    getattr(pipeline, METHODS[op])(value)
            client.redact_run_setting(setting())  # of other secrets: these are left
            client.store_run_setting(setting())
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as client:
        yield client


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


def event(job: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "t", "id": f"e{number}", "expertKey": "k", "timestamp": 1000 + number,
        "jobId": job, "runId": "r", "stepNumber": number,
    } | more  # fmt: skip


# --- each command ------------------------------------------------------------------------------------


def test_ping(run: Run, daemon: RunningDaemon) -> None:
    assert run("ping").out.startswith(f"{daemon.endpoint} answered in ")
    (value,) = run("ping", "--json").values
    assert value["endpoint"] == daemon.endpoint
    assert 0 < value["ms"] < 5000


def test_stats(run: Run) -> None:
    names = [line.split()[0] for line in run("stats").lines]
    assert {"position", "journal.syncs", "index.lagRecords", "reads.following"} <= set(names)
    assert run("stats", "--json").values[0]["position"] > 0


def test_jobs_and_job(run: Run, client: Client) -> None:
    client.store_event(event("events-only", 1))
    jobs = client.list_jobs()
    title, *rows = run("jobs").lines
    assert title.split()[:3] == ["JOB", "STATUS", "RUNS"]
    assert [row.split()[0] for row in rows] == [job["jobId"] for job in jobs]
    assert {JOB, "events-only"} <= {job["jobId"] for job in jobs}
    assert run("jobs", "--json").values == jobs
    assert run("jobs", "--status", "completed", "--json").values == client.list_jobs(status="completed")
    assert run("jobs", "--expert", "main", "--json").values == client.list_jobs(expert_key="main")
    assert [value["jobId"] for value in run("jobs", "--json", "--since", "2026-01-01").values] == [JOB]
    assert JOB not in run("jobs", "--until", "2026-01-01").out
    assert run("job", JOB, "--json").values == [client.retrieve_job(JOB)]
    tokens = [line.split()[0] for line in run("job", JOB).lines if "totalTokens" in line]
    assert tokens == ["usage.totalTokens"]
    (started,) = [line.split() for line in run("job", JOB).lines if line.startswith("startedAt")]
    assert started[2:] == units.when(int(started[1])).split()


def test_runs(run: Run, client: Client) -> None:
    runs = client.list_runs()
    title, *rows = run("runs").lines
    assert title.split()[:2] == ["JOB", "RUN"]
    assert [row.split()[:2] for row in rows] == [[v["jobId"], v["runId"]] for v in runs]
    assert run("runs", "--json").values == runs
    assert [value["runId"] for value in run("runs", JOB, "--json").values] == [RUN]
    assert run("runs", JOB).lines[1].split()[:3] == [RUN, "main", "completed"]


def test_settings(run: Run, client: Client) -> None:
    title, *rows = run("settings").lines
    assert title.split()[:2] == ["JOB", "RUN"]
    assert [row.split()[:2] for row in rows] == [[v["jobId"], v["runId"]] for v in client.get_all_runs()]
    assert run("settings", "--json", "--show-secrets").values == client.get_all_runs()


def test_checkpoints_and_checkpoint(run: Run, client: Client) -> None:
    checkpoints = client.get_checkpoints_by_job_id(JOB)
    assert len(checkpoints) == 8
    _, *rows = run("checkpoints", JOB).lines
    assert [row.split()[0] for row in rows] == [checkpoint["id"] for checkpoint in checkpoints]
    assert run("checkpoints", JOB, "--json").values == checkpoints
    first = checkpoints[0]["id"]
    assert run("checkpoint", JOB, first, "--json").values == checkpoints[:1]
    assert run("checkpoint", JOB, first).lines[0].split() == ["id", first]


def test_events(run: Run, client: Client) -> None:
    metas, contents = client.get_events_by_run(JOB, RUN), client.get_event_contents(JOB, RUN)
    _, *rows = run("events", JOB, RUN).lines
    assert [row.split()[2:] for row in rows] == [[str(m["stepNumber"]), m["type"]] for m in metas]
    assert run("events", JOB, RUN, "--json").values == metas
    assert run("events", JOB, RUN, "--json", "--contents").values == contents
    assert run("events", JOB, RUN, "--json", "--contents", "--max-step", "1").values == [
        content for content in contents if content["stepNumber"] <= 1
    ]
    assert run("events", JOB, RUN, "--json", "--max-step", "0").values == []
    assert contents[0]["id"] in run("events", JOB, RUN, "--contents").lines[1]


def test_what_was_there_at_a_position_or_time(run: Run, client: Client) -> None:
    """By each command that reads one job; a position that is not there is no answer."""
    positions = [client.store_checkpoint(checkpoint_of("then") | {"status": status}) for status in ("a", "b")]
    client.store_event(event("then", 1))
    at = str(positions[0])
    ((id, status),) = [
        (v["id"], v["status"]) for v in run("checkpoints", "then", "--as-of", at, "--json").values
    ]
    assert status == "a"
    assert run("checkpoint", "then", id, "--as-of", at, "--json").values[0]["status"] == "a"
    assert run("checkpoint", "then", id, "--as-of", "2020-01-01").status == 1
    assert run("events", "then", "r", "--as-of", at, "--json").values == []
    assert len(run("events", "then", "r", "--contents", "--as-of", "0s", "--json").values) == 1
    found = run("job", JOB, "--as-of", "0")
    assert (found.status, "as of position 0" in found.error) == (1, True)
    found = run("job", JOB, "--as-of", "99999999")
    assert (found.status, "not in this history" in found.error) == (1, True)
    assert run("job", JOB, "--as-of", "yesterday").status == 2
    assert run("events", "then", "r", "--as-of", at, "--follow").status == 2


def test_a_listing_is_cut_and_gone_on_with(run: Run, client: Client) -> None:
    expected = client.get_events_by_run(JOB, RUN)
    found: list[Any] = []
    more: list[str] = []
    while True:
        ran = run("events", JOB, RUN, "--json", "--limit", "150", *more)
        found += ran.values
        if not ran.error:
            break
        assert "there are more: --after '" in ran.error
        more = ["--after", ran.error.split("'")[1]]
    assert found == expected
    assert len(found) > 300


def test_events_follow_gives_those_that_are_there_in_the_order_stored(run: Run, client: Client) -> None:
    expected = [
        record["value"]
        for record in client.follow(job_id=JOB, run_id=RUN, idle_s=0)
        if record["op"] == "storeEvent"
    ]
    arguments = ("events", JOB, RUN, "--follow", "--idle", "0")
    assert run(*arguments, "--contents", "--json").values == expected
    assert [line.split()[3] for line in run(*arguments).lines] == [value["type"] for value in expected]
    assert len(run(*arguments, "--limit", "3").lines) == 3
    assert {value["stepNumber"] for value in run(*arguments, "--max-step", "1", "--json").values} <= {0, 1}


def test_follow(run: Run, client: Client) -> None:
    records = client.read_all()
    everything = run("follow", "--idle", "0", "--json", "--show-secrets")
    assert everything.values[: len(records)] == records
    some = run("follow", "--after", "5", "--limit", "3", "--json").values
    assert [record["position"] for record in some] == [6, 7, 8]
    lines = run("follow", "--job", JOB, "--run", RUN, "--idle", "0").lines
    assert lines[0].split()[0] == str(client.read_all()[1]["position"])
    assert f"{JOB}/{RUN}" in lines[0]


def test_follow_goes_on_at_a_named_cursor(run: Run, client: Client) -> None:
    """With --commit it moves to what was printed last, and no further."""
    positions = [client.store_event(event("named", number)) for number in range(3)]
    follow = ("follow", "--name", "printer", "--job", "named", "--json", "--idle", "0")
    assert [value["position"] for value in run(*follow).values] == positions
    assert run("cursors", "--json").values == []
    printed = run(*follow, "--commit", "--limit", "2")
    assert (printed.status, [value["position"] for value in printed.values]) == (0, positions[:2])
    (cursor,) = run("cursors", "--json").values
    assert (cursor["name"], cursor["position"]) == ("printer", positions[1])
    assert [value["position"] for value in run(*follow, "--commit").values] == positions[2:]
    assert run(*follow, "--commit").values == []
    title, row = run("cursors").lines
    assert title.split()[:3] == ["CURSOR", "POSITION", "LAG"]
    assert row.split()[0] == "printer"
    missing = run("cursors", "--delete", "print")
    assert (missing.status, "did you mean 'printer'" in missing.error) == (1, True)
    assert run("cursors", "--delete", "printer").out.startswith("deleted cursor printer")
    assert run("cursors", "--json").values == []
    assert run("follow", "--commit").status == 2


def test_follow_goes_on_with_what_is_stored_from_now_on(daemon: RunningDaemon, client: Client) -> None:
    """Each line comes at once, also in a pipe; Ctrl-C ends it without a word."""
    arguments = ["follow", "--job", "followed", "--json", "--base-path", str(daemon.base)]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for number in range(3):
            client.store_event(event("followed", number))
            assert json.loads(process.stdout.readline())["value"] == event("followed", number)
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=120)
    assert (process.returncode, rest, error) == (130, b"", b"")


# --- put ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        (json.dumps, 1),
        (lambda value: json.dumps(value, indent=2), 1),
        (lambda value: "\n" + json.dumps(value) + "\n\n" + json.dumps(value | {"id": "other"}), 2),
    ],
)
def test_put_takes_one_value_or_a_line_for_each(
    run: Run, client: Client, layout: Callable[[Any], str], count: int, request: pytest.FixtureRequest
) -> None:
    job = f"put-{abs(hash(request.node.name))}"
    ran = run("put", "event", "--json", given=layout(event(job, 1)).encode())
    assert (ran.status, ran.error) == (0, "")
    found = list(client.follow(job_id=job, idle_s=0))
    assert [record["position"] for record in found] == [value["position"] for value in ran.values]
    assert len(found) == count


def test_put_takes_every_kind(run: Run, client: Client) -> None:
    calls = captured_run("a")
    job = {**next(value for op, value in calls if op == "storeJob"), "id": "kinds"}
    checkpoint = {**next(value for op, value in calls if op == "storeCheckpoint"), "jobId": "kinds"}
    run_setting = {**setting(), "jobId": "kinds"}
    kinds = {
        "job": job, "checkpoint": checkpoint, "event": event("kinds", 1), "run-setting": run_setting
    }  # fmt: skip
    for kind, value in kinds.items():
        assert run("put", kind, given=json.dumps(value).encode()).out.startswith("stored a value at position")
    values = [record["value"] for record in client.follow(job_id="kinds", idle_s=0)]
    assert values == [job, checkpoint, event("kinds", 1), run_setting]


def test_put_says_which_values_were_refused_and_stores_the_others(run: Run, client: Client) -> None:
    values = [event("refused", 1), event("refused", 2, timestamp="soon"), event("refused", 3)]
    ran = run("put", "event", given="\n".join(map(json.dumps, values)).encode())
    assert ran.status == 1
    assert "value 2: timestamp" in ran.error
    assert "stored 2 values" in ran.out
    assert [e["id"] for e in client.get_event_contents("refused", "r")] == ["e1", "e3"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"", "empty"),
        (b"{", "line 1 is not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps(event("torn", 1)).encode() + b'\n{"a":', "line 2 is not JSON"),
    ],
)
def test_put_of_what_is_no_value_says_so(run: Run, given: bytes, sentence: str) -> None:
    ran = run("put", "event", given=given)
    assert ran.status == 1
    assert sentence in ran.error
    assert ("1 before it were stored" in ran.error) == (b"torn" in given)


# --- exit status, secrets, terminals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["job", "none"], 1, "job not found: none"),
        (["checkpoint", JOB, "none"], 1, "checkpoint not found: none"),
        (["events", JOB, "none"], 1, "run not found: none"),
        (["checkpoints", "none"], 1, "job not found: none"),
        (["log", "none"], 1, "job not found: none"),
        (["log", JOB, "--run", "none"], 1, "run not found: none"),
        (["job", "jbo1"], 1, "did you mean 'job1'?"),
        (["jbos"], 2, "did you mean 'jobs'?"),
        (["log", "--step", "5-1"], 2, "invalid step"),
        (["log", "--sumary"], 2, "did you mean '--summary'?"),
        (["log", "--step", "x"], 2, "invalid step"),
        (["follow", "--since", "yesterday"], 2, "invalid time"),
        (["follow", "--new", "--last", "3"], 2, "not allowed with"),
        (["job", "a/b"], 1, "BAD_REQUEST"),
        (["follow", "--after", "99999999"], 1, "POSITION_GONE"),
        ([], 2, "usage"),
        (["nothing"], 2, "invalid choice"),
        (["jobs", "--limit", "0"], 2, "integer from 1 on"),
        (["jobs", "--after", "{}"], 2, "invalid cursor"),
        (["put", "thing"], 2, "invalid choice"),
        (["follow", "--run", "r"], 2, "--run needs --job"),
        (["events", "j", "r", "--follow", "--after", "[]"], 2, "--after"),
        (["events", "j", "r", "--idle", "1"], 2, "--idle"),
        (["--timeout", "0", "ping"], 2, "--timeout"),
        (["--timeout", "0.2", "--endpoint", "ipc:///nowhere/none.sock", "ping"], 3, "perstack-stored serve"),
    ],
)
def test_the_exit_status_says_what_happened(
    run: Run, arguments: list[str], status: int, sentence: str
) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert sentence in ran.error


def test_without_a_runtime_folder_a_base_too_deep_is_a_matter_of_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert run("--base-path", "/" + "x" * 120, "ping").status == 2


def test_no_secret_is_shown_unless_asked_for(run: Run) -> None:
    for arguments in (["settings"], ["follow", "--job", JOB, "--idle", "0"]):
        for form in ([], ["--json"]):
            hidden = run(*arguments, *form)
            assert hidden.status == 0
            assert CANARY not in hidden.out + hidden.error
        assert CANARY in run(*arguments, "--json", "--show-secrets").out
    value = next(value for value in run("settings", "--json").values if value["jobId"] == JOB)
    assert value["env"] == {"HOME": "***", "OTHER": "***"}
    assert value["providerConfig"]["providerName"] == "amazon-bedrock"
    assert value["proxyUrl"] == "http://***@proxy:80"


def test_the_client_and_the_daemon_s_tools_hide_the_same() -> None:
    assert masked(setting()) == json.loads(mask(json.dumps(setting()).encode()))


def test_a_table_is_no_wider_than_the_terminal(daemon: RunningDaemon) -> None:
    place = ["--base-path", str(daemon.base)]
    status, text = on_terminal([*place, "--no-pager", "events", JOB, RUN, "--contents", "--limit", "20"])
    lines = text.splitlines()
    assert (status, len(lines)) == (0, 21)
    assert max(len(line) for line in lines) == 60
    assert all(line.endswith("…") for line in lines[1:])


def test_on_a_terminal_a_listing_goes_through_the_pager(daemon: RunningDaemon) -> None:
    place = ["--base-path", str(daemon.base)]
    status, text = on_terminal([*place, "events", JOB, RUN], PAGER="sed s/^/paged:/")
    assert status == 0
    assert len(text.splitlines()) > 300
    assert all(line.startswith("paged:") for line in text.splitlines())
    status, text = on_terminal([*place, "events", JOB, RUN, "--contents"], PAGER="head -n 2")
    assert (status, len(text.splitlines())) == (0, 2)  # a reader who leaves is no error
    status, text = on_terminal([*place, "jobs"], PAGER="no-such-pager")
    assert (status, text.split()[0]) == (0, "JOB")


def test_a_reader_that_closes_the_pipe_causes_no_error(daemon: RunningDaemon) -> None:
    place = ["--base-path", str(daemon.base)]
    with subprocess.Popen(
        [*COMMAND, *place, "follow", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 141


def test_a_terminal_is_sent_nothing_that_it_would_act_on(run: Run) -> None:
    nasty = "\x1b[2J\x9b1m\u202e\ud800\n"
    given = json.dumps(event("nasty", 1, text=nasty, expertKey=nasty)).encode()
    assert run("put", "event", given=given).status == 0
    for form in ([], ["--json"]):
        ran = run("events", "nasty", "r", "--contents", *form)
        assert ran.status == 0
        assert not set(nasty[:-1]) & {char for char in ran.out if not char.isprintable()}
    assert ran.values[0]["text"] == nasty


ODD_ID = 'o\u202edd\'; $(touch owned) `touch owned` "b" #'


class TestHostileTexts:
    """On a daemon of their own: the other tests take listings apart by their spaces."""

    @pytest.fixture
    def daemon(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
        with running_daemon(tmp_path_factory.mktemp("hostile") / "perstack") as running:
            yield running

    def test_no_command_prints_what_a_terminal_would_act_on(self, run: Run, client: Client) -> None:
        """Of keys, values, ids and errors, as a table and as JSON."""
        nasty: Any = {text: text for text in HOSTILE.values()} | {
            "nested": {text: [1] for text in HOSTILE.values()}
        }
        client.store_job(job_of(ODD_ID) | nasty | {"coordinatorExpertKey": "\x1b[2J", "status": "\nfake"})
        client.store_checkpoint(checkpoint_of(ODD_ID) | nasty)
        client.store_run_setting(setting() | {"jobId": ODD_ID, "model": "\x1b[2J"} | nasty)
        for number, text in enumerate(HOSTILE.values()):
            client.store_event(event(ODD_ID, number, expertKey=text) | nasty)
        for arguments in (
            ("jobs",), ("job", ODD_ID), ("runs",), ("runs", ODD_ID), ("settings",),
            ("checkpoints", ODD_ID), ("checkpoint", ODD_ID, "c"),
            ("events", ODD_ID, "r"), ("events", ODD_ID, "r", "--contents"), ("stats",), ("ping",),
            ("events", ODD_ID, "r", "--follow", "--idle", "0", "--contents"), ("follow", "--idle", "0"),
            ("job", "\u202eunknown"), ("checkpoint", ODD_ID, "\u202eunknown"), ("job", "\x1b[2J"),
            ("jobs", "--limit", "1"), ("follow", "--after", "999999999"), ("\x1b[2J",), ("jobs", "--\x1b[2J"),
            ("follow", "--store", "\x1b[2J\nfake", "--idle", "0"),
        ):  # fmt: skip
            for form in ([], ["--json"]):
                ran = run(*arguments, *form)
                assert acted_on(ran.out + ran.error) == [], arguments
                assert "\nfake" not in ran.out + ran.error, arguments
        for given in (b'{"\\u001b[2J": 1}', b'{"id": "\\u001b[2J"}', b"\x1b[2J", '{"\u202e'.encode()):
            ran = run("put", "job", given=given)
            assert ran.status == 1
            assert acted_on(ran.out + ran.error) == []

    def test_the_hint_how_to_go_on_can_be_pasted(self, run: Run, client: Client, tmp_path: Path) -> None:
        """A shell gives the command what was meant, and runs nothing that stands in an id."""
        client.store_job(job_of(ODD_ID) | {"startedAt": 2**52})
        client.store_job(job_of(ODD_ID + "2") | {"startedAt": 2**52 - 1})
        hint = run("jobs", "--limit", "1").error.partition("there are more: ")[2]
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {hint}"], capture_output=True, check=True, cwd=tmp_path
        ).stdout.split(b"\0")
        assert json.loads(words[1])[0] == 2**52
        assert list(tmp_path.iterdir()) == []
        ran = run("jobs", "--json", "--limit", "1", "--after", words[1].decode())
        assert ran.values[0]["jobId"] == ODD_ID + "2"


def test_follow_goes_on_from_a_position_of_the_same_history(run: Run, client: Client) -> None:
    """With --store and --epoch as they were printed; with others it says that the position is gone."""
    client.store_event(event("again", 1))
    newest = run("follow", "--json", "--idle", "0").values[-1]
    place = ("follow", "--json", "--idle", "0", "--after", str(newest["position"]))
    store = client.hello()["store"]
    assert run(*place, "--store", store, "--epoch", newest["epoch"]).status == 0
    for wrong in (("--store", "0" * 32), ("--epoch", "1-0000000000000000")):
        ran = run(*place, *wrong)
        assert ran.status == 1
        assert "POSITION_GONE" in ran.error


def job_of(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "status": "s",
        "coordinatorExpertKey": "k",
        "totalSteps": 0,
        "usage": USAGE,
        "startedAt": 1,
    }


def checkpoint_of(job: str) -> dict[str, Any]:
    return {
        "id": "c", "jobId": job, "runId": "r", "status": "s", "stepNumber": 1, "messages": [], "usage": USAGE,
        "expert": {"key": "k", "name": "n", "version": "v"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "width", "fits"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 4, "abc…"),
        ("日本語", 4, "日… "),
        ("日本語", 6, "日本語"),
        ("", 2, "  "),
    ],
)
def test_cells_are_cut_and_filled_by_what_a_terminal_shows(text: str, width: int, fits: str) -> None:
    assert cells.fitted(text, width) == fits


def test_times_that_are_none_are_shown_as_they_are() -> None:
    assert [units.when(value) for value in (None, 1e300, "x")] == ["", "1e+300", "x"]


# --- help and completion -----------------------------------------------------------------------------

COMMANDS = [
    "ping", "stats", "jobs", "job", "runs", "settings", "checkpoints", "checkpoint", "events", "log", "tree",
    "usage", "diff", "put", "follow",
]  # fmt: skip


@pytest.mark.parametrize("command", [None, *COMMANDS, "completion"])
def test_help_names_every_option_with_what_it_does(run: Run, command: str | None) -> None:
    ran = run(*([command] if command else []), "--help")
    assert ran.status == 0
    assert "--base-path DIR" in ran.out
    assert "None" not in ran.out
    if command is None:
        assert all(f"  {name} " in ran.out for name in COMMANDS)
        assert "exit status" in ran.out


def _completed(script: str, *words: str) -> list[str]:
    """What bash would offer after these words."""
    line = " ".join(f"'{word}'" for word in ("perstack-storectl", *words))
    text = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
        '_perstack_storectl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-eu", "-c", text], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return [word for word in ran.stdout.splitlines() if word]


def test_completion_offers_commands_options_and_kinds(run: Run) -> None:
    ran = run("completion", "bash")
    assert ran.status == 0
    assert ran.out == run("completion", "zsh").out == completion.script(make_parser())
    subprocess.run(["bash", "-n"], input=ran.out, text=True, check=True)
    assert set(COMMANDS) < set(_completed(ran.out, ""))
    assert _completed(ran.out, "check") == ["checkpoints", "checkpoint"]
    assert _completed(ran.out, "--base-path", "/somewhere", "pu") == ["put"]
    assert _completed(ran.out, "put", "run") == ["run-setting"]
    assert _completed(ran.out, "events", "j", "r", "--max") == ["--max-step"]
    assert _completed(ran.out, "events", "j", "r", "--max-step", "") == []
    assert _completed(ran.out, "--base-path", "/us") == ["/usr"]


def test_the_command_is_installed_and_needs_the_client_s_packages_only(daemon: RunningDaemon) -> None:
    """With the daemon's packages out of reach it works all the same."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['click','msgspec','structlog','crc32c'])); "
    code = blocked + "from perstack_storage.__main__ import main; main()"
    arguments = [sys.executable, "-c", code, "--base-path", str(daemon.base), "ping"]
    assert subprocess.run(arguments, check=True, capture_output=True).stdout
    installed = Path(sys.executable).with_name("perstack-storectl")
    assert subprocess.run([installed, "--version"], check=True, capture_output=True).stdout


def test_a_daemon_that_is_stopped_is_waited_for(tmp_path: Path) -> None:
    """Within --timeout the command rides out a restart."""
    with running_daemon(tmp_path / "perstack") as daemon:
        daemon.kill()
        arguments = [*COMMAND, "--base-path", str(daemon.base), "ping"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            daemon.start()
            eventually(lambda: process.poll() is not None, "it has ended")
        assert process.returncode == 0
