"""How far an export is, in a file: it goes on there after a restart."""

import json
import os
from pathlib import Path
from typing import NamedTuple

_VERSION = 1


class Reached(NamedTuple):
    """A position, the history and the epoch that it belongs to."""

    position: int
    store: str | None = None
    epoch: str | None = None


class State:
    """The file of an export."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)

    def read(self) -> Reached | None:
        """What was kept; None where nothing was.

        Raises:
            ValueError: the file holds something else.
            OSError: it can't be read.
        """
        if self._path is None:
            return None
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        if (
            not isinstance(found, dict)
            or found.get("version") != _VERSION
            or type(found["position"]) is not int
        ):
            raise ValueError(f"{self._path} is no state of an export")
        return Reached(found["position"], found.get("store"), found.get("epoch"))

    def write(self, reached: Reached) -> None:
        """Keep it: the file holds the old state or the new one, whatever happens."""
        if self._path is None:
            return
        temporary = self._path.with_name(f"{self._path.name}.part")
        with temporary.open("w") as file:
            json.dump({"version": _VERSION, **reached._asdict()}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
