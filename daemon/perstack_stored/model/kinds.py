"""Kinds of records. No I/O."""

from enum import IntEnum


class Kind(IntEnum):
    """Kind of a record. Numbers never change; new kinds get the next number."""

    JOB = 1
    CHECKPOINT = 2
    EVENT = 3
    RUN_SETTING = 4
    GAP = 5  # a record was lost here; see gaps.py
    DELETION = 6  # a job or run was deleted; see deletions.py
