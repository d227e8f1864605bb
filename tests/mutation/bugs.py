"""Bugs that a hurried hand could make, each as a change of the daemon's text."""

from collections.abc import Iterator
from itertools import chain

from tests.mutation.planted import index, journal, keeper, mirror, replication, server, store, tree
from tests.mutation.sites import PACKAGE, Mutant

_PACKAGES = (index, journal, keeper, mirror, replication, server, store, tree)


def bugs() -> Iterator[Mutant]:
    """The daemon with each of the bugs in turn.

    Raises:
        LookupError: the daemon's text has changed, and the bug must be written again.
    """
    for bug in chain.from_iterable(package.BUGS for package in _PACKAGES):
        source = (PACKAGE / bug.file).read_text()
        if source.count(bug.old) != 1:
            raise LookupError(f"{bug.name}: {bug.file} holds its text {source.count(bug.old)} times")
        yield Mutant(bug.name, bug.file, source.replace(bug.old, bug.new))
