"""What is restored is the history of the backup, up to any position or time."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perstack_storage import Client, PositionGone
from perstack_stored.errors import ConfigError
from perstack_stored.offline.backup.at_time import position_at
from perstack_stored.offline.backup.restore import restore
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.raw_client import Raw, batch, event, session
from tests.offline.backups import back_up, bring_back, followed, manifest_of, records
from tests.offline.bases import SMALL_SEGMENTS, Checked, copy_base, run, store
from tests.offline.bases import event as event_call


def test_a_restored_base_has_the_same_answers_and_tree(original: Path, tmp_path: Path) -> None:
    """By the commands; it is clean for check, and another history: a subscriber of the old one learns it."""
    source = copy_base(original, tmp_path / "source")
    taken = run("backup", source, str(tmp_path / "backup"))
    assert (taken.returncode, taken.stderr) == (0, "")
    assert "position 20: copied 4 of 4 segments" in taken.stdout
    restored = run("restore", tmp_path / "restored", str(tmp_path / "backup"))
    assert (restored.returncode, restored.stderr) == (0, "")
    assert records(tmp_path / "restored") == records(source)
    assert followed(tmp_path / "restored") == followed(source)
    checked = Checked(tmp_path / "restored")
    assert (checked.status, checked.findings) == (0, [])
    with running_daemon(source) as old, Raw(old.endpoint) as raw:
        name = raw.ask("hello").value["store"]
    with running_daemon(tmp_path / "restored") as new, Raw(new.endpoint) as raw:
        assert raw.ask("hello").value["store"] != name
        assert raw.ask("readAll", {"after": 5, "store": name}).code == "POSITION_GONE"
        assert raw.store("storeEvent", event("goes on")) == 21


@pytest.mark.parametrize("to", range(1, 21))
def test_any_position_can_be_restored(original: Path, tmp_path: Path, to: int) -> None:
    """The history up to there, as a replay of the journal to that position gives it."""
    back_up(original, tmp_path / "backup")
    bring_back(tmp_path / "backup", tmp_path / "restored", to)
    assert records(tmp_path / "restored") == records(original)[:to]


def test_any_time_can_be_restored(original: Path, tmp_path: Path) -> None:
    """The last record of that time is the last one; the command takes the time, the base holds no more."""
    target = tmp_path / "backup"
    back_up(original, target)
    all_records = records(original)
    for record in (all_records[0], all_records[len(all_records) // 2], all_records[-1]):
        last = max(one["position"] for one in all_records if one["time"] <= record["time"])
        assert position_at(str(target), record["time"]) == last
    time_ms = all_records[len(all_records) // 2]["time"]
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
    done = run("restore", tmp_path / "restored", "--to-time", text, str(target))
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "restored")[-1]["position"] == position_at(str(target), time_ms)


def test_a_time_out_of_reach_is_refused_with_the_range(original: Path, tmp_path: Path) -> None:
    """An operator learns from when to when the backup reaches."""
    target = tmp_path / "backup"
    back_up(original, target)
    taken = manifest_of(target)
    assert taken is not None
    first = records(original)[0]["time"]
    for time_ms in (first - 1, taken.timeMs + 1):
        with pytest.raises(ConfigError) as caught:
            position_at(str(target), time_ms)
        for reach in (first, taken.timeMs):
            shown = datetime.fromtimestamp(reach / 1000, UTC).isoformat(timespec="milliseconds")
            assert shown.removesuffix("+00:00") in str(caught.value)
    for wrong in ("yesterday", "9999-12-31T23:59-23:59", "0001-01-01T00:00+23:59"):
        assert run("restore", tmp_path / "restored", "--to-time", wrong, str(target)).returncode == 2
    assert not (tmp_path / "restored").exists()


def test_a_restore_may_end_within_a_batch(tmp_path: Path) -> None:
    """The records of one message are cut; a daemon goes on after them, and knows the session so far."""
    name = session()
    values = [json.dumps(event(f"e{n}", timestamp=n)).encode() for n in range(10)]
    items, body = batch([("storeEvent", value) for value in values])
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        assert raw.ask("store", body, items=items, session=name, seq=1).header["count"] == 10
        assert daemon.stop() == 0
    back_up(tmp_path / "base", tmp_path / "backup")
    bring_back(tmp_path / "backup", tmp_path / "restored", 5)
    with running_daemon(tmp_path / "restored") as daemon, Raw(daemon.endpoint) as raw:
        assert [record["value"]["id"] for record in raw.read_all()] == ["before", "e0", "e1", "e2", "e3"]
        assert raw.ask("hello", session=name).value["session"] == {"last": 4}
        assert raw.ask("storeEvent", values[3], session=name, seq=4).position == 5
        assert raw.ask("storeEvent", values[4], session=name, seq=5).position == 6
        eventually(lambda: len(files_of(daemon.base)) == 6, "the tree is complete")
        assert daemon.stop() == 0
    assert Checked(tmp_path / "restored").findings == []


def test_a_restore_does_not_cut_an_atomic_batch_in_two(tmp_path: Path) -> None:
    """Asked for a position within it, the history ends before it; its client stores it once more."""
    name = session()
    items, body = batch([("storeEvent", json.dumps(event(f"e{n}", timestamp=n)).encode()) for n in range(4)])
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("before"))
        assert raw.ask("store", body, items=items, session=name, seq=1, atomic=True).header["count"] == 4
        raw.store("storeEvent", event("behind", timestamp=9))
        assert daemon.stop() == 0
    back_up(tmp_path / "base", tmp_path / "backup")
    for to, left in ((4, 1), (5, 5), (6, 6)):
        base = tmp_path / f"restored{to}"
        assert restore(str(tmp_path / "backup"), str(base), to_position=to).position == left
        assert len(records(base)) == left
    with running_daemon(tmp_path / "restored4") as daemon, Raw(daemon.endpoint) as raw:
        assert raw.ask("store", body, items=items, session=name, seq=1, atomic=True).header["position"] == 2
        assert daemon.stop() == 0


def test_a_restore_brings_back_the_named_cursors(original: Path, tmp_path: Path) -> None:
    """As of the backup. A subscriber of the old history learns that this is another one."""
    base, target = copy_base(original, tmp_path / "base"), tmp_path / "backup"
    with running_daemon(base, *SMALL_SEGMENTS) as daemon, Client(daemon.endpoint) as client:
        client.set_cursor("early", 3)
        client.set_cursor("late", 12)
        client.set_cursor("deleted", 1)
        client.delete_cursor("deleted")
        before = client.hello()["store"]
        store(daemon.endpoint, [event_call("after the cursors")])
        assert daemon.stop() == 0
    last = back_up(base, target)
    bring_back(target, tmp_path / "restored")
    with running_daemon(tmp_path / "restored") as daemon, Client(daemon.endpoint) as client:
        assert {one["name"]: one["position"] for one in client.cursors()} == {"early": 3, "late": 12}
        rest = [one["position"] for one in client.follow(name="late", idle_s=0)]
        assert rest == list(range(13, last + 1))
        with pytest.raises(PositionGone):
            next(client.follow(name="late", store=before, idle_s=0))
        assert daemon.stop() == 0
