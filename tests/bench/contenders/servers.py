"""Redis, Valkey, PostgreSQL and NATS, on a folder and a socket of their own."""

import asyncio
import importlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.contenders.base import Server, output, wait_for
from tests.bench.load import Load
from tests.bench.run_agents import Worked, python_agents

PACKAGES = "pip install -r tests/bench/requirements.txt"


class Process(Server):
    """A server that is one program, and ends at SIGTERM."""

    program: str
    debian: str
    package: str
    _process: subprocess.Popen[bytes] | None = None
    ending = signal.SIGTERM

    def missing(self) -> str | None:
        if self.path() is None:
            return f"{self.program} is not installed (Debian: apt-get install {self.debian})"
        if importlib.util.find_spec(self.package) is None:
            return f"the Python package {self.package} is not installed: {PACKAGES}"
        return None

    def path(self) -> str | None:
        """Where the program is."""
        return shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/usr/local/sbin")

    def version(self) -> str:
        return output(str(self.path()), "--version")

    def run(self, folder: Path, *command: str) -> None:
        """Starts the program."""
        with (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def work(self, address: str, load: Load) -> Worked:
        return python_agents(self.name, address, load)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.ending)
            self._process.wait(timeout=60)


class Redis(Process):
    """Streams in an append-only file."""

    name = package = "redis"
    program = debian = "redis-server"

    def sync_mode(self) -> str:
        return "appendonly yes, appendfsync always: fdatasync before each answer"

    def start(self, folder: Path) -> str:
        self._sockets = tempfile.TemporaryDirectory(prefix="redis-")
        address = f"{self._sockets.name}/s"
        options = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self.run(
            folder,
            *(str(self.path()), "--port", "0", "--unixsocket", address, "--dir", str(folder)),
            *(*options, "--auto-aof-rewrite-percentage", "0"),
        )
        wait_for(lambda: bool(self._client(address).ping()), "Redis answers")
        return address

    def _client(self, address: str) -> Any:
        return importlib.import_module("redis").Redis(unix_socket_path=address)

    def audit(self, folder: Path, address: str) -> int:
        client = self._client(address)
        return sum(client.xlen(key) for key in client.keys("events.*"))

    def stop(self) -> None:
        super().stop()
        self._sockets.cleanup()


class Valkey(Redis):
    """The same by its fork, which speaks the same protocol."""

    name = "valkey"
    program = debian = "valkey-server"


class Postgres(Process):
    """A cluster of its own; run as user postgres where this is root.

    Memory and room for the WAL are what PostgreSQL's documentation advises for a machine of its own; so
    no checkpoint falls into a round because of the defaults, which are for a small machine.
    """

    tuning = ("shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=15min", "wal_buffers=16MB")

    name = "postgres"
    program = debian = "postgresql"
    package = "psycopg"
    ending = signal.SIGINT  # a fast shutdown

    def path(self) -> str | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        return str(found[-1]) if found else shutil.which("postgres")

    def sync_mode(self) -> str:
        return "fsync=on, synchronous_commit=on: fdatasync of the WAL at each commit"

    def start(self, folder: Path) -> str:
        self._sockets = tempfile.TemporaryDirectory(prefix="postgres-")
        data, binaries = folder / "data", Path(str(self.path())).parent
        data.mkdir()
        if os.geteuid() == 0:
            for path in (data, Path(self._sockets.name)):
                shutil.chown(path, "postgres", "postgres")
        subprocess.run(
            self._as_postgres(str(binaries / "initdb"), "-N", "-A", "trust", "-U", "bench", "-D", str(data)),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        settings = ("listen_addresses=", "max_connections=200", "synchronous_commit=on", *self.tuning)
        options = [word for setting in settings for word in ("-c", setting)]
        self.run(
            folder,
            *self._as_postgres(str(self.path()), "-D", str(data), "-k", self._sockets.name, *options),
        )
        address = f"host={self._sockets.name} user=bench dbname=postgres"
        wait_for(lambda: bool(self._ask(address, "SELECT 1")), "PostgreSQL answers")
        self._ask(address, "CREATE TABLE events (job text, run text, step int, timestamp bigint, body bytea)")
        return address

    def _as_postgres(self, *command: str) -> list[str]:
        return (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
            if (os.geteuid() == 0)
            else list(command)
        )

    def _ask(self, address: str, statement: str) -> Any:
        psycopg: Any = importlib.import_module("psycopg")
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone() if cursor.description else None

    def audit(self, folder: Path, address: str) -> int:
        return int(self._ask(address, "SELECT count(*) FROM events")[0])

    def stop(self) -> None:
        super().stop()
        self._sockets.cleanup()


class Nats(Process):
    """A JetStream stream in files."""

    name = package = "nats"
    program = debian = "nats-server"

    def path(self) -> str | None:
        # The package index has a newer one than Debian, which can't sync before it answers.
        return shutil.which(self.program, path=str(Path(sys.executable).parent)) or super().path()

    def _can_sync(self) -> bool:
        found = re.search(r"v(\d+)\.(\d+)", self.version())
        return found is not None and (int(found[1]), int(found[2])) >= (2, 10)

    def sync_mode(self) -> str:
        if self._can_sync():
            return "sync_interval: always: fsync before each answer"
        return "no such setting before 2.10: NOT synced before the answer, every two minutes only"

    def start(self, folder: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sync = "sync_interval: always" if self._can_sync() else ""
        settings = folder / "nats.conf"
        settings.write_text(
            f'host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: "{folder}/store"\n{sync} }}\n'
        )
        self.run(folder, str(self.path()), "-c", str(settings))
        address = f"nats://127.0.0.1:{port}"
        wait_for(lambda: asyncio.run(self._stream(address, make=True)) == 0, "JetStream is ready")
        return address

    async def _stream(self, address: str, *, make: bool = False) -> int:
        nats: Any = importlib.import_module("nats")
        connection = await nats.connect(address, error_cb=unheard)
        try:
            stream = connection.jetstream(timeout=60)
            if make:
                await stream.add_stream(name="events", subjects=["events.>"], storage="file")
            return int((await stream.stream_info("events")).state.messages)
        finally:
            await connection.close()

    def audit(self, folder: Path, address: str) -> int:
        return asyncio.run(self._stream(address))


async def unheard(error: Exception) -> None:
    """Drops what nats-py prints while its server starts: the caller that waits gets the error itself."""
