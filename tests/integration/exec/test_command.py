"""The command stores without other set-up, and runs as it would alone."""

import subprocess
from pathlib import Path

from tests.helpers import commands
from tests.helpers.daemon import files_of, running_daemon
from tests.integration.exec.commands import PROGRAM, is_served, python, run


def test_a_program_that_stores_needs_no_other_set_up(base: Path) -> None:
    """After it everything is in the tree, no daemon serves the base, and `check` finds nothing."""
    done = run(None, *python(PROGRAM, "job-1"), cwd=base.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{base}/jobs\n"
    assert len(files_of(base)) == 301
    assert not is_served(base)
    assert not (base / ".stored/stored.sock").exists()
    assert commands.run("check", "--base-path", str(base)).returncode == 0


def test_the_command_runs_as_it_would_alone_but_for_two_variables(base: Path) -> None:
    """No signal is blocked or ignored because Python did so: a broken pipe ends it."""
    command = (
        *("sh", "-c"),
        "echo $PERSTACK_STORED_BASE $PERSTACK_STORED_ENDPOINT; grep -E '^Sig(Blk|Ign)' /proc/self/status",
    )
    told, *masks = run(base, *command).stdout.splitlines()
    assert told == f"{base} ipc://{base}/.stored/stored.sock"
    # What the caller ignores, as under nohup, is left so; what Python ignores is undone for a child.
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    ours = 0x7FFFFFFF  # the C library has others for itself
    assert [int(mask.split()[1], 16) & ours for mask in masks] == [
        int(mask.split()[1], 16) & ours for mask in alone
    ]


def test_the_exit_status_is_that_of_the_command(base: Path) -> None:
    """Or what shells say of one that can't be run."""
    with running_daemon(base):
        for command, status in (
            (("sh", "-c", "exit 7"), 7),
            (("sh", "-c", "kill -KILL $$"), 137),
            (("no-such-program",), 127),
            (("/etc/hostname",), 126),
        ):
            assert run(base, *command).returncode == status
