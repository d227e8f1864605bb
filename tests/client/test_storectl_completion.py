"""Completion in bash, zsh and fish: names from the parser, ids from the daemon."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_storage._storectl import cli, completion
from perstack_storage._storectl.arguments import make_parser
from tests.helpers.daemon import RunningDaemon, captured_run, running_daemon, under_other_job
from tests.helpers.replay import METHODS
from tests.helpers.storectl import Run, runner
from tests.systemd.debian import need

RUNS = ["run1", "bylphijvovpryj97etk24pgr", "qnb0g3gw0k7cnarzra1ycvw4", "k056jqvcwte54y5cfz664430"]
HOSTILE_ID = "job-$(touch owned) `touch owned`"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One that holds captured run b, and a job whose id a shell would act on."""
    with running_daemon(tmp_path_factory.mktemp("completion") / "perstack") as running:
        with Client(running.endpoint) as client, client.pipeline() as pipeline:
            for op, value in captured_run("b"):
                getattr(pipeline, METHODS[op])(under_other_job(value, "job-beta"))
            first = next(value for op, value in captured_run("b") if op == "storeJob")
            pipeline.store_job({**first, "id": HOSTILE_ID, "startedAt": 1})
        yield running


@pytest.fixture
def run(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(daemon.base, capsys, monkeypatch)


@pytest.fixture
def offered(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A function that gives what fits after words."""

    def call(*words: str) -> list[str]:
        assert cli.main(["__complete", "bash", "--base-path", str(daemon.base), *words]) == 0
        return capsys.readouterr().out.splitlines()

    return call


def test_ids_come_from_the_daemon(offered: Any) -> None:
    assert offered("log", "") == ["job-beta"]
    assert offered("events", "job-beta", "b") == [RUNS[1]]
    assert set(RUNS) < set(offered("events", "job-b", ""))
    assert offered("log", "--run", "run") == ["run1"]
    assert offered("log", "job-beta", "--errors", "--run=x", "--run", "run") == ["run1"]
    assert offered("checkpoint", "job-beta", "p2") == ["p2ze8oz6d0hy82bwrghl6don"]
    assert offered("diff", "p2ze8oz6d0hy82bwrghl6don", "z3") == ["z30ao866qmkjcqti4m1gxjlf"]
    assert offered("follow", "--job", "j") == ["job-beta"]


def test_names_and_choices_come_from_the_parser(offered: Any) -> None:
    assert offered("che") == ["checkpoints", "checkpoint"]
    assert offered("put", "run") == ["run-setting"]
    assert offered("jobs", "--color", "") == ["auto", "always", "never"]
    assert offered("log", "--s") == ["--show-secrets", "--step", "--summary"]
    assert offered("jobs", "--limit", "") == []
    assert offered("nonsense", "x") == []


def test_without_a_daemon_no_ids_are_offered_and_nothing_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["__complete", "bash", "--base-path", str(tmp_path), "log", ""]) == 0
    assert capsys.readouterr() == ("", "")


# --- in the shells -----------------------------------------------------------------------------------


def in_shell(shell: str, text: str, daemon: RunningDaemon, folder: Path) -> str:
    """What a shell prints, with the command found by its name."""
    need(shutil.which(shell) is not None, f"install {shell}")
    programs = Path(sys.executable).parent
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder),
        "PERSTACK_STORED_BASE": str(daemon.base),
    }  # fmt: skip
    ran = subprocess.run(
        [shell, "-c", text],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=120,
    )
    assert ran.stderr == ""
    assert not (folder / "owned").exists()
    return ran.stdout


def test_bash_offers_ids(daemon: RunningDaemon, tmp_path: Path) -> None:
    for words, expected in (
        (["log", "j"], ["job-beta"]), (["events", "job-beta", "b"], [RUNS[1]]),
        (["log", "--run", "ru"], ["run1"]), (["jobs", "--color", "al"], ["always"]),
        (["log", "--su"], ["--summary"]), (["log", "job-beta", "--context", ""], []),
    ):  # fmt: skip
        line = " ".join(f"'{word}'" for word in ("perstack-storectl", *words))
        text = (
            f"{completion.script(make_parser())}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
            '_perstack_storectl; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        assert in_shell("bash", text, daemon, tmp_path).split() == expected, words


def test_zsh_offers_ids(daemon: RunningDaemon, tmp_path: Path) -> None:
    text = (
        f"{completion.script(make_parser())}\nsetopt ksh_arrays\n"
        "COMP_WORDS=(perstack-storectl log j); COMP_CWORD=2\n"
        '_perstack_storectl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert in_shell("zsh", text, daemon, tmp_path).split() == ["job-beta"]


def test_fish_offers_all_with_what_they_mean(daemon: RunningDaemon, run: Run, tmp_path: Path) -> None:
    script = run("completion", "fish").out
    for line, expected in (
        ("perstack-storectl log j", "job-beta\n"),
        ("perstack-storectl lo", "log\tPrint what happened in a job, line by line\n"),
        ("perstack-storectl log --sum", "--summary\tcount them instead\n"),
        ("perstack-storectl --base-path /us", "/usr/\tDirectory\n"),
    ):
        text = f"{script}\ncomplete -C '{line}'"
        assert in_shell("fish", text, daemon, tmp_path) == expected
