"""Requests to write a job back into the tree, as files in `{base}/.stored/tree.write/`.

A command asks, and the process that writes the tree does it, and removes the file. Both are of the daemon's
user. A request that no daemon takes waits for the next one.
"""

import secrets

import msgspec

from perstack_stored.datadir.filesystem import FILE_MODE, FOLDER_MODE, FileSystem, atomic_replace, read_whole

FOLDER_NAME = "tree.write"
_SUFFIX = ".json"
_BYTES_MAX = 4096
_NAME_BYTES = 8


class _Request(msgspec.Struct):
    job: str


class Requests:
    """The folder of requests; it is made with the first one."""

    def __init__(self, files: FileSystem, stored_dir: int) -> None:
        self._files = files
        self._stored = stored_dir

    def ask(self, job: str) -> str:
        """Ask for a job; returns the name of the request.

        Raises:
            OSError: it can't be written.
        """
        self._files.make_dir(FOLDER_NAME, FOLDER_MODE, dir_fd=self._stored)
        folder = self._files.open_dir(FOLDER_NAME, dir_fd=self._stored)
        name = secrets.token_hex(_NAME_BYTES) + _SUFFIX
        try:
            data = msgspec.json.encode(_Request(job))
            atomic_replace(self._files, name, data, FILE_MODE, dir_fd=folder)
        finally:
            self._files.close(folder)
        return name

    def pending(self) -> list[tuple[str, str | None]]:
        """Name and job of each request; no job where it can't be read.

        Raises:
            OSError: the folder can't be read.
        """
        try:
            folder = self._files.open_dir(FOLDER_NAME, dir_fd=self._stored)
        except FileNotFoundError:
            return []
        try:
            names = [name for name in self._files.list_dir(folder) if name.endswith(_SUFFIX)]
            return [(name, self._job(name, folder)) for name in sorted(names)]
        finally:
            self._files.close(folder)

    def _job(self, name: str, folder: int) -> str | None:
        try:
            data = read_whole(self._files, name, dir_fd=folder, most=_BYTES_MAX)
            return None if data is None else msgspec.json.decode(data, type=_Request).job
        except (OSError, ValueError):  # too large, or no such JSON
            return None

    def done(self, name: str) -> None:
        """Remove a request.

        Raises:
            OSError: it can't be removed.
        """
        folder = self._files.open_dir(FOLDER_NAME, dir_fd=self._stored)
        try:
            self._files.unlink(name, dir_fd=folder)
        finally:
            self._files.close(folder)
