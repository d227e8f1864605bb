"""Rate limits of stores by client: a token bucket for records, and one for bytes. No I/O."""

import time

from perstack_storage.protocol import ErrorCode
from perstack_stored.errors import Refusal

_BUCKETS_MAX = 20_000


class _Bucket:
    """A token bucket of one second's worth; a larger store leaves a debt."""

    __slots__ = ("bytes", "records", "seen")

    def __init__(self, records: float, size: float, now: float) -> None:
        self.records = records
        self.bytes = size
        self.seen = now


class RateLimiter:
    """The rates of all clients. 0 means no limit."""

    def __init__(self, records_per_second: int, bytes_per_second: int) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self.apply_settings(records_per_second, bytes_per_second)

    def apply_settings(self, records_per_second: int, bytes_per_second: int) -> None:
        """Apply new rates."""
        self._records, self._bytes = float(records_per_second), float(bytes_per_second)
        self.active = bool(records_per_second or bytes_per_second)
        self._buckets.clear()

    def charge(self, client: str, records: int, size: int) -> None:
        """Charge a store to its client.

        Raises:
            Refusal: BUSY, with the time until there is room.
        """
        now = time.monotonic()
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_MAX:
                self.on_tick(now)
            bucket = self._buckets[client] = _Bucket(self._records, self._bytes, now)
        passed = now - bucket.seen
        bucket.seen = now
        bucket.records = min(self._records, bucket.records + passed * self._records)
        bucket.bytes = min(self._bytes, bucket.bytes + passed * self._bytes)
        # A store of more than a second's worth is admitted when the bucket is full.
        wait = max(
            _wait(bucket.records, min(records, self._records), self._records),
            _wait(bucket.bytes, min(size, self._bytes), self._bytes),
        )
        if wait > 0:
            raise Refusal(
                ErrorCode.BUSY,
                "this client stores faster than the daemon's settings let it",
                retry_after_ms=max(1, round(wait * 1000)),
            )
        bucket.records -= records
        bucket.bytes -= size

    def on_tick(self, now: float) -> None:
        """Forget clients whose buckets are full again."""
        self._buckets = {
            client: bucket
            for client, bucket in self._buckets.items()
            if (self._records and bucket.records + (now - bucket.seen) * self._records < self._records)
            or (self._bytes and bucket.bytes + (now - bucket.seen) * self._bytes < self._bytes)
        }


def _wait(there: float, wanted: float, rate: float) -> float:
    """Seconds until there is enough; 0 without a limit."""
    return (wanted - there) / rate if rate and there < wanted else 0.0
