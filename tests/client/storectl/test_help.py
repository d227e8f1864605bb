"""perstack-storectl: help, completion, what it needs, and a daemon that is stopped."""

import subprocess
import sys
from pathlib import Path

import pytest

from perstack_storage._storectl import completion
from perstack_storage._storectl.arguments import make_parser
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.storectl import COMMAND, Run

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
