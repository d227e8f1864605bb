"""Many reads at once: those that wait for their turn have time while others are answered, and no longer."""

import asyncio
import time
from typing import Any

import pytest

from perstack_storage import AsyncClient, DaemonUnavailable
from tests.client.fake_daemon import FakeDaemon

TIMEOUT_S = 2.0
ANSWER_S = 0.05
READS = 60


@pytest.fixture(autouse=True)
def few_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perstack_storage._async.waiting_reads.READS_IN_FLIGHT_MAX", 2)


def _burst(endpoint: str, *, answered: int) -> tuple[list[Any], float]:
    """Ask `READS` times at once of a daemon that answers only the first; return outcomes and seconds."""
    asked = 0

    def slowly(header: dict[str, Any], _body: bytes) -> list[bytes] | None:
        nonlocal asked
        if header["op"] != "retrieveJob":
            return None
        asked += 1
        time.sleep(ANSWER_S)
        return None if asked <= answered else []

    async def main() -> tuple[list[Any], float]:
        async with AsyncClient(endpoint, timeout_s=TIMEOUT_S) as client:
            await client.ping()
            began = time.monotonic()
            reads = [client.retrieve_job(f"j{number}") for number in range(READS)]
            outcomes = await asyncio.gather(*reads, return_exceptions=True)
            return outcomes, time.monotonic() - began

    with FakeDaemon(endpoint, script=slowly):
        return asyncio.run(main())


def test_a_burst_of_reads_that_takes_longer_than_the_timeout_is_answered(endpoint: str) -> None:
    """All are under way at once, each is answered in time when its turn has come."""
    outcomes, seconds = _burst(endpoint, answered=READS)
    assert outcomes == [None] * READS
    assert seconds > TIMEOUT_S  # else it shows nothing


def test_reads_that_wait_for_their_turn_fail_with_those_before_them_where_nobody_answers(
    endpoint: str,
) -> None:
    """Each turn does not begin a timeout of its own."""
    outcomes, seconds = _burst(endpoint, answered=10)
    assert outcomes[:10] == [None] * 10
    assert {type(outcome) for outcome in outcomes[10:]} == {DaemonUnavailable}
    assert seconds < TIMEOUT_S * (READS - 10) / 2
