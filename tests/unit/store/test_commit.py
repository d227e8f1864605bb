"""The way of a store: sessions, checks, journal and answers together, through crashes and a full disk."""

import errno
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import JournalFailedError, Refusal
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.protocol.frames import decode_header
from perstack_stored.store.commit import Committer
from perstack_stored.store.requests import StoreRequest, open_request
from tests.helpers.datadir import (
    SESSION_A,
    SESSION_B,
    Died,
    FailingFiles,
    JournalFolder,
    SimulatedDisk,
    checkpoint,
    dumps,
    event,
    job,
    setting,
)

PEER = (b"peer", False)


class Daemon:
    """Journal, sessions and stores on one folder."""

    def __init__(self, folder: JournalFolder, files: FileSystem | None = None, **settings: int) -> None:
        self.folder = folder
        self.files = files
        self.settings = settings
        self.start()

    def start(self) -> None:
        """Start, or start again after a kill."""
        self.journal: JournalWriter = self.folder.open(
            self.files, segment_bytes=self.settings.get("segment_bytes", 1 << 16), first_segment_bytes=4096
        )
        self.stores = Committer(self.journal, self.folder.sessions)

    def send(self, *requests: StoreRequest) -> list[dict[str, Any]]:
        """Commit requests in one batch; the answers in the order of the requests' ids."""
        answers = [json.loads(frame) for _, frame in self.stores.commit(requests)]
        self.journal.sync()
        return sorted(answers, key=lambda answer: int(answer["id"]))

    def stored(self) -> list[bytes]:
        """Everything in the journal."""
        return self.folder.payloads(self.journal.mark)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(JournalFolder(tmp_path / "journal"))


def request(
    *values: bytes,
    id: int = 1,
    key: bytes | None = SESSION_A,
    seq: int = 0,
    settled: int = 0,
    kind: int = Kind.EVENT,
    batch: bool | None = None,
) -> StoreRequest:
    """A store of one value, or a batch of several."""
    is_batch = len(values) > 1 if batch is None else batch
    items: list[tuple[int, bytes | bytearray]] = [(int(kind), value) for value in values]
    op = "store" if is_batch else "storeEvent"
    return StoreRequest(PEER, id, key, seq, settled, items, is_batch, sum(map(len, values)), op)


def e(name: object) -> bytes:
    return dumps(event(id=str(name)))


BAD = dumps(event(stepNumber=-1))


def error(answer: dict[str, Any]) -> str:
    """The code of an answer that is an error."""
    assert answer["ok"] is False
    return str(answer["error"]["code"])


# --- one request -----------------------------------------------------------------------------------


def test_a_store_is_answered_with_its_position(daemon: Daemon) -> None:
    """Single stores of each kind are journalled byte for byte and answered with positions that count up."""
    values = [
        (Kind.JOB, job()),
        (Kind.CHECKPOINT, checkpoint()),
        (Kind.EVENT, event()),
        (Kind.RUN_SETTING, setting()),
    ]
    for i, (kind, value) in enumerate(values, 1):
        (answer,) = daemon.send(request(dumps(value) + b" ", id=i, seq=i, settled=i - 1, kind=kind))
        assert answer == {"v": 1, "id": i, "ok": True, "position": i}
    assert daemon.stored() == [dumps(value) + b" " for _, value in values]
    assert daemon.stores.stored == {kind: 1 for kind, _ in values}


def test_a_batch_is_answered_with_its_first_position_and_count(daemon: Daemon) -> None:
    """A batch without refusals is one short answer, a batch of one included."""
    assert daemon.send(request(e(1), e(2), e(3), id=1, seq=1)) == [
        {"v": 1, "id": 1, "ok": True, "position": 1, "count": 3}
    ]
    assert daemon.send(request(e(4), id=2, seq=4, batch=True)) == [
        {"v": 1, "id": 2, "ok": True, "position": 4, "count": 1}
    ]


def test_the_items_of_a_batch_are_refused_one_by_one(daemon: Daemon) -> None:
    """Refusals anywhere in a batch leave the other items stored, in order, with their numbers."""
    items = (BAD, e(1), BAD, BAD, e(2), e(3), b"{", e(4), BAD)
    (answer,) = daemon.send(request(*items, seq=1))
    results = answer["results"]
    assert [r if isinstance(r, int) else r["code"] for r in results] == [
        "BAD_VALUE", 1, "BAD_VALUE", "BAD_VALUE", 2, 3, "BAD_JSON", 4, "BAD_VALUE",
    ]  # fmt: skip
    assert results[0]["field"] == "stepNumber"
    assert results[0]["retryable"] is False
    assert daemon.stored() == [e(1), e(2), e(3), e(4)]
    assert [s.seq for s in daemon.folder.read(daemon.journal.mark)] == [2, 5, 6, 8]
    assert daemon.stores.answers.refused == {"BAD_VALUE": 4, "BAD_JSON": 1}
    for _ in range(2):
        (again,) = daemon.send(request(*items, seq=1))
        assert again == answer
        daemon.start()
    assert len(daemon.stored()) == 4


def test_a_batch_of_refusals_only_stores_nothing(daemon: Daemon) -> None:
    """When each item is refused the journal isn't touched, and the numbers are used up all the same."""
    (answer,) = daemon.send(request(BAD, BAD, seq=1))
    assert [r["code"] for r in answer["results"]] == ["BAD_VALUE"] * 2
    assert daemon.journal.mark.position == 0
    assert daemon.send(request(e(1), id=2, seq=3, settled=2))[0]["position"] == 1


def test_a_refused_store_is_refused_again_for_the_same_reason(daemon: Daemon) -> None:
    """A repeat of a refused number is checked again, not called old, also after a restart."""
    for _ in range(2):
        (answer,) = daemon.send(request(BAD, seq=1))
        assert error(answer) == "BAD_VALUE"
        assert answer["error"]["field"] == "stepNumber"
    daemon.send(request(e(2), seq=2, id=2))
    daemon.start()
    assert error(daemon.send(request(BAD, seq=1))[0]) == "BAD_VALUE"


# --- repeats ---------------------------------------------------------------------------------------


def test_a_repeat_is_answered_with_the_first_position(daemon: Daemon) -> None:
    """Sent again in another commit, and after a restart: the same position, nothing stored."""
    daemon.send(request(e(1), seq=1), request(e(9), id=2, key=SESSION_B, seq=1))
    for _ in range(3):
        assert daemon.send(request(e(1), seq=1))[0]["position"] == 1
        assert daemon.send(request(e(9), key=SESSION_B, seq=1))[0]["position"] == 2
        daemon.start()
    assert daemon.stored() == [e(1), e(9)]


def test_a_frame_that_comes_twice_in_one_commit_is_stored_once(daemon: Daemon) -> None:
    """A repeat that is handled in the commit of the original gets the position that the original gets."""
    answers = daemon.send(request(e(1), id=1, seq=1), request(e(1), id=2, seq=1), request(e(2), id=3, seq=2))
    assert [a["position"] for a in answers] == [1, 1, 2]
    batch = [request(e(3), BAD, e(4), id=i, seq=3) for i in (1, 2)]
    first, second = daemon.send(*batch)
    assert first["results"] == second["results"]
    assert daemon.stored() == [e(1), e(2), e(3), e(4)]
    assert daemon.stores.answers.repeated == 3


def test_a_batch_that_is_partly_a_repeat_stores_the_rest(daemon: Daemon) -> None:
    """Numbers seen before keep their positions, refused ones their refusals, and the new ones are stored."""
    daemon.send(request(e(1), BAD, seq=1))
    (answer,) = daemon.send(request(e(1), BAD, e(3), e(4), seq=1))
    assert [r if isinstance(r, int) else r["code"] for r in answer["results"]] == [1, "BAD_VALUE", 2, 3]
    assert daemon.stored() == [e(1), e(3), e(4)]


def test_a_settled_store_that_comes_late_is_old(daemon: Daemon) -> None:
    """A number that was given up on, or answered, is never stored when it comes late."""
    daemon.send(request(e(5), seq=5, settled=4))
    assert error(daemon.send(request(e(3), seq=3, settled=2))[0]) == "SEQUENCE_OLD"
    (answer,) = daemon.send(request(e(3), e(4), e(5), e(6), seq=3, settled=2))
    assert [r if isinstance(r, int) else r["code"] for r in answer["results"]] == [
        "SEQUENCE_OLD", "SEQUENCE_OLD", 1, 2,
    ]  # fmt: skip
    assert daemon.stored() == [e(5), e(6)]


def test_a_gap_stops_what_comes_after_it(daemon: Daemon) -> None:
    """When a store is missing, the later ones of its session are refused; other sessions go on."""
    answers = daemon.send(
        request(e(1), id=1, seq=1),
        request(e(3), id=2, seq=3),
        request(e(4), id=3, seq=4),
        request(e(9), id=4, key=SESSION_B, seq=1),
        request(e(2), id=5, seq=2),
        request(e(3), id=6, seq=3),
    )
    assert [a.get("position") for a in answers] == [1, None, None, 2, 3, 4]
    assert [error(a) for a in answers[1:3]] == ["SEQUENCE_GAP"] * 2
    assert daemon.stored() == [e(1), e(9), e(2), e(3)]


def test_without_a_session_everything_is_stored_as_often_as_it_comes(daemon: Daemon) -> None:
    """One-shot programs have no numbers: at least once, batches included."""
    answers = daemon.send(
        request(e(1), id=1, key=None), request(e(1), id=2, key=None), request(e(2), BAD, e(3), id=3, key=None)
    )
    assert answers[0]["position"] == 1
    assert answers[1]["position"] == 2
    assert [r if isinstance(r, int) else r["code"] for r in answers[2]["results"]] == [3, "BAD_VALUE", 4]
    assert error(daemon.send(request(BAD, id=4, key=None))[0]) == "BAD_VALUE"
    assert len(daemon.folder.sessions) == 0


def test_too_many_sessions_get_busy(daemon: Daemon) -> None:
    """With all sessions in use a new one gets BUSY, and leaves nothing behind."""
    daemon.folder.sessions._sessions_max = 1
    daemon.send(request(e(1), seq=1))
    other = request(e(2), key=SESSION_B, seq=1)._replace(client="another")
    assert error(daemon.send(other)[0]) == "BUSY"
    assert daemon.stored() == [e(1)]


def test_a_store_sent_again_in_a_session_that_gave_way_is_not_stored_again(daemon: Daemon) -> None:
    """Its client hears that it is old; its next store, with the number before settled, is stored."""
    daemon.folder.sessions._sessions_max = 2
    for n in range(2):
        assert "position" in daemon.send(request(e(n), key=bytes([100 + n]) * 16, seq=1))[0]
    other = request(e(7), key=SESSION_B, seq=1)._replace(client="another")
    assert daemon.send(other)[0]["position"] == 3
    assert error(daemon.send(request(e(0), key=bytes([100]) * 16, seq=1))[0]) == "SEQUENCE_OLD"
    assert daemon.send(request(e(8), key=bytes([100]) * 16, seq=2, settled=1))[0]["position"] == 4
    assert daemon.stored() == [e(0), e(1), e(7), e(8)]


def test_a_crowd_of_sessions_that_store_nothing_keeps_nobody_out(daemon: Daemon) -> None:
    """Those that were refused make room, and what was stored before and after is still known by number."""
    daemon.folder.sessions._sessions_max = 3
    daemon.send(request(e(1), seq=1))
    for i in range(9):
        assert error(daemon.send(request(BAD, key=bytes([100 + i]) * 16, seq=1))[0]) == "BAD_VALUE"
    assert daemon.send(request(e(2), key=SESSION_B, seq=1))[0]["position"] == 2
    assert daemon.send(request(e(1), seq=1))[0]["position"] == 1
    assert daemon.send(request(e(2), key=SESSION_B, seq=1))[0]["position"] == 2
    assert daemon.stored() == [e(1), e(2)]


def test_refused_items_leave_nothing_that_only_a_collection_frees(daemon: Daemon) -> None:
    """Each would keep its whole batch in memory until then: megabytes, for a client that sends bad values."""
    gc.collect()
    gc.disable()
    try:
        for seq in range(1, 200, 2):
            daemon.send(request(e(seq), BAD, seq=seq))
        assert error(daemon.send(request(BAD, seq=2))[0]) == "BAD_VALUE"
        assert gc.collect() == 0
    finally:
        gc.enable()


# --- faults ----------------------------------------------------------------------------------------


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


# --- opening requests ------------------------------------------------------------------------------


def opened(head: dict[str, Any], body: bytes = b"{}") -> StoreRequest:
    header = decode_header(dumps({"v": 1, "op": "storeEvent", "id": 1} | head))
    return open_request(PEER, header, body, items_max=3)


def test_a_batch_is_cut_by_the_lengths_of_its_items() -> None:
    """Each item gets exactly its bytes, empty ones too."""
    items = [["storeEvent", 3], ["storeJob", 0], ["storeRunSetting", 2]]
    found = opened({"op": "store", "items": items}, b"abcde")
    assert found.items == [(Kind.EVENT, b"abc"), (Kind.JOB, b""), (Kind.RUN_SETTING, b"de")]
    assert found.is_batch
    assert found.size == 5
    assert found.key is None


@pytest.mark.parametrize(
    ("head", "code", "field"),
    [
        ({"op": "store"}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": []}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 1]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 3]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 3], ["storeEvent", -1]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["store", 2]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["retrieveJob", 2]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 10**30]]}, "BAD_REQUEST", "items"),
        ({"op": "store", "items": [["storeEvent", 0]] * 4}, "TOO_LARGE", "items"),
        ({"seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f" * 16}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 0}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": -1}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 2**53}, "BAD_REQUEST", "seq"),
        ({"session": "8f" * 16, "seq": 1, "settled": -1}, "BAD_REQUEST", "settled"),
        ({"session": "8f" * 16, "seq": 1, "settled": 2**53}, "BAD_REQUEST", "settled"),
        ({"session": "00" * 16, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8F" * 16, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f" * 15, "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "8f " * 10 + "8f", "seq": 1}, "BAD_REQUEST", "session"),
        ({"session": "zz" * 16, "seq": 1}, "BAD_REQUEST", "session"),
    ],
)
def test_a_store_with_a_wrong_header_is_refused(head: dict[str, Any], code: str, field: str) -> None:
    """Each wrong field of the header of a store is named, and nothing of the frame is taken."""
    with pytest.raises(Refusal) as caught:
        opened(head)
    assert (caught.value.code, caught.value.field) == (code, field)
