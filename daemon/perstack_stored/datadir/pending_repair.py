"""A repair that was interrupted: until it is completed, only `repair` may use the base."""

from perstack_stored.errors import ConfigError

from .filesystem import FileSystem

REPAIR_NAME = "repair"


PLAN_NAME = "plan.json"


def is_unfinished(files: FileSystem, stored_dir: int) -> bool:
    """Whether a repair was interrupted after it had begun to change the base."""
    try:
        folder = files.open_dir(REPAIR_NAME, dir_fd=stored_dir)
    except FileNotFoundError:
        return False
    try:
        return PLAN_NAME in files.list_dir(folder)
    finally:
        files.close(folder)


def refuse_unfinished(files: FileSystem, stored_dir: int) -> None:
    """Refuse a base between two states to everything but `repair`.

    Raises:
        ConfigError: a repair was interrupted.
    """
    if is_unfinished(files, stored_dir):
        raise ConfigError("a repair was interrupted; run `perstack-stored repair` again to complete it")
