"""What a record stores. No I/O."""

from enum import IntEnum


class Kind(IntEnum):
    """What a record stores. Numbers are for ever; new ones are added behind."""

    JOB = 1
    CHECKPOINT = 2
    EVENT = 3
    RUN_SETTING = 4
    GAP = 5  # a record was lost here; see gaps.py
