"""Ctrl-C ends both commands, also where it comes in a finalizer."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys
from {module} import end_at_lost_interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored


class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


class Faulty:
    def __del__(self):
        raise ValueError("of a finalizer")


if {ends}:
    end_at_lost_interrupts()
Faulty()
Interrupted()
sys.exit(7)
"""


@pytest.mark.parametrize("module", ["perstack_storage.__main__", "perstack_stored.process.lost_interrupts"])
@pytest.mark.parametrize("ends", [True, False])
def test_an_interrupt_in_a_finalizer_ends_the_process(module: str, *, ends: bool) -> None:
    """Without the hook it is lost; other faults of a finalizer are still printed, and end nothing."""
    program = PROGRAM.format(module=module, ends=ends)
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == (-signal.SIGINT if ends else 7)
    assert "of a finalizer" in ran.stderr
    assert ("KeyboardInterrupt" in ran.stderr) != ends
