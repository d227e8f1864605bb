"""The server tells the tree of no more than the index, as it knows it now, can number."""

from types import SimpleNamespace
from typing import Any, cast

from perstack_stored.segments import Mark
from perstack_stored.server import Server


def follower(place: int, *, due: bool = False) -> Any:
    sent: list[int] = []
    return SimpleNamespace(
        kind="", place=Mark(place, 1, place), sent=sent, fileno=lambda: None, receive=lambda: False,
        due=lambda: due, start=lambda: None, send=lambda mark: sent.append(mark.position),
    )  # fmt: skip


def test_a_tree_that_begins_waits_for_an_index_that_fell_behind() -> None:
    """What the tree may hold already is in the journal: an index that ends before brings older files back."""
    index, tree = follower(5), follower(0, due=True)
    server = SimpleNamespace(
        _index=index, _tree=tree, _tree_from=0, _journal=SimpleNamespace(mark=Mark(9, 1, 9)),
        _reads=SimpleNamespace(
            tail=SimpleNamespace(moved=lambda _position: None), index_is_there=True
        ),
        _polled={},
        _tell_index=lambda: None, _hear_followers=lambda: None,
    )  # fmt: skip

    def follow() -> None:
        Server._follow_followers(cast(Server, server))

    follow()
    assert tree.sent == []
    tree.due = lambda: False
    index.place = Mark(8, 1, 8)
    follow()
    assert tree.sent == []
    index.place = Mark(9, 1, 9)
    follow()
    assert tree.sent == [9]
