"""Pauses between the starts of a process that fails again and again."""


class Backoff:
    """Pauses between retries, longer each time, until one has lasted for some time."""

    def __init__(self, seconds: tuple[float, ...], stable_seconds: float) -> None:
        self._seconds = seconds
        self._stable_seconds = stable_seconds
        self._failures = 0

    def pause(self, went_well_seconds: float) -> float:
        """Return the next pause in seconds; the last try lasted for `went_well_seconds`."""
        if went_well_seconds > self._stable_seconds:
            self._failures = 0
        pause = self._seconds[min(self._failures, len(self._seconds) - 1)]
        self._failures += 1
        return pause
