"""What an agent process does with each contender that has a Python client.

The packages of the other stores are not dependencies of the project: they are imported on use.
"""

import asyncio
import importlib
import sqlite3
from typing import Any, Protocol

import orjson

from perstack_storage import AsyncClient, Client

Events = list[dict[str, Any]]


class Driver(Protocol):
    """A connection of one agent.

    `store` is given as many events as may be in flight, and returns when all are durable; those with a
    window that slides on return once the next ones may follow. `finish` waits for the rest.
    """

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        """Connects."""

    async def store(self, events: Events) -> None:
        """Stores."""

    async def finish(self) -> None:
        """Waits until all are durable."""


class Perstack:
    """The synchronous client; its pipeline where many are in flight."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        self.client = Client(address, timeout_s=120)
        self.client.ping()
        self.pipeline = self.client.pipeline(max_in_flight=in_flight) if in_flight > 1 else None

    async def store(self, events: Events) -> None:
        if self.pipeline is None:
            self.client.store_event(events[0])
            return
        for event in events:
            self.pipeline.store_event(event)

    async def finish(self) -> None:
        if self.pipeline is not None:
            self.pipeline.flush()


class PerstackAsyncio:
    """The asyncio client."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        self.client = AsyncClient(address, timeout_s=120)
        await self.client.ping()
        self.pipeline = self.client.pipeline(max_in_flight=in_flight) if in_flight > 1 else None

    async def store(self, events: Events) -> None:
        if self.pipeline is None:
            await self.client.store_event(events[0])
            return
        for event in events:
            await self.pipeline.store_event(event)

    async def finish(self) -> None:
        if self.pipeline is not None:
            await self.pipeline.flush()
        await self.client.close()


class Sqlite:
    """A connection of its own, one transaction for what is in flight."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        self.database = sqlite3.connect(address, timeout=120, isolation_level=None)
        self.database.execute("PRAGMA synchronous=FULL")

    async def store(self, events: Events) -> None:
        rows = [(e["jobId"], e["runId"], e["stepNumber"], e["timestamp"], orjson.dumps(e)) for e in events]
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        self.database.execute("COMMIT")

    async def finish(self) -> None:
        self.database.close()


class Redis:
    """A stream for each run, one pipeline for what is in flight."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        redis: Any = importlib.import_module("redis")
        self.redis = redis.Redis(unix_socket_path=address, socket_timeout=120)
        self.redis.ping()

    async def store(self, events: Events) -> None:
        if len(events) == 1:
            self.redis.xadd(stream_of(events[0]), {"event": orjson.dumps(events[0])})
            return
        pipeline = self.redis.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(stream_of(event), {"event": orjson.dumps(event)})
        pipeline.execute()

    async def finish(self) -> None:
        self.redis.close()


class Postgres:
    """Inserts; in pipeline mode what is in flight is one transaction."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        psycopg: Any = importlib.import_module("psycopg")
        self.connection = psycopg.connect(address, autocommit=True)
        self.connection.prepare_threshold = 0

    async def store(self, events: Events) -> None:
        if len(events) == 1:
            self._insert(events[0])
            return
        with self.connection.pipeline():
            for event in events:
                self._insert(event)

    def _insert(self, event: dict[str, Any]) -> None:
        values = (
            event["jobId"],
            event["runId"],
            event["stepNumber"],
            event["timestamp"],
            orjson.dumps(event),
        )
        self.connection.execute("INSERT INTO events VALUES (%s, %s, %s, %s, %s)", values)

    async def finish(self) -> None:
        self.connection.close()


class Nats:
    """A subject for each run; each publication waits for JetStream's answer."""

    async def connect(self, address: str, agent: int, in_flight: int) -> None:
        nats: Any = importlib.import_module("nats")
        self.nats = await nats.connect(address)
        self.stream = self.nats.jetstream(timeout=120)

    async def store(self, events: Events) -> None:
        publish = [self.stream.publish(stream_of(e), orjson.dumps(e)) for e in events]
        if len(publish) == 1:
            await publish[0]
        else:
            await asyncio.gather(*publish)

    async def finish(self) -> None:
        await self.nats.close()


def stream_of(event: dict[str, Any]) -> str:
    """The name of a run's stream."""
    return f"events.{event['jobId']}.{event['runId']}"


DRIVERS: dict[str, type[Driver]] = {
    "perstack": Perstack,
    "perstack-asyncio": PerstackAsyncio,
    "sqlite": Sqlite,
    "redis": Redis,
    "valkey": Redis,
    "postgres": Postgres,
    "nats": Nats,
}
