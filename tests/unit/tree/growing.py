"""A tree that has come up to the end of its journal."""

from perstack_stored.tree.writer import TreeWriter
from tests.helpers.datadir import Base

RUN = "jobs/job-1/runs/run-1"


def grown(base: Base) -> TreeWriter:
    """A tree that has come up to the end, opened again."""
    made = base.open_tree()
    base.grow(made)
    return made
