"""A store of a session is stored once, however often it comes, across restarts."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import Answer, Raw, batch, event, job, session

_EVENT = json.dumps(event()).encode()


def test_a_repeated_number_gets_its_first_position(raw: Raw) -> None:
    """Whatever bytes come with it, and nothing is stored again."""
    name = session()
    first = raw.store("storeEvent", event("a"), session=name, seq=1)
    assert raw.store("storeEvent", event("b"), session=name, seq=2) == first + 1
    for _ in range(3):
        assert raw.store("storeEvent", event("a"), session=name, seq=1) == first
        assert raw.store("storeJob", job("other"), session=name, seq=2) == first + 1
    assert raw.ask("ping").header["position"] == first + 1
    assert raw.ask("retrieveJob", {"jobId": "other"}).value is None


def test_a_burst_of_repeats_is_answered_though_nothing_is_written(raw: Raw) -> None:
    """Stores that are all sent again at once get their positions, whether or not another store follows."""
    key = session()
    count = 200
    for _ in range(3):
        for seq in range(1, count + 1):
            raw.send("storeEvent", event(f"burst-{seq}"), session=key, seq=seq)
        positions = [raw.receive().position for _ in range(count)]
        assert positions == list(range(positions[0], positions[0] + count))


def test_a_gap_is_refused_unless_the_numbers_between_are_settled(raw: Raw) -> None:
    """SEQUENCE_GAP is retryable, and stores nothing; the same number is taken later."""
    name = session()
    gap = raw.ask("storeEvent", event("gap"), session=name, seq=3)
    assert gap.code == "SEQUENCE_GAP"
    assert gap.error["retryable"] is True
    assert raw.ask("hello", session=name).value["session"] == {"last": 0}
    assert raw.ask("storeEvent", event("gap"), session=name, seq=3, settled=1).code == "SEQUENCE_GAP"
    position = raw.store("storeEvent", event("gap"), session=name, seq=3, settled=2)
    assert raw.ask("hello", session=name).value["session"] == {"last": 3}
    assert raw.store("storeEvent", event("gap"), session=name, seq=3, settled=2) == position
    items, body = batch([("storeEvent", _EVENT)] * 2)
    assert raw.ask("store", body, items=items, session=name, seq=5, settled=3).code == "SEQUENCE_GAP"


def test_a_number_that_was_settled_is_old(raw: Raw) -> None:
    """SEQUENCE_OLD: a retry that comes late never overwrites what is newer."""
    name = session()
    raw.store("storeJob", job("old", totalSteps=1), session=name, seq=1)
    raw.store("storeJob", job("old", totalSteps=2), session=name, seq=2, settled=1)
    late = raw.ask("storeJob", job("old", totalSteps=1), session=name, seq=1)
    assert late.code == "SEQUENCE_OLD"
    assert late.error["retryable"] is False
    skipped = raw.store("storeJob", job("old", totalSteps=3), session=name, seq=9, settled=8)
    assert (
        raw.ask("storeJob", job("old", totalSteps=9), session=name, seq=5, settled=8).code == "SEQUENCE_OLD"
    )
    assert raw.ask("retrieveJob", {"jobId": "old"}).value["totalSteps"] == 3
    assert raw.ask("ping").header["position"] == skipped


def test_a_refused_number_is_used_up_and_refused_again(raw: Raw) -> None:
    """The next number continues after it, and a repeat gets the same reason."""
    name = session()
    for _ in range(2):
        refused = raw.ask("storeEvent", event(stepNumber=-1), session=name, seq=1)
        assert (refused.code, refused.error["field"]) == ("BAD_VALUE", "stepNumber")
    raw.store("storeEvent", event("next"), session=name, seq=2)
    assert raw.ask("storeEvent", event(stepNumber=-1), session=name, seq=1).code == "BAD_VALUE"


def test_a_batch_has_a_result_for_each_item_if_some_are_refused(raw: Raw) -> None:
    """Positions run on over the refusals in between; a repeat of the frame gives the same results."""
    name = session()
    good = [json.dumps(event(f"batch-{n}")).encode() for n in range(6)]
    bad = json.dumps(event("a/b")).encode()
    values = [good[0], bad, good[1], good[2], b"{", b"", good[3], bad]
    items, body = batch([("storeEvent", value) for value in values])
    before = raw.ask("ping").header["position"]
    results = raw.ask("store", body, items=items, session=name, seq=1).header["results"]
    assert [r if isinstance(r, int) else (r["code"], r.get("field")) for r in results] == [
        before + 1,
        ("BAD_VALUE", "id"),
        before + 2,
        before + 3,
        ("BAD_JSON", None),
        ("BAD_JSON", None),
        before + 4,
        ("BAD_VALUE", "id"),
    ]
    again = raw.ask("store", body, items=items, session=name, seq=1).header
    assert again["results"] == results
    assert "position" not in again
    # Half of it known, half of it new: 5 to 8 were seen, 9 and 10 follow.
    items, body = batch([("storeEvent", value) for value in [*values[4:], good[4], good[5]]])
    mixed = raw.ask("store", body, items=items, session=name, seq=5).header["results"]
    assert mixed[:4] == results[4:]
    assert mixed[4:] == [before + 5, before + 6]
    whole, body = batch([("storeEvent", value) for value in good[:3]])
    header = raw.ask("store", body, items=whole, session=name, seq=11).header
    assert (header["position"], header["count"], "results" in header) == (before + 7, 3, False)


def test_two_sessions_on_one_connection_keep_apart(raw: Raw) -> None:
    """Numbers and orders don't mix, even in one commit."""
    names = [session(), session()]
    ids = {}
    for seq in range(1, 41):
        for name in names:
            ids[raw.send("storeEvent", event(f"{name}-{seq}"), session=name, seq=seq)] = (name, seq)
    got = {}
    for _ in ids:
        answer = raw.receive()
        got[ids[answer.header["id"]]] = answer.position
    for name in names:
        positions = [got[name, seq] for seq in range(1, 41)]
        assert positions == sorted(set(positions))
    assert len(set(got.values())) == 80


@pytest.mark.parametrize("clean", [False, True], ids=["SIGKILL", "clean stop"])
def test_a_session_outlives_the_daemon(tmp_path: Path, *, clean: bool) -> None:
    """Repeats after a restart get the positions from before, and nothing is stored twice."""
    name, other = session(), session()
    items, body = batch([("storeEvent", json.dumps(event(f"b{n}")).encode()) for n in range(3)])
    bad_items, bad_body = batch([("storeEvent", b"{}"), ("storeEvent", _EVENT), ("storeEvent", b"{}")])
    requests: list[tuple[str, Any, dict[str, Any]]] = [
        ("storeEvent", event("a"), {"session": name, "seq": 1}),
        ("store", body, {"items": items, "session": name, "seq": 2}),
        ("storeJob", job("x"), {"session": other, "seq": 1}),
        ("storeJob", b"{}", {"session": name, "seq": 5}),
        ("store", bad_body, {"items": bad_items, "session": name, "seq": 6}),
        ("storeJob", job("y"), {"session": name, "seq": 9}),
    ]
    with running_daemon(tmp_path / "base") as daemon:
        with Raw(daemon.endpoint) as raw:
            before = [_result(raw.ask(op, body, **header)) for op, body, header in requests]
        for _ in range(2):
            if clean:
                assert daemon.stop() == 0
            else:
                daemon.kill()
            daemon.start()
            with Raw(daemon.endpoint) as raw:
                assert [_result(raw.ask(op, body, **header)) for op, body, header in requests] == before
                assert raw.ask("hello", session=name).value["session"] == {"last": 9}
                assert raw.ask("ping").header["position"] == 7
                assert len(raw.read_all()) == 7
        with Raw(daemon.endpoint) as raw:
            assert raw.ask("storeJob", job("z"), session=name, seq=11).code == "SEQUENCE_GAP"
            assert raw.store("storeJob", job("z"), session=name, seq=10) == 8
            assert raw.ask("storeEvent", event("a"), session=name, seq=1, settled=10).code == "SEQUENCE_OLD"


def _result(answer: Answer) -> dict[str, Any]:
    """What an answer says of the stores: for each of them a position or an error."""
    header = {key: value for key, value in answer.header.items() if key != "id"}
    if "count" in header:
        first = header.pop("position")
        header["results"] = list(range(first, first + header.pop("count")))
    return header


def test_an_unused_session_makes_room_for_another(tmp_path: Path) -> None:
    """The oldest of the client with most; a store sent again there is old, and is not stored again."""
    limits = ("--sessions-max", "2", "--session-seconds", "600")
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as raw:
        names = [session() for _ in range(5)]
        for name in names[:4]:
            raw.store("storeEvent", event(name), session=name, seq=1)
        assert raw.ask("storeEvent", event("x"), session=names[4], seq=1).code == "BUSY"
        raw.store("storeEvent", event("without a session"))
        for _ in range(2):
            assert raw.ask("storeEvent", event(names[1]), session=names[1], seq=1).code == "SEQUENCE_OLD"
            assert raw.ask("hello", session=names[1]).value["session"] == {"last": 1}
        raw.store("storeEvent", event("goes on"), session=names[1], seq=2, settled=1)
        assert len(raw.read_all()) == 6


def test_the_place_of_a_session_is_free_when_its_time_is_up(tmp_path: Path) -> None:
    """A client that has begun more than are kept gets BUSY until the oldest has expired."""
    limits = ("--sessions-max", "1", "--session-seconds", "1")
    with running_daemon(tmp_path / "base", *limits) as daemon, Raw(daemon.endpoint) as raw:
        for n in range(12):
            name = session()
            eventually(
                lambda n=n, name=name: bool(  # type: ignore[misc]
                    raw.ask("storeEvent", event(f"e{n}"), session=name, seq=1).header["ok"]
                ),
                "there is a place",
            )
        assert len(raw.read_all()) == 12
