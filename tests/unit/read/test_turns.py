"""Work of many clients for one thread: each in turn."""

from collections.abc import Iterator

from perstack_stored.read.turns import Turns


def work(name: str, done: list[str], steps: int = 1) -> Iterator[None]:
    for _ in range(steps):
        done.append(name)
        yield


def run(turns: Turns) -> None:
    """As the threads of the reads do, with no time at all for a turn."""
    while turns.others_wait("nobody"):
        turn = turns.take()
        assert turn is not None
        client, task = turn
        for _ in task:
            if turns.others_wait(client):
                turns.put_back(client, task)
                break


def test_clients_are_served_in_turn_with_any_demand_of_one() -> None:
    """A client with a thousand requests holds up another one's by one of them."""
    turns, done = Turns(), list[str]()
    for i in range(1000):
        turns.put("hog", work(f"hog {i}", done))
    turns.put("me", work("me 0", done))
    turns.put("me", work("me 1", done))
    for _ in range(4):
        turn = turns.take()
        assert turn is not None
        list(turn[1])
    assert done == ["hog 0", "me 0", "hog 1", "me 1"]


def test_long_work_is_put_aside_for_others_and_goes_on_before_its_clients_next() -> None:
    """The order of one client's own work stays."""
    turns, done = Turns(), list[str]()
    turns.put("long", work("long", done, steps=4))
    turns.put("long", work("after", done))
    turns.put("short", work("short 0", done))
    turns.put("short", work("short 1", done))
    run(turns)
    turns.end()
    assert turns.take() is None
    assert done == ["long", "short 0", "long", "long", "short 1", "long", "after"]


def test_nobody_else_waits_where_there_is_one_client_only() -> None:
    """Its own work that waits is no reason to put it aside."""
    turns = Turns()
    turns.put("me", work("a", []))
    turns.put("me", work("b", []))
    turn = turns.take()
    assert turn is not None
    assert not turns.others_wait("me")
    turns.put("other", work("c", []))
    assert turns.others_wait("me")
