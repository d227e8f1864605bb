"""Stores committed to a real journal, without sockets."""

import json
from typing import Any

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.model.kinds import Kind
from perstack_stored.store.commit import Committer
from perstack_stored.store.requests import StoreRequest
from tests.helpers.datadir import SESSION_A, JournalFolder, dumps, event

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
