"""Recording clients in processes of their own, started and ended together."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CLIENT = "client"  # ours, for Python; the others speak the protocol themselves
DELETING = "deleting"
ALL_KINDS = ("awaiting", "streaming", "batching", "large", DELETING, CLIENT)
_END_SECONDS = 240


class Load:
    """Clients that store without a pause, each with its history in `folder`."""

    def __init__(
        self,
        endpoint: str,
        folder: Path,
        seed: int,
        kinds: Sequence[str] = ALL_KINDS,
        *,
        look: Path | None = None,
    ) -> None:
        """Start one client for each of the kinds, and one that watches; `look`: whose tree it opens."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._processes = [
            self._start(endpoint, f"s{seed}-{n}-{kind}", str(seed + n), kind) for n, kind in enumerate(kinds)
        ]
        watching = [str(look)] if look is not None else []
        self._processes.append(self._start(endpoint, f"s{seed}-watch", "0", "watching", *watching))

    def _start(self, endpoint: str, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        history = self._folder / f"{name}.jsonl"
        module = "tests.crash.recorder"
        if CLIENT in arguments:
            module, arguments = "tests.crash.client_recorder", arguments[:1]
        elif DELETING in arguments:
            module, arguments = "tests.crash.deleting", arguments[:1]
        command = [sys.executable, "-X", "faulthandler", "-m", module, endpoint, str(history), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])

    @property
    def histories(self) -> list[Path]:
        """What they recorded."""
        return sorted(self._folder.glob("*.jsonl"))

    def recorded(self) -> int:
        """Size of what they recorded: it grows while the load goes on."""
        return sum(path.stat().st_size for path in self.histories)

    def join(self) -> None:
        """Let each come to its last answer, and end."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                status = process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it says where it stands
                process.wait()
                raise
            assert status == 0, f"a client ended with status {status}"

    def kill(self) -> None:
        """End them at once."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def load(
    endpoint: str, folder: Path, seed: int, kinds: Sequence[str] = ALL_KINDS, *, look: Path | None = None
) -> Iterator[Load]:
    """A load that is surely gone in the end."""
    running = Load(endpoint, folder, seed, kinds, look=look)
    try:
        yield running
    finally:
        running.kill()
