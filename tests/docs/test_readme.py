"""The first example of each README runs as pasted, on a real daemon."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import running_daemon

ROOT = Path(__file__).parents[2]
EXAMPLES = {"README.md": "1 100", "client/python/README.md": "1 1 writer"}


@pytest.mark.parametrize(("page", "prints"), EXAMPLES.items(), ids=EXAMPLES)
def test_the_first_example_runs_as_pasted(page: str, prints: str, tmp_path: Path) -> None:
    """It is a whole program that needs a daemon on ./perstack, and nothing else."""
    found = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found is not None
    program = tmp_path / "example.py"
    program.write_text(found[1])
    with running_daemon(tmp_path / "perstack"):
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", prints)
