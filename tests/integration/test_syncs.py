"""Stores that arrive while a sync of others is under way: the next sync is theirs, and it comes by itself."""

from pathlib import Path

from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.gated import GATHERED, start_gated
from tests.helpers.raw_client import Raw, event

_BURST = 32  # more than are synced by the loop itself


def _nothing_held(raw: Raw, answered: set[int]) -> bool:
    """Whether nearly all that was sent before is written; answers to it are taken in."""
    asked = raw.send("stats")
    while (answer := raw.receive(60)).header["id"] != asked:
        answered.add(answer.header["id"])
    return bool(answer.value["held"]["requests"] < GATHERED)


def test_stores_after_a_sync_that_is_under_way_are_answered_without_another_one_coming(
    tmp_path: Path,
) -> None:
    """Two bursts, the second while the first one is synced, and then silence: both are answered."""
    gate = tmp_path / "gate"
    gate.touch()
    daemon = RunningDaemon(tmp_path / "base")
    sent: set[int] = set()
    answered: set[int] = set()
    try:
        start_gated(daemon, gate)
        with Raw(daemon.endpoint) as raw:

            def burst() -> bool:
                sent.update(raw.send("storeEvent", event(f"e{len(sent)}-{n}")) for n in range(_BURST))
                eventually(lambda: _nothing_held(raw, answered), "all is written")
                return gate.with_suffix(".met").exists()

            eventually(burst, "a sync beside the loop has begun")
            first = set(sent)
            assert first - answered, "some of the first burst wait for the sync"
            burst()
            assert answered <= first, "none of the second was answered before it was synced"
            gate.unlink()
            while answered < sent:
                answered.add(raw.receive(60).header["id"])
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()
