"""Which position of a backup a time stands for: the last one whose record was stored by then."""

from datetime import UTC, datetime

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import ConfigError

from . import manifest as backup_folder
from .manifest import Folder, Manifest, SegmentCopy
from .restore import copies_up_to, what_it_holds


def position_at(source: str, time_ms: int) -> int:
    """The last position of a backup that was stored at a time in ms since 1970 or before it.

    It is the end of an entry: a batch is not cut in two.

    Raises:
        ConfigError: it is no backup, or does not reach back to the time, or up to it. The message says from
            when to when it reaches.
        BackupDamagedError: the backup has changed.
    """
    with backup_folder.open_folder(FileSystem(), source, make=False) as folder:
        manifest, last = what_it_holds(folder, None)
        if time_ms <= manifest.timeMs:
            for copy, _ in reversed(copies_up_to(manifest, last)):
                position, _ = _last_by(folder, copy, time_ms)
                if position:
                    return position
        raise ConfigError(_out_of_reach(folder, manifest, time_ms))


def _last_by(folder: Folder, copy: SegmentCopy, time_ms: int) -> tuple[int, int | None]:
    """The last position of a segment that was stored by a time, 0 if none was; and when its first one was."""
    found, first_ms = 0, None
    with backup_folder.open_copy(folder, copy) as (file, header):
        for entry in backup_folder.entries_of(folder, copy, file, header):
            first_ms = entry.header.time_ms if first_ms is None else first_ms
            if entry.header.time_ms > time_ms:
                break
            found = entry.header.position + entry.header.count - 1
    return found, first_ms


def _out_of_reach(folder: Folder, manifest: Manifest, time_ms: int) -> str:
    first_ms = None
    for copy in manifest.segments:
        _, first_ms = _last_by(folder, copy, -1)
        if first_ms is not None:
            break
    begins = "nothing" if first_ms is None else f"what was stored from {_shown(first_ms)}"
    return f"the backup holds {begins} to {_shown(manifest.timeMs)}: it has no state of {_shown(time_ms)}"


def _shown(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
