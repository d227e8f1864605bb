"""A history that is gone or was continued elsewhere: the subscriber learns of it."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perstack_storage import AsyncClient, Client, PositionGone, ProtocolError
from perstack_storage._core.epochs import SeenEpochs, spans_of
from tests.client.follow.subscriber import Subscriber, event
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon


def test_a_position_that_cannot_be_is_refused(client: Client) -> None:
    client.store_event(event(1))
    with pytest.raises(PositionGone) as caught:
        next(client.follow(2))
    assert (caught.value.code, caught.value.retryable) == ("POSITION_GONE", False)
    with pytest.raises(PositionGone):
        client.read_all(after=2)
    assert client.read_all(after=1) == []
    store = client.hello()["store"]
    assert len(list(client.follow(store=store, idle_s=0))) == 1
    with pytest.raises(PositionGone):
        next(client.follow(store="0" * 32, idle_s=0))


def _another_history(daemon: RunningDaemon, base: Path) -> None:
    shutil.rmtree(base)


def _older_copy(daemon: RunningDaemon, base: Path) -> None:
    shutil.rmtree(base)
    shutil.copytree(base.parent / "copy", base, symlinks=True)


def _older_copy_that_went_on(daemon: RunningDaemon, base: Path) -> None:
    with running_daemon(base.parent / "copy") as other, Client(other.endpoint, timeout_s=60) as client:
        for number in range(10, 14):
            client.store_event(event(number))
        assert other.stop() == 0
    _older_copy(daemon, base)


@pytest.mark.usefixtures("_short_waits")
@pytest.mark.parametrize("lose", [_another_history, _older_copy, _older_copy_that_went_on])
def test_a_subscriber_learns_that_the_history_changed(
    tmp_path: Path, lose: Callable[[RunningDaemon, Path], None]
) -> None:
    base = tmp_path / "perstack"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        client.store_event(event(1))
        daemon.stop()
        shutil.copytree(base, tmp_path / "copy", symlinks=True)
        daemon.start()
        client.store_event(event(2))
        subscriber = Subscriber(daemon.endpoint)
        eventually(lambda: subscriber.positions == [1, 2], "it is up to date")
        daemon.stop()
        lose(daemon, base)
        daemon.start()
        subscriber.join()
    assert isinstance(subscriber.error, PositionGone)
    assert subscriber.positions == [1, 2]


@pytest.fixture
def two_continuations(tmp_path: Path) -> Iterator[tuple[RunningDaemon, RunningDaemon]]:
    """A daemon that has two records, and one on a copy of its base of when there was one; that has four."""
    with running_daemon(tmp_path / "perstack") as original, Client(original.endpoint, timeout_s=60) as client:
        client.store_event(event(1))
        original.kill()
        shutil.copytree(original.base, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        original.start()
        client.store_event(event(2))
        with running_daemon(tmp_path / "copy") as copy, Client(copy.endpoint, timeout_s=60) as client_of_copy:
            for number in range(10, 13):
                client_of_copy.store_event(event(number))
            yield original, copy


def test_a_position_of_another_continuation_is_refused_by_its_epoch(
    two_continuations: tuple[RunningDaemon, RunningDaemon],
) -> None:
    """A position from before the copy continues in both; one from after it only where it was read."""
    original, copy = two_continuations
    with Client(original.endpoint, timeout_s=60) as client, Client(copy.endpoint, timeout_s=60) as other:
        store = client.hello()["store"]
        assert other.hello()["store"] == store
        assert other.hello()["epoch"] != client.hello()["epoch"]
        first, second = client.read_all()
        assert first["epoch"] != second["epoch"] == client.hello()["epoch"]
        of_copy = list(other.follow(first["position"], epoch=first["epoch"], store=store, idle_s=0))
        assert [record["position"] for record in of_copy] == [2, 3, 4]
        after, epoch = second["position"], second["epoch"]
        assert list(client.follow(after, epoch=epoch, store=store, idle_s=0)) == []
        assert client.read_all(after, epoch=epoch) == []
        with Client(copy.endpoint, timeout_s=60) as fresh:
            with pytest.raises(PositionGone) as caught:
                next(fresh.follow(after, epoch=epoch, store=store, idle_s=0))
            assert caught.value.field == "epoch"
            with pytest.raises(PositionGone):
                fresh.read_all(after, epoch=epoch)

        async def asynchronous() -> None:
            async with AsyncClient(copy.endpoint, timeout_s=60) as another:
                with pytest.raises(PositionGone):
                    await another.read_all(after, epoch=epoch)
                with pytest.raises(PositionGone):
                    await anext(another.follow(after, epoch=epoch, idle_s=0))

        asyncio.run(asynchronous())


def test_a_client_remembers_the_epochs_that_it_saw(
    two_continuations: tuple[RunningDaemon, RunningDaemon],
) -> None:
    """The same client learns that a copy was put back, though its program keeps positions only."""
    original, copy = two_continuations
    with Client(original.endpoint, timeout_s=60) as client:
        store = client.hello()["store"]
        assert [record["position"] for record in client.follow(store=store, idle_s=0)] == [1, 2]
        original.stop()
        copy.stop()
        shutil.rmtree(original.base)
        shutil.copytree(copy.base, original.base, symlinks=True)
        original.start()
        with pytest.raises(PositionGone):
            next(client.follow(2, store=store, idle_s=0))
        with pytest.raises(PositionGone):
            client.read_all(after=2)
        assert [record["position"] for record in client.follow(store=store, idle_s=0)] == [1, 2, 3, 4]
        assert [record["position"] for record in client.follow(2, store=store, idle_s=0)] == [3, 4]


def test_a_session_goes_on_in_a_base_that_was_put_back(tmp_path: Path) -> None:
    """What was acknowledged and is gone is not stored again; what comes later is, and once."""
    base, copy = tmp_path / "perstack", tmp_path / "copy"
    with running_daemon(base) as daemon, Client(daemon.endpoint, timeout_s=60) as client:
        client.store_event(event(1))
        daemon.stop()
        shutil.copytree(base, copy, symlinks=True)
        daemon.start()
        assert client.store_event(event(2)) == 2
        daemon.stop()
        shutil.rmtree(base)
        copy.rename(base)
        future = client.store_event_nowait(event(3))
        daemon.start()
        assert future.result(60) == 2
        assert client.store_event(event(4)) == 3
        assert [r["value"]["stepNumber"] for r in client.follow(idle_s=0)] == [1, 3, 4]


def test_seen_epochs_are_those_of_the_last_answer() -> None:
    """A later answer counts more, and what stood behind in another history is forgotten."""
    seen = SeenEpochs()
    seen.note(spans_of(0, 10, "b", [[1, "a"], [6, "b"]]))
    assert [seen.at(position) for position in (0, 1, 5, 6, 10, 11)] == [None, "a", "a", "b", "b", None]
    seen.note(spans_of(2, 8, "c", [[3, "a"], [4, "c"]]))
    assert [seen.at(position) for position in (3, 4, 8, 9)] == ["a", "c", "c", None]
    seen.note(spans_of(0, 20, "c", [[1, "a"], [4, "c"]]))
    assert [seen.at(position) for position in (3, 4, 20)] == ["a", "c", "c"]
    for n in range(5000):
        seen.note([(n, n, f"e{n}")])
    assert seen.at(4999) == "e4999"
    assert seen.at(0) is None
    assert spans_of(5, 5, "a", None) == []
    assert spans_of(5, 6, None, None) == [(6, 6, None)]
    for wrong in (5, [5], [[1, "a", 2]], [["x", "a"]]):
        with pytest.raises(ProtocolError):
            spans_of(0, 9, "a", wrong)
