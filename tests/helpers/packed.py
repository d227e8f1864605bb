"""Packs segments of a journal that nobody serves, as the keeper does."""

import os
from pathlib import Path

from perstack_stored.datadir.filesystem import FILE_MODE, FileSystem
from perstack_stored.journal import packed_format, packing
from perstack_stored.journal.chain import Chain
from perstack_stored.journal.segment_names import segment_name


def pack_segment(
    journal: Path, number: int, block_bytes: int = packed_format.BLOCK_BYTES, *, with_kept: bool = True
) -> Path:
    """Pack a sealed segment with blocks of a size; returns its path.

    Without `with_kept`, copies of entries that recovery wrote again are left out, as a reader of the index
    that is made later needs none.
    """
    files = FileSystem()
    folder = os.open(journal, os.O_RDONLY | os.O_DIRECTORY)
    chain = Chain(files, folder)
    path = journal / segment_name(number)
    part = Path(f"{path}.part")
    try:
        end = chain.end_of(number)
        assert end is not None, "the last segment has no end yet"
        fd = files.create(part.name, FILE_MODE, dir_fd=folder)
        source = chain.open(number)
        if with_kept:
            end = packing.end_to_pack(source, number, end)
        packing.pack_into(files, fd, source, end, block_bytes, lambda _: None)
        packing.compare(files, fd, source, end, lambda _: None)
        os.close(fd)
        part.rename(path)
    finally:
        chain.close()
        os.close(folder)
    return path


def pack_all(
    journal: Path, block_bytes: int = packed_format.BLOCK_BYTES, *, with_kept: bool = True
) -> list[Path]:
    """Pack all sealed segments of a journal; returns their paths."""
    count = len(list(journal.glob("*.segment")))
    return [pack_segment(journal, n, block_bytes, with_kept=with_kept) for n in range(1, count)]
