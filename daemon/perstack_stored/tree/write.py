"""A file of the tree to write: its path and its content."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

SETTING_NAME = "run-setting.json"

File = tuple[tuple[str, ...], str]
"""Folders and name."""


class Write(NamedTuple):
    """A file of the tree to write: path, content, and the record that it comes from."""

    position: int
    folders: tuple[str, ...]
    name: str
    content: Callable[[], bytes]
    replaces: bool  # jobs, checkpoints, settings: the newest one counts
    run: str = ""  # of all but jobs
    is_left_out: bool = False  # only put right if it is there

    @property
    def path(self) -> str:
        """The file's path below the base."""
        return "/".join((*self.folders, self.name))

    @property
    def kind(self) -> str:
        """Name of the record's kind."""
        match self.folders[2:3]:
            case ():
                return "job"
            case ("checkpoints",):
                return "checkpoint"
        return "run_setting" if self.name == SETTING_NAME else "event"


def event_name(timestamp: float, step: float, type: str, n: int) -> str:
    """Name of an event's file; `n` numbers the events that would share it, from 1."""
    duplicate = "" if n == 1 else f".n{n:04d}"
    return f"event-{int(timestamp)}-{int(step)}-{type}{duplicate}.json"


def divided(writes: list[Write]) -> tuple[list[Write], list[Write]]:
    """Divide writes between the first process and the helper, by job, about as many each."""
    counts = Counter([write.folders[1] for write in writes])
    helped: set[str] = set()
    own = others = 0
    for job, count in counts.most_common():
        if others < own:
            helped.add(job)
            others += count
        else:
            own += count
    return (
        [write for write in writes if write.folders[1] not in helped],
        [write for write in writes if write.folders[1] in helped],
    )


def folded(writes: list[Write], replayed: dict[File, int], exists: Callable[[Write], bool]) -> list[Write]:
    """Drop the writes that a later one replaces; the first write of a file gives the order.

    Args:
        writes: in the order of their records.
        replayed: during a replay, positions of the newest writes of files.
        exists: whether the file of a write is there.
    """
    replacing = [write for write in writes if write.replaces]
    newest = {(write.folders, write.name): write.position for write in replacing}
    if len(newest) == len(replacing) and not replayed:
        return writes
    newest |= {key: replayed[key] for key in newest if replayed.get(key, 0) > newest[key]}
    wanted = []
    seen: set[File] = set()
    for write in writes:
        key = (write.folders, write.name)
        if write.replaces and newest[key] != write.position:
            if key in seen or exists(write):
                continue
            seen.add(key)
        wanted.append(write)
    return wanted
