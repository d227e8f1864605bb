"""Bugs of the keeper: packing and erasing."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "a packed segment is not compared with the plain one",
        "keeper/pack.py",
        "packing.compare(files, fd, source, end, pace.compared)",
        "pass",
    ),
    Bug(
        "a segment that was erased in is not compared with the old one",
        "keeper/erase.py",
        "            erasing.compare(files, fd, source, header, blanks, pace.compared)\n",
        "",
    ),
    Bug(
        "the file of a segment that was erased in is not synced before it has its name",
        "keeper/erase.py",
        "            files.sync_data(fd)\n",
        "",
    ),
    Bug(
        "the name of a segment that was erased in is not synced",
        "keeper/erase.py",
        "        files.sync(dir_fd)\n",
        "",
    ),
    Bug(
        "another job's record is erased",
        "model/erasures.py",
        "            return None\n        at = _first(self._removed.get((job, None))",
        "            return Gap(removed=9)\n        at = _first(self._removed.get((job, None))",
    ),
    Bug(
        "what is stored after a deletion is erased",
        "model/erasures.py",
        "    number = bisect_right(positions, after)\n",
        "    number = 0\n",
    ),
    Bug(
        "an erased checkpoint brings back the one that it had replaced",
        "model/erasures.py",
        "return Gap(removed=at, op=OF_CHECKPOINT, jobId=job, id=checkpoint.id)",
        "return Gap(removed=at, jobId=job)",
    ),
    Bug(
        "bytes of an older segment stay after the end",
        "keeper/erase.py",
        "        if not blanks and (file.is_packed or not source.has_left_overs()):\n",
        "        if not blanks:\n",
    ),
    Bug(
        "entries that recovery kept are not packed",
        "keeper/pack.py",
        "end = packing.end_to_pack(source, number, end)",
        "end = end + 0",
    ),
)
