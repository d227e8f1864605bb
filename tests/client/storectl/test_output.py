"""What perstack-storectl shows: no secrets, no wider than the terminal, nothing that it acts on."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._core.masking import masked
from perstack_storage._views import cells, units
from perstack_stored.model.masking import mask
from tests.client.storectl.given import CANARY, JOB, RUN, checkpoint_of, event, job_of, setting
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.storectl import COMMAND, Run, on_terminal
from tests.hostile.texts import HOSTILE, acted_on


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
