"""A file system whose syncs are shown while they run: the disk may take long for one."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from .filesystem import FileSystem


def showing_syncs(in_sync: Callable[[], AbstractContextManager[None]]) -> FileSystem:
    """Real files; each sync runs in a context that `in_sync` makes."""

    def showing(call: Callable[[int], None]) -> Callable[[int], None]:
        def shown(fd: int) -> None:
            with in_sync():
                call(fd)

        return shown

    files = FileSystem()
    for name in ("sync_data", "sync", "sync_all"):
        setattr(files, name, showing(getattr(files, name)))
    return files
