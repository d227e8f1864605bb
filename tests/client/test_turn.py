"""Turns: one call at a time has it, and none that ended without giving it back keeps it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator

import pytest

from perstack_storage._sync import turn as turn_module
from perstack_storage._sync.turn import Turn

SECONDS = 120.0


class Held:
    """A thread that holds a turn, in the way that `hold` says, until `end`."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.is_in, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self.hold, daemon=True)
        self._thread.start()
        assert self.is_in.wait(SECONDS)

    def hold(self) -> None:
        """Takes it and gives it back."""
        self.turn.take(sys._getframe())
        self.wait()
        self.turn.give_back()

    def leave(self) -> None:
        """Takes it and does not give it back."""
        self.turn.take(sys._getframe())

    def wait(self) -> None:
        self.is_in.set()
        assert self._end.wait(SECONDS)

    def end(self) -> None:
        """Has the thread go on, and waits for its end."""
        self._end.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


class Left(Held):
    """The method that took it has ended; its thread goes on."""

    def hold(self) -> None:
        self.leave()
        self.wait()


class InGenerator(Held):
    """It is taken for a generator, which runs."""

    def hold(self) -> None:
        next(self.generate())

    def generate(self) -> Iterator[int]:
        self.turn.take(sys._getframe())
        self.wait()
        self.turn.give_back()
        yield 1


class LeftInGenerator(Held):
    """The generator has left it behind, and is suspended."""

    def hold(self) -> None:
        generator = self.generate()
        self.got = [next(generator)]
        self.wait()
        self.got += generator

    def generate(self) -> Iterator[int]:
        self.turn.take(sys._getframe())
        yield 1
        yield 2


def take_within(turn: Turn, seconds: float) -> bool:
    """Whether another thread gets the turn in that time; it gives it back."""
    taken = threading.Event()

    def take() -> None:
        assert not turn.take(sys._getframe())
        taken.set()
        turn.give_back()

    threading.Thread(target=take, daemon=True).start()
    return taken.wait(seconds)


@pytest.mark.parametrize("kind", [Held, InGenerator])
def test_a_call_that_runs_keeps_its_turn(kind: type[Held]) -> None:
    """Others wait, however long it takes, and get it when it is given back."""
    held = kind(Turn())
    assert not take_within(held.turn, 0.5)
    assert not held.turn.try_take(sys._getframe())
    held.end()
    assert take_within(held.turn, SECONDS)


@pytest.mark.parametrize("kind", [Left, LeftInGenerator])
def test_a_turn_that_was_left_is_taken_over_while_its_thread_goes_on(kind: type[Held]) -> None:
    """Also by several at once: one after the other has it."""
    held = kind(Turn())
    takers = [threading.Thread(target=take_within, args=(held.turn, SECONDS)) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(SECONDS)
    assert take_within(held.turn, SECONDS)
    held.end()


def test_of_two_that_find_a_turn_left_one_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one takes it over right after the first has looked."""
    left, others = Left(Turn()), list[Held]()
    looked = threading.Event()
    real = turn_module._has_ended

    def has_ended(token: turn_module.Token) -> bool:
        ended = real(token)
        if ended and not looked.is_set():
            looked.set()
            others.append(Held(left.turn))
        return ended

    monkeypatch.setattr(turn_module, "_has_ended", has_ended)
    assert not take_within(left.turn, 0.5)
    for held in (*others, left):
        held.end()
    assert take_within(left.turn, SECONDS)


def test_a_generator_that_is_suspended_goes_on_after_another_thread_looked_at_it() -> None:
    """`as_completed` is one: it must not end early since another thread waited for the same future."""
    held = LeftInGenerator(Turn())
    assert take_within(held.turn, SECONDS)
    held.end()
    assert held.got == [1, 2]


def test_the_same_thread_takes_over_what_it_left_and_stands_on_what_it_holds() -> None:
    """A call of a signal handler finds the turn with the call below it."""
    turn = Turn()

    def leave() -> None:
        assert not turn.take(sys._getframe())

    def nested() -> bool:
        return turn.take(sys._getframe())

    def generate() -> Generator[bool, None, None]:
        assert not turn.take(sys._getframe())
        yield nested()

    def hold() -> None:
        assert not turn.take(sys._getframe())
        assert nested()
        assert turn.is_mine()
        turn.give_back()

    leave()
    hold()
    generator = generate()
    assert next(generator)
    hold()
    generator.close()
    leave()
    assert turn.try_take(sys._getframe())


def test_a_call_whose_exception_is_kept_has_ended() -> None:
    """A traceback keeps its frame; the turn is free all the same."""
    turn, kept = Turn(), list[BaseException]()

    def leave() -> None:
        turn.take(sys._getframe())
        raise KeyboardInterrupt

    try:
        leave()
    except KeyboardInterrupt as error:
        kept.append(error)
    assert take_within(turn, SECONDS)


def test_a_call_of_another_thread_ends_with_a_fork() -> None:
    """The child has no thread that would give the turn back."""
    held = Held(Turn())
    child = os.fork()
    if child == 0:
        os._exit(0 if not held.turn.take(sys._getframe()) else 1)
    end = time.monotonic() + SECONDS
    while (waited := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if waited == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    held.end()
    assert waited == (child, 0)


def test_one_at_a_time_has_it_of_many_that_want_it() -> None:
    """Each gets it as often as it asks."""
    turn, has_it, overlaps, taken = Turn(), list[int](), list[int](), list[int]()

    def work(me: int) -> None:
        for _ in range(200):
            assert not turn.take(sys._getframe())
            has_it.append(me)
            time.sleep(0)
            overlaps.extend(has_it[1:])
            has_it.pop()
            taken.append(me)
            turn.give_back()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not overlaps
    assert sorted(taken) == sorted([0, 1, 2, 3] * 200)
