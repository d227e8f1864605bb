"""Where no daemon can start, the command is not run, and the reason is said."""

import subprocess
from pathlib import Path

from tests.integration.exec.commands import python, run


def test_the_last_words_of_a_daemon_that_does_not_start_are_shown(base: Path) -> None:
    """Nothing is run then."""
    base.mkdir()
    (base / "jobs").symlink_to("/etc")
    done = run(base, "touch", str(base / "ran"))
    assert done.returncode == 125
    assert "jobs/ in the base must be a folder" in done.stderr
    assert not (base / "ran").exists()


def test_a_base_that_an_offline_tool_holds_is_refused(base: Path) -> None:
    """The tool is named."""
    assert run(base, "true").returncode == 0
    code = (
        "import sys; from perstack_stored.offline.locked import locked_datadir\n"
        "with locked_datadir(sys.argv[1], 'rebuild', reads_only=False):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        python(code, str(base)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    done = run(base, "true")
    assert done.returncode == 125
    assert f"held by the rebuild with process id {holder.pid}" in done.stderr
    holder.communicate("\n")
