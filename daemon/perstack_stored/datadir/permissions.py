"""Permissions of `.stored`: only the daemon's user may use it; older versions let the group read it.

A user who may read a file may lock it as well: a lock on the index or on the base's lock file stops the
daemon. So each start removes these permissions. Only passing through `.stored` stays allowed: it is the way
to the socket.
"""

import os
import stat
from collections.abc import Iterator

import structlog

from .layout import STAGING_NAME

_OTHERS = 0o077
_OTHERS_BUT_WAY = 0o066
_NAMED_MAX = 8

_log = structlog.get_logger()


def tighten(stored_dir: int, path: str) -> None:
    """Remove permissions of others in `.stored`; log the changes, and what can't be changed.

    Args:
        stored_dir: the folder.
        path: its path, for the log.
    """
    changed: list[str] = []
    left: dict[str, str] = {}
    own = os.geteuid()
    top = os.fstat(stored_dir)
    # First the folder itself: from then on other users can't add anything.
    if top.st_mode & _OTHERS_BUT_WAY:
        _take(".", top.st_mode & ~_OTHERS_BUT_WAY, stored_dir, changed, left)
    for name, found in _below(stored_dir):
        if found.st_mode & _OTHERS:
            _take(name, found.st_mode & ~_OTHERS, stored_dir, changed, left)
        elif own and found.st_uid not in {own, 0}:
            left[name] = f"it belongs to the user with id {found.st_uid}"
    if changed:
        _log.warning(
            "stored_tightened",
            path=path,
            changed=len(changed),
            names=sorted(changed)[:_NAMED_MAX],
            reason="others could read, and so lock, what is the daemon's alone",
        )
    if left:
        _log.error(
            "stored_not_tightened",
            path=path,
            left=len(left),
            names=dict(list(left.items())[:_NAMED_MAX]),
            reason="others may read or lock these files, and so stop the daemon; chown them to its user",
        )


def _take(name: str, mode: int, stored_dir: int, changed: list[str], left: dict[str, str]) -> None:
    try:
        try:
            os.chmod(name, stat.S_IMODE(mode), dir_fd=stored_dir)
        except PermissionError:
            # The unit forbids the bit that passes on a group (RestrictSUIDSGID), even where it is set.
            os.chmod(name, stat.S_IMODE(mode) & 0o777, dir_fd=stored_dir)
    except OSError as error:
        left[name] = error.strerror or str(error)
    else:
        changed.append(name)


def _below(stored_dir: int) -> Iterator[tuple[str, os.stat_result]]:
    """All files and folders below; without links, sockets and staging, which may be the tree's."""
    folders = [""]
    while folders:
        path = folders.pop()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path or ".", flags, dir_fd=stored_dir)
        except OSError:
            continue  # what can't be opened fails the start later, with its reason
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        continue
                    name, found = path + entry.name, entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        if name != STAGING_NAME:
                            folders.append(f"{name}/")
                    elif stat.S_ISSOCK(found.st_mode):
                        continue
                    yield name, found
        finally:
            os.close(fd)
