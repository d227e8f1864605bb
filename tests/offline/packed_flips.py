"""Flipped bits in packed segments: `check` names each of them, and nothing is changed by looking.

    python -m tests.offline.packed_flips --places 10000 --seed 7

A journal of captured runs is packed with the keeper's own block size. Each flip is one bit of one byte,
one at a time, half of them in blocks and half in headers and tables, which are small. A plain reader finds
no other record at any position.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.journal import packed_format
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.segment_walk import BadEntryError, walk
from perstack_stored.offline.check.journal import check_journal
from perstack_stored.offline.findings import Finding, Report
from tests.helpers.daemon import captured_run, under_other_job
from tests.helpers.datadir import JournalFolder, append, dumps
from tests.helpers.packed import pack_all

_SEGMENT_BYTES = 1 << 20
_TELL_SECONDS = 10.0


def make(folder: JournalFolder) -> list[Path]:
    """Fill a journal with captured runs, and pack it; returns the packed segments."""
    journal = folder.open(segment_bytes=_SEGMENT_BYTES, first_segment_bytes=_SEGMENT_BYTES)
    for name in "abc":
        for _, value in captured_run(name)[:400]:
            journal.append([append(dumps(under_other_job(value, f"job-{name}")))])
    journal.close()
    return pack_all(folder.path)


def records(folder: JournalFolder, number: int) -> dict[int, bytes]:
    """The records of a segment that a reader accepts, by position, up to the first bad place."""
    chain = Chain(FileSystem(), folder.fd)
    found: dict[int, bytes] = {}
    try:
        end = chain.end_of(number)
        assert end is not None
        for entry in walk(chain.file(number), 64, end):
            found[entry.header.position] = bytes(entry.data[8:])
    except BadEntryError:
        pass
    finally:
        chain.close()
    return found


def findings(folder: JournalFolder) -> list[Finding]:
    """What `check` says of the journal."""
    found: list[Finding] = []
    check_journal(FileSystem(), folder.fd, Report(found.append))
    return [finding for finding in found if not finding.is_note]


def flip_all(folder: JournalFolder, paths: list[Path], count: int, random: Random) -> dict[str, Any]:
    """Flip one bit at a time; returns figures.

    Raises:
        AssertionError: a flip was not named, changed a record, or was mended.
    """
    assert not findings(folder)
    whole = {path: records(folder, number) for number, path in enumerate(paths, 1)}
    by_place: Counter[str] = Counter()
    told = time.monotonic()
    for done in range(count):
        number = random.randrange(len(paths))
        path = paths[number]
        data = path.read_bytes()
        table = packed_format.table_bytes(packed_format.blocks_stated(data))
        in_table = random.random() < 0.5
        place = random.randrange(table) if in_table else random.randrange(table, len(data))
        bad = bytearray(data)
        bad[place] ^= 1 << random.randrange(8)
        path.write_bytes(bad)
        named = [finding for finding in findings(folder) if finding.facts.get("segment") == path.name]
        assert named, f"the flip at {place} of {path.name} is not named"
        assert path.read_bytes() == bad, "it was mended"
        try:
            read = records(folder, number + 1)
        except Exception as error:  # noqa: BLE001 - a refusal is right, another record is not
            by_place[f"refused: {type(error).__name__}"] += 1
        else:
            assert read.items() <= whole[path].items(), f"another record after the flip at {place}"
        by_place["header or table" if in_table else "block"] += 1
        path.write_bytes(data)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            print(f"{done + 1} of {count}", flush=True)  # noqa: T201 - a command
    assert not findings(folder)
    return {"flips": count, "named": count, **by_place}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packed-flips-", dir=_memory()) as path:
        folder = JournalFolder(Path(path) / "journal")
        figures = flip_all(folder, make(folder), chosen.places, Random(chosen.seed))
        os.close(folder.fd)
    print(figures)  # noqa: T201 - a command


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


if __name__ == "__main__":
    main()
