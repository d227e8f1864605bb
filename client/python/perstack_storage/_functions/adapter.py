"""Run settings elsewhere: through a file system or into a folder that is not the daemon's."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from perstack_storage._core.jsonio import dumps, loads

FILE_MODE = 0o640
FOLDER_MODE = 0o750
"""Settings hold keys of APIs: not for everybody's eyes."""

GetRunDir = Callable[[str, str], str]
"""Tells the folder of a run by the ids of its job and of itself."""


class FileSystem(Protocol):
    """What `store_run_setting` needs of a file system. Text is UTF-8."""

    def exists(self, path: str) -> bool:
        """Returns whether there is something with this path."""

    def mkdir(self, path: str) -> None:
        """Makes a folder, and those above it; none of them need be missing."""

    def read_file(self, path: str) -> str:
        """Returns the text of a file."""

    def write_file(self, path: str, text: str) -> None:
        """Makes a file, or replaces it."""


class DefaultFileSystem:
    """The file system of the operating system; files are replaced whole.

    Given to `store_run_setting`, it means what leaving it out means: the daemon stores the setting.
    """

    def exists(self, path: str) -> bool:
        """Returns whether there is something with this path."""
        return os.path.exists(path)

    def mkdir(self, path: str) -> None:
        """Makes a folder, and those above it; none of them need be missing."""
        os.makedirs(path, FOLDER_MODE, exist_ok=True)

    def read_file(self, path: str) -> str:
        """Returns the text of a file."""
        with open(path, encoding="utf-8") as file:
            return file.read()

    def write_file(self, path: str, text: str) -> None:
        """Makes a file, or replaces it; nobody sees half of it."""
        temporary = f"{path}.{os.urandom(4).hex()}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_setting(setting: Mapping[str, Any], fs: FileSystem, run_dir: str) -> None:
    """Writes a setting; of one that is there only `updatedAt` changes, to now.

    Raises:
        ValueError: what is there is no JSON object; or `setting` has no form in JSON.
        TypeError: something in `setting` has no form in JSON.
    """
    text = dumps(setting).decode()  # before anything is made
    path = os.path.join(run_dir, "run-setting.json")
    if not fs.exists(path):
        fs.mkdir(run_dir)
        fs.write_file(path, text)
        return
    found = loads(fs.read_file(path).encode())
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no run setting")  # noqa: TRY004 - the content is wrong, not a type
    now_ms = time.time_ns() // 1_000_000
    fs.write_file(path, dumps({**found, "updatedAt": now_ms}).decode())
