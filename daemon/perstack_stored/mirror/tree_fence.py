"""The object that says whose tree stands under a prefix, and how far: the fence between two mirrors.

Before objects are put for some records, the object names the last of these and its epoch. Each write of it
demands that it is as it was seen. Another base has another history; a copy of a base that goes on by itself
has other epochs. So one that does not find its own record there stops.
"""

import re
from typing import NamedTuple, Protocol

from perstack_stored.errors import DamageError, StoredError
from perstack_stored.journal import entry_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.epochs import Epochs
from perstack_stored.journal.reader import LogPosition
from perstack_stored.journal.segment_names import segment_name
from perstack_stored.journal.segment_walk import BadEntryError, walk

from .shipper import MirrorConflictError

OWNER_KEY = ".stored/tree"
"""Behind the prefix."""
_BYTES_MAX = 1 << 20
_CLAIM = re.compile(r"([0-9a-f]{32})(?: ([0-9]{1,18}) ([!-~]{1,64}))?\n?")
_UNKNOWN = "-"


class FenceBusyError(StoredError):
    """Another mirror wrote the object meanwhile. The next try sees whose it is."""


class Tagged(NamedTuple):
    """An object, and the tag of this version of it."""

    data: bytes
    tag: str


class TaggedObjects(Protocol):
    """Objects that are replaced only if they are as they were seen: `bucket.Bucket`. Errors are its own."""

    def read_tagged(self, key: str, bytes_max: int) -> Tagged | None:
        """An object with its tag; None if there is none, or it is larger."""

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Write an object that has this tag, or is not there (None).

        Returns the new tag; None if another version is there, which stays.
        """


class _Claim(NamedTuple):
    """What the object says; position 0 if it names the history alone."""

    store: str
    position: int
    epoch: str


def _parse(data: bytes) -> _Claim | None:
    found = _CLAIM.fullmatch(data.decode(errors="replace"))
    return None if found is None else _Claim(found[1], int(found[2] or 0), found[3] or _UNKNOWN)


class _JournalEpochs:
    """The epochs of a journal that is written by another process."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._epochs = Epochs()
        self._segment = self._offset = 0

    def at(self, position: int, mark: LogPosition) -> str:
        """The epoch of a position before a synced log position.

        Raises:
            DamageError, OSError: the journal can't be read.
        """
        if self._segment != mark.segment:  # the head of a segment repeats the epochs that began before it
            self._segment, self._offset = mark.segment, entry_format.SEGMENT_HEADER_BYTES
        if mark.segment not in self._chain.headers:
            self._chain.refresh()
        try:
            for entry in walk(self._chain.file(self._segment), self._offset, mark.offset, split_large=True):
                self._epochs.apply(entry.header)
                self._offset = entry.offset + entry_format.padded(entry.header.length)
        except BadEntryError as error:
            raise DamageError(segment_name(self._segment), error.offset, position, error.reason) from None
        return self._epochs.at(position) or _UNKNOWN


class TreeFence:
    """Lets the tree of one history through, and of its continuations only one."""

    def __init__(self, bucket: TaggedObjects, chain: Chain, prefix: str, url: str) -> None:
        """Prepare it.

        Args:
            bucket: where the object is.
            chain: the journal.
            prefix: of all keys.
            url: of the mirror, for messages.
        """
        self._bucket = bucket
        self._epochs = _JournalEpochs(chain)
        self._store = chain.headers[1].store.hex()
        self._key = prefix + OWNER_KEY
        self._url = url
        self._tag: str | None = None
        self._position = 0  # up to which the object has named this history

    def look(self, mark: LogPosition) -> None:
        """See that the object, if there is one, names this history and a record of it.

        Raises:
            MirrorConflictError: it names another history, or another continuation of this one.
            StoredError: the bucket or the journal can't be read.
        """
        found = self._bucket.read_tagged(self._key, _BYTES_MAX)
        if found is None:
            self._tag, self._position = None, 0
            return
        claim = _parse(found.data)
        if claim is None or claim.store != self._store:
            whose = "somebody else" if claim is None else f"the history {claim.store}"
            raise MirrorConflictError(
                f"{self._url} holds the tree of {whose}, this is {self._store}: give the mirror another"
                f" prefix; or, if that base is gone, remove the object {self._key}"
            )
        if claim.position > mark.position or self._is_of_another(claim, mark):
            raise MirrorConflictError(
                f"{self._url} holds the tree of another continuation of this history, up to its position"
                f" {claim.position}: a copy of this base mirrors there, or this base was put back from an"
                f" older copy. This mirror stops; give it a prefix of its own"
            )
        self._tag, self._position = found.tag, claim.position

    def _is_of_another(self, claim: _Claim, mark: LogPosition) -> bool:
        if claim.epoch == _UNKNOWN:
            return False
        return self._epochs.at(claim.position, mark) not in {claim.epoch, _UNKNOWN}

    def pass_(self, position: int, mark: LogPosition) -> None:
        """Name a record in the object, before objects are put or removed for the records up to it.

        Raises:
            MirrorConflictError: another mirror has named a record that this history does not have.
            StoredError: the bucket or the journal can't be read, or others write at the same time.
        """
        if position <= self._position:  # it was named before, and the objects were not all put
            return
        claim = f"{self._store} {position} {self._epochs.at(position, mark)}\n".encode()
        tag = self._bucket.replace(self._key, claim, self._tag)
        if tag is None:  # somebody else wrote, or the answer to an earlier write of this one was lost
            self.look(mark)
            if position <= self._position:
                return
            tag = self._bucket.replace(self._key, claim, self._tag)
        if tag is None:
            raise FenceBusyError(f"another mirror writes {self._key} at the same time")
        self._tag, self._position = tag, position
