"""What a failed call of the journal's writer means: a full disk refuses, anything else ends the process."""

import errno

from perstack_stored.errors import JournalFailedError, StorageFullError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def no_room(error: OSError) -> StorageFullError | JournalFailedError:
    """The error where room could not be made."""
    if error.errno in DISK_FULL:
        return StorageFullError(f"no room for the journal: {error.strerror}")
    return JournalFailedError(f"making room in the journal failed: {error}")


def write_failed(error: OSError) -> JournalFailedError:
    """The error where a write or a sync failed."""
    # After a failed sync the kernel may have dropped the pages: a retry could report a success that is
    # none. Only a start that reads what is on disk can go on.
    return JournalFailedError(f"writing the journal failed: {error}")
