"""Long tests begin first, in each process."""

import pytest

from tests.helpers.order import long_ones_first


@pytest.mark.parametrize("processes", [1, 2, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 9, 50])
def test_each_process_begins_with_long_ones(processes: int, count: int) -> None:
    ordered = long_ones_first(range(count), processes, lambda test: test % 10 == 9)
    assert sorted(ordered) == list(range(count))
    assert [test for test in ordered if test % 10 != 9] == [n for n in range(count) if n % 10 != 9]
    begins, left = 0, count
    if processes > count // 10:
        return
    for number in range(processes):  # as `WorkStealingScheduling.check_schedule` gives them out
        assert ordered[begins] % 10 == 9
        begins += left // (processes - number)
        left = count - begins
