"""The file-system interface on real files."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from perstack_stored.datadir.filesystem import FileSystem


def test_threads_that_list_one_directory_all_see_all_of_it(tmp_path: Path) -> None:
    """They share its descriptor: a place in the directory that is shared too would hide names from some."""
    names = {f"{n:010d}.segment" for n in range(300)}
    for name in names:
        (tmp_path / name).touch()
    files = FileSystem()
    folder = files.open_dir(str(tmp_path))
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: set(files.list_dir(folder)), range(400)))
    finally:
        os.close(folder)
    assert all(seen == names for seen in found)
