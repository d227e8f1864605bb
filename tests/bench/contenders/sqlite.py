"""SQLite, each agent writing by itself."""

import sqlite3
from pathlib import Path

from tests.bench.contenders.base import Server
from tests.bench.load import Load
from tests.bench.run_agents import Worked, python_agents


class Sqlite(Server):
    """A database in WAL mode."""

    name = "sqlite"

    def missing(self) -> str | None:
        return None

    def sync_mode(self) -> str:
        return "journal_mode=WAL, synchronous=FULL: fdatasync of the WAL at each transaction"

    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def start(self, folder: Path) -> str:
        path = folder / "events.sqlite"
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE events (job TEXT, run TEXT, step INT, timestamp INT, body BLOB)")
        database.close()
        return str(path)

    def work(self, address: str, load: Load) -> Worked:
        return python_agents("sqlite", address, load)

    def audit(self, folder: Path, address: str) -> int:
        database = sqlite3.connect(address)
        (count,) = database.execute("SELECT count(*) FROM events").fetchone()
        database.close()
        return int(count)
