"""Bugs of the copies: the mirror, backup and restore."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "a restore cuts an atomic batch in two",
        "offline/backup/restore.py",
        "is_atomic = entry.header.flags & entry_format.ATOMIC",
        "is_atomic = False",
    ),
    Bug(
        "a piece that is there already is not compared",
        "mirror/shipper.py",
        " or file.read(len(piece.data), start) != piece.data",
        "",
    ),
    Bug(
        "a piece is skipped where the bucket fails",
        "mirror/shipper.py",
        "        if not self._bucket.create(key, data):",
        "        self._start = piece.end\n        if not self._bucket.create(key, data):",
    ),
    Bug(
        "a prefix takes the trees of two bases",
        "mirror/tree_fence.py",
        "claim is None or claim.store != self._store",
        "claim is None",
    ),
    Bug(
        "a prefix takes the trees of a base and of its copy",
        "mirror/tree_fence.py",
        "self._epochs.at(claim.position, mark) not in {claim.epoch, _UNKNOWN}",
        "False",
    ),
    Bug(
        "a mirror of the tree does not see that another one wrote",
        "mirror/tree_fence.py",
        "            self.look(mark)\n            if",
        "            self._tag = self._bucket.read_tagged(self._key, _BYTES_MAX).tag\n            if",
    ),
    Bug(
        "a generation counts before it is whole",
        "mirror/generations.py",
        "(one for one in found if one.salt is not None)",
        "found",
    ),
    Bug(
        "a damaged segment replaces the sound pieces in the bucket",
        "mirror/replacer.py",
        "                self._test(file, header)\n",
        "",
    ),
    Bug(
        "a piece of a generation that is there already is not compared",
        "mirror/replacer.py",
        " and self._read(key) != ours",
        " and False",
    ),
    Bug(
        "a generation of other bytes is gone on with",
        "mirror/replacer.py",
        " and file.read(len(piece.data), 0) == piece.data",
        "",
    ),
    Bug(
        "what was erased stays in the bucket",
        "mirror/replacer.py",
        "        self._remove(keys)\n",
        "",
    ),
    Bug(
        "a mirror ships the mark that a start writes over",
        "mirror/shipper.py",
        "return self._tested.tail if is_open and self._tested.offset >= limit else limit",
        "return limit",
    ),
    Bug(
        "a restore takes a segment that lacks what recovery wrote again",
        "offline/backup/fetch.py",
        "            if self._lacks_records(self._last, header):\n                return\n",
        "",
    ),
)
