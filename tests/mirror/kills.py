"""Kills daemon, mirrors and connections at random, and judges meanwhile what the bucket gives back.

    python -m tests.mirror.kills [KILLS] [SEED] [MINUTES]

When the minutes are over, no fault follows: the verdict comes, and status 2 says that faults are missing. In
the middle a job is deleted and erased: in the end no object holds a word of it. Then the tree in the bucket
is that of the base.

Connections to the S3 server break in the middle of a request, or requests arrive and their answers are
lost. A server whose objects outlive it is killed as well (`seaweed.py`); that of the other tests keeps
them in memory.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from perstack_storage import Client, StorageError
from tests.helpers.daemon import RunningDaemon, eventually, files_of
from tests.helpers.long_events import event, store
from tests.helpers.s3 import Relay, S3Server, s3_server
from tests.mirror.bases import (
    as_objects,
    dump,
    is_mirrored,
    mirror_stats,
    mirrored,
    objects_with,
    restore,
    run,
)
from tests.mirror.seaweed import Seaweed, program, seaweed

FAULTS = ("daemon", "mirror", "cut", "answers")
PATIENCE_SECONDS = 300.0
MINUTES = 15.0
_PAUSE_SECONDS = (0.0, 1.2)
_STORE_SECONDS = 0.005  # between two stores: what is compared in the end stays small
_COMPARED_SHARE = 0.25  # of the time: the longer the history, the longer a restore takes
_PROGRESS_SECONDS = 30.0
_GONE, _GONE_COUNT = "sentinel", 400


class Found(NamedTuple):
    """Result of a campaign: kills by kind, records, restores that were compared, and the kills wanted."""

    kills: Counter[str]
    records: int
    compared: int
    wanted: int

    @property
    def is_complete(self) -> bool:
        """Whether time was enough for all kills."""
        return self.kills.total() == self.wanted

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} of {self.wanted} faults: {counts};"
            f" {self.records} records; {self.compared} restores equal"
        )


class Agent(threading.Thread):
    """Stores events without end, through all kills, and knows the last position that was acknowledged."""

    def __init__(self, endpoint: str, name: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._name = name
        self._is_over = False
        self.acked = 0

    def run(self) -> None:
        number = 0
        while not self._is_over:
            with contextlib.suppress(StorageError), Client(self._endpoint, timeout_s=5) as client:
                while not self._is_over:
                    self.acked = client.store_event(event(self._name, number))
                    number += 1
                    time.sleep(_STORE_SECONDS)

    def stop(self) -> None:
        """Stop, and wait for the end."""
        self._is_over = True
        self.join(timeout=60)


def mirror_pid(daemon: RunningDaemon) -> int | None:
    """Process id of the mirror of the journal, None if it does not run."""
    return daemon.workers().get("mirror")


class Campaign:
    """Rounds of load and a fault, on one base."""

    def __init__(self, folder: Path, server: S3Server, seed: int, what: str = "journal") -> None:
        """Prepare it; `what` is mirrored: the tree is compared in the end, if it is."""
        self._folder = folder
        self._server = server
        self._random = random.Random(seed)
        self._relay = Relay(server.port)
        self._base = folder / "base"
        self._has_tree = what == "both"
        flags = ("--erase-within-seconds=1", "--mirror-what", what)
        self._daemon = mirrored(self._base, "kills", self._relay.url, *flags)
        self._faults = (*FAULTS, "server") if isinstance(server, Seaweed) else FAULTS
        self._kills: Counter[str] = Counter()
        self._compared = 0
        self._compared_seconds = 0.0
        self._is_deleted = False

    def run(self, kills: int, seconds: float = 60 * MINUTES) -> Found:
        """Run a number of faults, each kind as often; then let the mirror catch up, and compare.

        Args:
            kills: how many faults.
            seconds: none begins after these.
        """
        begun = said = time.monotonic()
        agent = Agent(f"ipc://{self._base}/.stored/stored.sock", "agent")
        faults = [self._faults[n % len(self._faults)] for n in range(kills)]
        self._random.shuffle(faults)
        try:
            self._daemon.start()
            store(self._daemon.endpoint, _GONE, _GONE_COUNT)
            agent.start()
            eventually(self._has_begun, "the bucket holds something", PATIENCE_SECONDS)
            for number, fault in enumerate(faults):
                time.sleep(self._random.uniform(*_PAUSE_SECONDS))
                elapsed = time.monotonic() - begun
                if elapsed > seconds:
                    break
                self._break(fault)
                if not self._is_deleted and (number == len(faults) // 3 or elapsed > seconds / 3):
                    self._delete()
                if number % 8 == 3 and self._compared_seconds <= _COMPARED_SHARE * elapsed:
                    self._compare_behind(number)
                if time.monotonic() - said > _PROGRESS_SECONDS:
                    said = time.monotonic()
                    _say(f"{said - begun:.0f} s: {number + 1} faults, {agent.acked} records")
            self._relay.mend()
            agent.stop()
            if not self._is_deleted:
                self._delete()
            _say(f"{time.monotonic() - begun:.0f} s: no more faults; judging")
            eventually(lambda: is_mirrored(self._daemon), "the mirror catches up", PATIENCE_SECONDS)
            eventually(self._is_erased, "no object holds what was deleted", PATIENCE_SECONDS)
            if self._has_tree:
                eventually(self._is_tree_there, "the mirror of the tree catches up", PATIENCE_SECONDS)
                assert self._server.objects("kills/jobs") == as_objects(files_of(self._base), "kills")
            assert not self._daemon.events("mirror_stopped")
            assert self._daemon.stop() == 0
            records = dump(self._base)
            assert len(records) + _GONE_COUNT >= agent.acked
            assert self._restored("last") == records
            return Found(self._kills, len(records), self._compared + 1, kills)
        finally:
            agent.stop()
            self._daemon.make_sure_it_ended()
            self._relay.close()

    def _has_begun(self) -> bool:
        return bool(mirror_stats(self._daemon)["position"])

    def _is_tree_there(self) -> bool:
        with Client(self._daemon.endpoint) as client:
            stats = client.stats()
        return all(stats[name]["position"] == stats["position"] for name in ("tree", "treeMirror"))

    def _delete(self) -> None:
        with Client(self._daemon.endpoint) as client:
            client.delete_job(_GONE)
        self._is_deleted = True

    def _is_erased(self) -> bool:
        stats = mirror_stats(self._daemon)
        return not (stats["toReplace"] or objects_with(self._server, "kills", f"{_GONE}-1".encode()))

    def _break(self, fault: str) -> None:
        self._kills[fault] += 1
        if fault == "daemon":
            self._daemon.kill()
            self._daemon.start()
        elif fault == "mirror":
            workers = self._daemon.workers()
            pids = [workers[name] for name in ("mirror", "mirror-tree") if name in workers]
            for pid in self._random.sample(pids, min(1, len(pids))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif isinstance(self._server, Seaweed) and fault == "server":
            self._server.kill()
            time.sleep(self._random.uniform(*_PAUSE_SECONDS))
            self._server.start()
        else:
            self._relay.cut(drops_answers=fault == "answers")
            time.sleep(self._random.uniform(*_PAUSE_SECONDS))
            self._relay.mend()

    def _compare_behind(self, number: int) -> None:
        """What the bucket holds at any moment is the beginning of what the base holds."""
        begun = time.monotonic()
        restored = self._restored(f"at{number}")
        with tempfile.TemporaryDirectory(dir=self._folder) as copy:
            taken = run("backup", "--base-path", str(self._base), f"{copy}/backup")
            assert taken.returncode == 0, taken.stderr
            made = run("restore", f"{copy}/backup", "--base-path", f"{copy}/new")
            assert made.returncode == 0, made.stderr
            records = dump(Path(f"{copy}/new"))
        restored, records = (
            [line for line in lines if f'"jobId":"{_GONE}"' not in line] for lines in (restored, records)
        )
        assert restored == records[: len(restored)]
        self._compared += 1
        self._compared_seconds += time.monotonic() - begun

    def _restored(self, name: str) -> list[str]:
        base = self._folder / name
        restore("kills", self._server.url, base)
        records = dump(base)
        shutil.rmtree(base)
        return records


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the campaign. Status 0: all is well; 2: faults are missing, time was up; else it raises."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    parser.add_argument("minutes", type=float, nargs="?", default=MINUTES, help="no fault begins after these")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirror-kills-") as name, ExitStack() as stack:
        folder, weed = Path(name), program()
        if weed is None:
            _say("no SeaweedFS here (tests/mirror/seaweed.py): the S3 server is not killed")
        server = stack.enter_context(s3_server(folder) if weed is None else seaweed(weed, folder))
        found = Campaign(folder, server, given.seed, "both").run(given.kills, 60 * given.minutes)
    _say(str(found))
    return 0 if found.is_complete else 2


if __name__ == "__main__":
    sys.exit(main())
