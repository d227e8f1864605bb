"""How long a request waits for its answer, and after an error that asks to try again, in seconds."""

from typing import Any

from perstack_storage._core.frames import retry_after_s

PATIENCE_MIN_S = 1.0
"""With no answer for so long, a new connection is made and everything unanswered is sent again."""
PATIENCE_MAX_S = 16.0
"""It doubles from one silence to the next up to this: a slow answer must get through in the end."""
BACKOFF_MIN_S = 0.010
BACKOFF_MAX_S = 1.0
"""The bounds of the wait after an error that asks to try again; it doubles from one to the next."""


class Patience:
    """Both waits, as they have grown.

    Attributes:
        answer_s: how long an answer is waited for.
        is_tried: whether one of them has grown.
    """

    __slots__ = ("_retry_s", "answer_s", "is_tried")

    def __init__(self) -> None:
        self.answer_s = PATIENCE_MIN_S
        self._retry_s = BACKOFF_MIN_S
        self.is_tried = False

    def answered(self) -> None:
        """There was an answer."""
        self.answer_s = PATIENCE_MIN_S

    def missed(self) -> None:
        """There was none in time."""
        self.is_tried = True
        self.answer_s = min(self.answer_s * 2, PATIENCE_MAX_S)

    def retry_s(self, error: dict[str, Any]) -> float:
        """Returns how long to wait after an error of the daemon's before the same is sent again."""
        self.is_tried = True
        wait_s = max(self._retry_s, retry_after_s(error))
        self._retry_s = min(self._retry_s * 2, BACKOFF_MAX_S)
        return wait_s
