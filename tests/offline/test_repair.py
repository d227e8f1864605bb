"""`repair` takes back what the index vouches for, at its position, with epochs and cursors."""

from pathlib import Path

import pytest

from perstack_storage import Client
from tests.helpers.daemon import files_of, running_daemon
from tests.offline.bases import SMALL_SEGMENTS, event, segments, store, unlocked
from tests.offline.damages import Damage, flip, flip_payload
from tests.offline.inprocess import Checked, Items, Repaired, Started
from tests.offline.segment_damages import both, drop, flip_head, flip_text, flips

RECOVERABLE: dict[str, Damage] = {
    "an event's payload": lambda base: flip_payload(base, b'"e3"', segment=1),
    "a checkpoint's payload": lambda base: flip_payload(base, b"xxxx", segment=1),
    "the magic of an entry": lambda base: flip(
        segments(base)[0], segments(base)[0].read_bytes().index(b"PSE1", 200)
    ),
    "the snapshot of the sessions": flips(1, 100),
    "the snapshot of the last segment": flips(3, 100),
    "the version of a segment": flips(2, 8),
    "the number of a segment": flips(2, 12),
    "the store of a segment": flips(2, 20),
    "the first position of a segment": flips(2, 33),
    "the end before a segment": flips(2, 41),
    "the proven end of a segment": flips(2, 49),
    "the salt of a segment": flips(2, 57),
    "the checksum of a segment's header": flips(2, 61),
    "the header of the first segment": flips(0, 20),
    "the header of the last segment": flips(3, 20),
    "the salts of all segments": both(*(flips(n, 57) for n in range(4))),
}


@pytest.mark.parametrize("damage", RECOVERABLE.values(), ids=RECOVERABLE.keys())
def test_what_the_index_vouches_for_is_taken_back(
    base_of_segments: Path, damage: Damage, expected: dict[str, Items]
) -> None:
    """After a repair every answer is what it was, and every position; the damaged bytes are kept."""
    base = base_of_segments
    files = files_of(base)
    damage(base)
    damaged = {path.name: path.read_bytes() for path in segments(base)}
    before = unlocked(base)
    dry = Repaired(base, dry_run=True)
    assert unlocked(base) == before
    done = Repaired(base)
    assert done.damage
    assert (done.gone, done.findings) == (set(), 0)
    assert (done.lines, done.compared) == (dry.lines, dry.compared)
    assert done.done is not None
    kept = base / ".stored" / done.done.kept_in
    copies = {path.name.removesuffix(".damaged"): path.read_bytes() for path in kept.glob("*.damaged")}
    assert copies == {name: damaged[name] for name in done.done.segments}
    checked = Checked(base)
    assert (checked.findings, checked.notes) == (set(), {"index_missing"})
    assert Started(base).answers == expected
    assert files_of(base) == files
    assert not Checked(base).lines
    again = Repaired(base)
    assert (again.done, again.lines) == (None, [])


@pytest.mark.parametrize("damage", [flip_head(0), drop(1), flip_head(3)])
def test_a_repair_takes_over_the_epochs(base_of_segments: Path, damage: Damage) -> None:
    """An earlier subscriber goes on after it; new records are of another epoch."""
    base = base_of_segments
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        store(daemon.endpoint, [event("of the second start")])
        before = {record["position"]: record.get("epoch") for record in client.follow(idle_s=0)}
        assert daemon.stop() == 0
    assert len(set(before.values())) == 5
    damage(base)
    assert Repaired(base).done
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        store(daemon.endpoint, [event("new")])
        after = {record["position"]: record.get("epoch") for record in client.follow(idle_s=0)}
        new = after.popitem()
        assert after.items() <= before.items()
        assert new[1] not in before.values()
        assert list(client.follow(21, epoch=before[21], idle_s=0))


@pytest.mark.parametrize("damage", [flip_head(-1), flip_text(b"after the cursor")])
def test_a_repair_keeps_the_named_cursors(base_of_segments: Path, damage: Damage) -> None:
    """Those that were set in the damaged segment, and those at its head."""
    base = base_of_segments
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("early", 2)
        store(daemon.endpoint, [event("before the cursor")])
        assert daemon.stop() == 0
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("late", 5)
        store(daemon.endpoint, [event("after the cursor")])
        before = [(one["name"], one["position"]) for one in client.cursors()]
        assert before == [("early", 2), ("late", 5)]
        assert daemon.stop() == 0
    assert not Checked(base).findings
    damage(base)
    assert Repaired(base).done
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        found = [(one["name"], one["position"]) for one in client.cursors()]
        assert found == before
        assert daemon.stop() == 0
