"""What a campaign of the soak says while it runs, and how it learns that its time is up."""

import math
import time
from collections.abc import Callable

Figures = dict[str, float]

FINDINGS = ("lost", "doubled", "reordered", "torn", "invented", "broken", "wrong", "missed")
"""Figures that must be 0, whoever gives them."""


class Progress:
    """Rounds that are done, and the figures so far: the last report counts, however the campaign ends."""

    def __init__(self, say: Callable[..., None] = lambda **_: None, seconds: float = math.inf) -> None:
        self._say = say
        self._deadline = time.monotonic() + seconds

    def __call__(self, done: int) -> None:
        """Report the count of rounds that are done."""
        self._say(round=done)

    def after(self, before: int) -> Callable[[int], None]:
        """For a part that counts its own rounds, after the given ones."""
        return lambda done: self(before + done)

    def tell(self, figures: Figures) -> None:
        """What has come of them so far."""
        self._say(figures=figures)

    def stop(self) -> None:
        """Let the time be up."""
        self._deadline = -math.inf

    @property
    def time_is_up(self) -> bool:
        """Whether to come to an end after this round."""
        return time.monotonic() >= self._deadline


def add(total: Figures, figures: Figures) -> None:
    """Figures are added; of those named max, the largest counts."""
    for name, figure in figures.items():
        total[name] = max(total.get(name, 0), figure) if name.endswith("Max") else total.get(name, 0) + figure
