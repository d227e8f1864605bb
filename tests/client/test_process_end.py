"""A process that ends with a client in use: its end does not hang on the client's thread."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = 60
END_SECONDS = 30


def test_a_process_ends_at_any_step_of_its_pump(endpoint: str) -> None:
    """The interpreter ends daemon threads within any step; what one held then, nobody may wait for."""
    command = [sys.executable, "-m", "tests.client.ending_process", endpoint, str(STEPS), str(END_SECONDS)]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=END_SECONDS + 60
    )
    assert (told.stdout, told.stderr, told.returncode) == ("[]\n", "", 0)
