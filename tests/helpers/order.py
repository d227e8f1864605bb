"""The order of tests in a run of several processes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def long_ones_first(tests: Sequence[T], processes: int, is_long: Callable[[T], bool]) -> list[T]:
    """Each process begins with its share of the long tests; the others keep their order.

    xdist's `worksteal` cuts the list into one piece for each process, of the lengths that are made here.
    """
    long = [test for test in tests if is_long(test)]
    others = [test for test in tests if not is_long(test)]
    ordered: list[T] = []
    for number in range(processes):
        end = len(ordered) + (len(tests) - len(ordered)) // (processes - number)
        ordered += long[number::processes]
        taken = max(0, end - len(ordered))
        ordered += others[:taken]
        del others[:taken]
    return ordered + others
