"""A terminal with a shell in it, as a person has it: programs see a terminal, and ^C is a key."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Self

# A prompt that no program prints, with the status of the last command.
_PROMPT = r"\035$?\036"
_PROMPTED = re.compile("\x1d(\\d+)\x1e")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SET_UP = f"stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; PS2=; PS1='{_PROMPT}'\n"
_ROWS, _COLUMNS = 200, 200
_SECONDS = 240.0
_END_SECONDS = 20.0


class Terminal:
    """Use it as a context: what still runs at the end is hung up on, then killed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment,
        )  # fmt: skip
        os.close(slave)
        self._text = ""
        os.write(self._master, _SET_UP.encode())
        self.wait_prompt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._shell.pid, signal.SIGHUP)
        try:
            self._shell.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
        os.close(self._master)

    def type(self, command: str) -> None:
        """Type a command and press Enter; what was shown before is forgotten."""
        self._text = ""
        os.write(self._master, f"{command}\n".encode())

    def interrupt(self) -> None:
        """Press ^C."""
        self._text = ""
        os.write(self._master, b"\x03")

    def lines(self) -> list[str]:
        """Lines that the command has shown so far, without colours."""
        self._read(0)
        shown = _COLOUR.sub("", _PROMPTED.sub("", self._text)).replace("\r\n", "\n").removeprefix("^C")
        # What was printed over stays last, as a progress bar does.
        lines = [line.rsplit("\r", 1)[-1].rstrip() for line in shown.split("\n")[:-1]]
        return lines[1:] if lines and not lines[0] and shown.startswith("\n") else lines

    def wait_prompt(self) -> int:
        """Wait until the command ends; return its status."""
        deadline = time.monotonic() + _SECONDS
        while not (found := _PROMPTED.search(self._text)):
            assert time.monotonic() < deadline, f"it has not ended:\n{self._text}"
            self._read(1.0)
        return int(found[1])

    def wait_lines(self) -> None:
        """Wait for more lines of a command that goes on."""
        assert not _PROMPTED.search(self._text), f"it has ended:\n{self._text}"
        self._read(1.0)

    def _read(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            self._text += os.read(self._master, 65536).decode(errors="replace")
            seconds = 0
