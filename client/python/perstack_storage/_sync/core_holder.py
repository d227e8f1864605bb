"""The core of a connection, held by one call at a time, whatever interrupts it."""

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from perstack_storage._core.errors import ClosedError
from perstack_storage._core.outcomes import GivenUp
from perstack_storage._core.outstanding import NowaitSettings
from perstack_storage._sync.core import Common, Core, Superseded
from perstack_storage._sync.delivery import Delivery, ThreadOutstanding
from perstack_storage._sync.turn import Turn
from perstack_storage._wire.target import Target

if TYPE_CHECKING:
    import zmq

T = TypeVar("T")


class CoreHolder:
    """What a connection works on, and by whom.

    A call takes the turn, works on the core, and gives the turn back. Two things can come between:

    - An exception, out of a signal handler or a trace function. The core is `torn` then, and perhaps the turn
      was not given back. The next call, or the pump, goes on with a successor of the core.
    - A call of a signal handler. A `…_nowait` store waits in `late` until the call below it looks there.
      Any other call makes a successor of the core and works on that one; the call below begins again with it.
    """

    def __init__(
        self,
        context: "Callable[[], zmq.SyncContext]",
        target: Target,
        nowait: NowaitSettings,
    ) -> None:
        """Makes the first core."""
        self._nowait = nowait
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        self._turn = Turn()
        self._holder = self._turn.holder
        self._delivery = Delivery(nowait.failures.report)
        self._collected = self._delivery.collected
        self._common = Common(target.timeout_s)
        self._watch, self._late = self._common.watch, self._common.late
        self._core = core = Core(context, target, self._common)
        self._given_up: GivenUp = core._given_up
        core.outstanding = self._new_outstanding()
        self.closed = False

    def _new_outstanding(self) -> ThreadOutstanding:
        return ThreadOutstanding(self._nowait, self._given_up, self._delivery)

    def _on_core(self, work: Callable[[Core, bool], T]) -> T:
        """Does the work of a call in its turn, on a whole core; once more where a successor replaced it.

        Args:
            work: is given the core, and whether a call of this thread is under way below this one.
        """
        while True:
            nested = self._enter()
            core = self._core
            try:
                result = work(core, nested)
                if core._touched and core.outstanding.bytes:
                    core.leave_descriptor()
                core.torn = False
                return result
            except Superseded:
                pass
            finally:
                self._leave(core, nested)

    def _enter(self, *, may_wait: bool = True) -> bool:
        """Takes the turn for the calling method, and sees that the core is whole.

        Returns:
            Whether a call of this thread is under way below this one. With `may_wait` this one goes on with a
            successor of its core then.
        """
        thread = threading.get_ident()
        if thread != self._thread or os.getpid() != self._pid:
            raise ClosedError("a pipeline can be used only in the thread and process that opened it")
        token: list[object] = [thread, sys._getframe(1)]
        nested = self._holder.setdefault("turn", token) is not token and self._turn.contend(token)
        if nested and not may_wait:
            return True
        try:
            if self._core.torn:
                self._renew(interrupted=nested)
            if self.closed:
                raise ClosedError("the client is closed")
            self._core.torn = True
        except BaseException:
            if not nested:
                self._turn.give_back()
            raise
        return nested

    def _leave(self, core: Core, nested: bool) -> None:
        if core.superseded:
            core.retire(interrupted=False)
        if nested:
            return
        self._holder.clear()
        if self._turn.wanted:
            self._turn.call_next()
        if self._collected:
            self._delivery.hand_out()

    def _renew(self, *, interrupted: bool) -> None:
        """Replaces the core by one that is whole."""
        old = self._core
        new = old.successor(self._new_outstanding, interrupted=interrupted)
        last = self._common.last
        if last is None or not (last.done() or self._delivery.has(last)):
            # The call was interrupted before it had noted the store, or after.
            futures = [store[2] for store in old.taken_over if store[2] is not None]
            self._common.last = futures[-1] if futures else None
        old.superseded = True
        self._core = new
        if self.closed:
            new.closed = True
        old.retire(interrupted=interrupted)
        new.settle()

    def _interrupt(self) -> None:
        self._core.interrupt()
