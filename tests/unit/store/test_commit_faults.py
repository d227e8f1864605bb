"""Through a full disk, failed syncs, kills and power cuts each store is stored once, in order."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.errors import JournalFailedError
from perstack_stored.model.kinds import Kind
from perstack_stored.store.requests import StoreRequest
from tests.helpers.datadir import (
    SESSION_A,
    SESSION_B,
    Died,
    FailingFiles,
    JournalFolder,
    SimulatedDisk,
    dumps,
    event,
)
from tests.unit.store.committing import BAD, Daemon, e, error, request


def test_a_full_disk_undoes_everything_and_the_same_requests_succeed_later(tmp_path: Path) -> None:
    """After STORAGE_FULL no number is used up: the same frames, sent again in order, are stored once each."""
    files = FailingFiles()
    daemon = Daemon(JournalFolder(tmp_path / "j"), files, segment_bytes=4096)
    daemon.send(request(e(1), seq=1))
    files.errors = {"allocate": errno.ENOSPC, "create": errno.ENOSPC}
    large = dumps(event(id="2", text="x" * 5000))
    requests = [
        request(large, BAD, e(3), id=1, seq=2, settled=1),
        request(e(5), id=2, seq=5, settled=1),
        request(e(8), id=3, key=SESSION_B, seq=1),
        request(e(9), id=4, key=None),
    ]
    for _ in range(3):
        answers = daemon.send(*requests)
        assert [error(a) for a in answers] == ["STORAGE_FULL"] * 4
        assert all(a["error"]["retryable"] for a in answers)
    assert daemon.stored() == [e(1)]
    assert daemon.stores.stored == {Kind.EVENT: 1}
    files.errors = {}
    answers = daemon.send(*requests)
    assert [r if isinstance(r, int) else r["code"] for r in answers[0]["results"]] == [2, "BAD_VALUE", 3]
    assert [a["position"] for a in answers[1:]] == [4, 5, 6]
    daemon.start()
    assert [a.get("position") for a in daemon.send(*requests)[1:3]] == [4, 5]
    assert daemon.stored() == [e(1), large, e(3), e(5), e(8), e(9), e(9)]  # the last without a session


def test_a_full_disk_at_a_rotation_uses_up_no_number_on_disk(tmp_path: Path) -> None:
    """If the disk fills after a rotation, and the daemon is killed, the refused stores are new again."""
    files = FailingFiles()
    daemon = Daemon(JournalFolder(tmp_path / "j"), files, segment_bytes=4096)
    for i in range(1, 20):
        daemon.send(request(e(i), seq=i, settled=i - 1))
    files.errors = {"allocate": errno.ENOSPC}
    large = dumps(event(id="large", text="x" * 9000))
    assert error(daemon.send(request(large, seq=20, settled=19))[0]) == "STORAGE_FULL"
    assert daemon.journal.mark.segment == 2  # it rotated, and the snapshot of the sessions is on disk
    files.errors = {}
    daemon.start()
    assert daemon.send(request(large, seq=20, settled=19))[0]["position"] == 20


def test_a_failed_sync_answers_nobody(tmp_path: Path) -> None:
    """When the disk fails the commit raises, so no sender gets an answer that may be wrong."""
    files = FailingFiles()
    daemon = Daemon(JournalFolder(tmp_path / "j"), files)
    files.errors["sync_data"] = errno.EIO
    with pytest.raises(JournalFailedError):
        daemon.send(request(e(1), seq=1))


class Client:
    """A client that keeps to wire.md, section 3: it sends all its unanswered stores again, in order."""

    def __init__(self, key: bytes, random: Random) -> None:
        self.key = key
        self.random = random
        self.next = 1
        self.unanswered: dict[int, tuple[int, list[bytes]]] = {}  # first number: count, values
        self.positions: dict[int, int] = {}
        self.values: dict[int, bytes] = {}

    @property
    def settled(self) -> int:
        return min(self.unanswered, default=self.next) - 1

    def calls(self, count: int) -> None:
        """Make some stores, a few of them bad."""
        for _ in range(count):
            values: list[bytes] = []
            for _ in range(self.random.choice([1, 1, 1, 2, 3])):
                bad = self.random.random() < 0.1
                values.append(
                    BAD
                    if bad
                    else dumps(event(id=f"{self.key.hex()}-{self.next + len(values)}", t="x" * 150))
                )
            self.unanswered[self.next] = (len(values), values)
            self.values |= dict(enumerate(values, self.next))
            self.next += len(values)

    def frames(self) -> list[StoreRequest]:
        """All that is unanswered."""
        return [
            request(*values, id=seq, key=self.key, seq=seq, settled=self.settled, batch=True)
            for seq, (_, values) in sorted(self.unanswered.items())
        ]

    def take(self, answer: dict[str, Any]) -> None:
        """Take an answer; it must be final, for frames are sent in order here."""
        assert answer["ok"], answer
        count, values = self.unanswered.pop(answer["id"])
        results = answer.get("results") or list(
            range(answer.get("position", 0), answer.get("position", 0) + count)
        )
        assert len(results) == count
        for seq, (value, result) in enumerate(zip(values, results, strict=True), answer["id"]):
            if value == BAD:
                assert result["code"] == "BAD_VALUE"
            else:
                assert isinstance(result, int), result  # never SEQUENCE_OLD: it was not answered before
                self.positions[seq] = result


def commit(daemon: Daemon, clients: Sequence[Client], random: Random) -> None:
    """Send all that is unanswered in one commit; answers may get lost."""
    frames = [frame for client in clients for frame in client.frames()]
    by_key = {client.key: client for client in clients}
    keys = [frame.key for frame in frames]
    answers = [json.loads(reply) for _, reply in daemon.stores.commit(frames)]
    daemon.journal.sync()
    assert len(answers) == len(frames)
    lost = random.random() < 0.3
    for key, answer in zip(keys, answers, strict=True):
        assert key is not None
        if not lost:
            by_key[key].take(answer)


@pytest.mark.parametrize("seed", range(20))
def test_through_kills_and_power_cuts_each_store_is_stored_once_in_order(tmp_path: Path, seed: int) -> None:
    """Whatever dies and whatever the disk loses: each store once, in order, at the position of its answer."""
    random = Random(seed)
    folder = JournalFolder(tmp_path / "j")
    clients = [Client(SESSION_A, random), Client(SESSION_B, random)]
    daemon = None
    for round_ in range(12):
        disk = SimulatedDisk(seed * 1000 + round_, dies_at=random.randint(0, 60) if round_ < 11 else None)
        try:
            daemon = Daemon(folder, disk, segment_bytes=4096)
            for _ in range(6):
                for client in clients:
                    client.calls(random.randint(0, 3))
                commit(daemon, clients, random)
            if random.random() < 0.3:
                daemon.journal.close()
        except Died:
            pass
        if random.random() < 0.7:
            disk.cut_power()
    daemon = Daemon(folder, segment_bytes=4096)
    while any(client.unanswered for client in clients):
        commit(daemon, clients, random)
    found = folder.read(daemon.journal.mark)
    assert [s.position for s in found] == list(range(1, len(found) + 1))
    for client in clients:
        stored = [s for s in found if s.session == client.key]
        assert [s.payload for s in stored] == [v for _, v in sorted(client.values.items()) if v != BAD]
        assert {s.seq: s.position for s in stored} == client.positions
