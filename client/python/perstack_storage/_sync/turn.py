"""Turns: what one call at a time may hold, and what no interruption can leave held for ever.

A lock that is taken when an exception comes out of a signal handler, just before the statement that would
release it, is held for ever. A handler that waits for a lock of the code below it waits for ever. A turn
names its holder in the same step that takes it: any thread can see whether the holder is at work or gone,
and a handler can see that it stands on top of the holder.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Set
from types import CodeType, FrameType
from typing import cast

from perstack_storage._wire.readiness import is_cooperative

Token = list[object]
"""Number of the thread that holds or wants the turn; then the heir's token, where that thread left it."""

_TURN = "turn"
_WAIT_S = 0.002
_GONE_AFTER_S = 0.05
"""A thread that holds a turn for so long is looked at; that costs more than a turn is mostly held."""


class Turn:
    """May be held by one call at a time, and, on top of that one, by calls of signal handlers.

    Attributes:
        holder: the call that holds it; empty if none does. `take` and `give_back` say how it is used; the
            calls that come by for each store do that themselves, in one step each.
    """

    def __init__(self, of: object, entries: Set[CodeType]) -> None:
        """Prepares a turn.

        Args:
            of: what it is for.
            entries: the methods of `of` that hold it; a thread that is in none of them does not. The set may
                be filled later, when the class is there.
        """
        self.holder: dict[str, Token] = {}
        self.wanted = False
        self._held: Token | None = None  # by another thread, when somebody looked
        self._held_at = 0.0
        self._of = id(of)
        self._entries = entries
        # Only a hint: a thread that waits looks every now and then. No SimpleQueue: its `get` with a timeout
        # may wait without end where another thread was quicker.
        self._freed = threading.Lock()
        self._freed.acquire()

    def take(self, meanwhile: Callable[[], None] | None = None) -> bool:
        """Waits until this call has the turn.

        Args:
            meanwhile: called again and again while another one has it.

        Returns:
            Whether it has it on top of a call of the same thread, which has been interrupted by a signal
            handler. Then it must not be given back.
        """
        token: Token = [threading.get_ident()]
        return self.holder.setdefault(_TURN, token) is not token and self.contend(token, meanwhile)

    def contend(self, token: Token, meanwhile: Callable[[], None] | None = None) -> bool:
        """The same where the turn was not free."""
        begun = time.monotonic()
        while True:
            last = self._last(token)
            if last is token:
                return False
            mine = last[0] == token[0]
            if mine and self.stands_on_it():
                return True
            if mine or (time.monotonic() - begun > _GONE_AFTER_S and self._is_gone(last[0])):
                last.append(token)  # of all that do this, the first one is the heir
                continue
            self.wanted = True
            if meanwhile is not None:
                meanwhile()
            self._freed.acquire(timeout=_WAIT_S)

    def try_take(self) -> bool:
        """Takes it where it is free, or was left behind; returns whether this call has it now."""
        token: Token = [threading.get_ident()]
        while True:
            last = self._last(token)
            if last is token:
                return True
            mine = last[0] == token[0]
            if self.stands_on_it() if mine else not self._was_left(last):
                return False
            last.append(token)

    def is_mine(self) -> bool:
        """Whether the calling thread has it."""
        holder = self.holder.get(_TURN)
        return holder is not None and self._end(holder)[0] == threading.get_ident()

    def _last(self, token: Token) -> Token:
        return self._end(self.holder.setdefault(_TURN, token))

    def _end(self, token: Token) -> Token:
        while len(token) > 1:
            token = cast("Token", token[1])
        return token

    def _was_left(self, token: Token) -> bool:
        if self._held is not token:
            self._held, self._held_at = token, time.monotonic()
            return False
        return time.monotonic() - self._held_at > _GONE_AFTER_S and self._is_gone(token[0])

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

    def stands_on_it(self) -> bool:
        """Whether the calling method, an entry, was called from within another one in this thread."""
        return self._entries_in(sys._getframe()) > 1

    def _is_gone(self, thread: object) -> bool:
        if is_cooperative():
            return False  # the numbers are not those of threads
        frame = sys._current_frames().get(thread)  # type: ignore[call-overload]
        return frame is None or not self._entries_in(frame)

    def _entries_in(self, frame: FrameType | None) -> int:
        entries, count = self._entries, 0
        while frame is not None:
            if frame.f_code in entries and id(frame.f_locals.get("self")) == self._of:
                count += 1
            frame = frame.f_back
        return count
