"""Turns: what one call at a time may hold, and what no interruption can leave held for ever.

A lock that is taken when an exception comes out of a signal handler, just before the statement that would
release it, is held for ever. A handler that waits for a lock of the code below it waits for ever. A turn
names its holder in the same step that takes it: any thread can see whether the holder is at work or has
ended, and a handler can see that it stands on top of the holder.
"""

import contextlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

from perstack_storage._wire.readiness import is_cooperative

Token = list[object]
"""Of a call: its thread's number, the frame that gives the turn back, and the heir's token if it did not."""

_TURN = "turn"
_HEIR = 2  # index in a token
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_WAIT_S = 0.002
_LONG_S = 0.05
"""Hardly any call holds a turn for so long: then it is worth a closer look."""


class Turn:
    """May be held by one call at a time, and, on top of that one, by calls of signal handlers.

    Attributes:
        holder: the call that holds it; empty if none does. `take` and `give_back` say how it is used; the
            calls that come by for each store do that themselves, in one step each.
    """

    def __init__(self) -> None:
        self.holder: dict[str, Token] = {}
        self._pid = os.getpid()
        self.wanted = False
        # Only a hint: a thread that waits looks every now and then. No SimpleQueue: its `get` with a timeout
        # may wait without end where another thread was quicker.
        self._freed = threading.Lock()
        self._freed.acquire()

    def take(self, frame: FrameType, meanwhile: Callable[[], None] | None = None) -> bool:
        """Waits until this call has the turn.

        Args:
            frame: of the method that gives it back. When that has ended, the turn is free in any case.
            meanwhile: called again and again while another one has it.

        Returns:
            Whether it has it on top of a call of the same thread, which has been interrupted by a signal
            handler. Then it must not be given back.
        """
        token: Token = [threading.get_ident(), frame]
        return self.holder.setdefault(_TURN, token) is not token and self.contend(token, meanwhile)

    def contend(self, token: Token, meanwhile: Callable[[], None] | None = None) -> bool:
        """The same where the turn was not free."""
        begun = time.monotonic()
        while True:
            last = self._last(token)
            if last is token:
                return False
            ended = _has_ended(last)
            if not ended and last[0] == token[0]:
                return True
            if ended or (time.monotonic() - begun > _LONG_S and self._was_left(last)):
                last.append(token)  # of all that do this, the first one is the heir
                continue
            self.wanted = True
            if meanwhile is not None:
                meanwhile()
            self._freed.acquire(timeout=_WAIT_S)

    def try_take(self, frame: FrameType) -> bool:
        """Takes it where it is free, or was left behind; returns whether this call has it now."""
        token: Token = [threading.get_ident(), frame]
        while True:
            last = self._last(token)
            if last is token:
                return True
            if not _has_ended(last):
                return False
            last.append(token)

    def is_mine(self) -> bool:
        """Whether the calling thread has it."""
        holder = self.holder.get(_TURN)
        return holder is not None and _end(holder)[0] == threading.get_ident()

    def _last(self, token: Token) -> Token:
        return _end(self.holder.setdefault(_TURN, token))

    def _was_left(self, token: Token) -> bool:
        """Whether it was left by another thread, in the cases that take more to find out."""
        frame = cast("FrameType", token[1])
        if is_cooperative() or not (_is_generator(frame) or os.getpid() != self._pid):
            return False
        innermost = sys._current_frames().get(cast("int", token[0]))
        # A fork leaves the other threads in its parent.
        return innermost is None or (_is_generator(frame) and not _runs(frame, innermost))

    def give_back(self) -> None:
        """Lets the next one have it; nothing happens if nobody has it."""
        self.holder.clear()
        if self.wanted:
            self.call_next()

    def call_next(self) -> None:
        """Wakes one that waits, after the turn was given back. It may have been taken since."""
        self.wanted = False
        with contextlib.suppress(RuntimeError):  # nobody has seen yet that it was freed before
            self._freed.release()


def _end(token: Token) -> Token:
    while len(token) > _HEIR:
        token = cast("Token", token[_HEIR])
    return token


def _has_ended(token: Token) -> bool:
    """Whether the frame of a token is known to run no more: it returned, or an exception left it.

    `clear` raises RuntimeError if it runs, and drops its variables if not. To read `f_locals` of a frame that
    another thread runs isn't safe up to CPython 3.12: a destructor may let that thread go on in the middle.
    """
    frame = cast("FrameType", token[1])
    if _is_generator(frame):  # `clear` would close one that is suspended
        return token[0] == threading.get_ident() and not _runs(frame, sys._getframe())
    try:
        frame.clear()
    except RuntimeError:
        return False
    return True


def _is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & _GENERATOR)


def _runs(frame: FrameType, innermost: FrameType | None) -> bool:
    while innermost is not None and innermost is not frame:
        innermost = innermost.f_back
    return innermost is not None
