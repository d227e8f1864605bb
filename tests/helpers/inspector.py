"""A running inspector, and how tests ask its gateway."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.helpers.daemon import RunningDaemon

COMMAND = [sys.executable, "-m", "perstack_storage"]


class Answer(NamedTuple):
    """What the gateway answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error in the body."""
        return self.json["error"]


class Inspector:
    """The inspector of a daemon, as a process of its own."""

    def __init__(self, daemon: RunningDaemon, *arguments: str) -> None:
        command = [*COMMAND, "inspect", "--endpoint", daemon.endpoint, "--port", "0", *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), "the inspector ended"
        parts = urlsplit(self.address)
        assert parts.port is not None
        self.port = parts.port
        self.token = parse_qs(parts.query)["token"][0]

    def connect(self, seconds: float = 60) -> http.client.HTTPConnection:
        """A connection to the gateway."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def ask(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", token: bool = True
    ) -> Answer:
        """One request."""
        sent = dict(headers or {})
        if token:
            sent["authorization"] = f"Bearer {self.token}"
        with closing(self.connect()) as connection:
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def get(self, path: str) -> Any:
        """The value that a request is answered with."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.json

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def running_inspector(daemon: RunningDaemon, *arguments: str) -> Iterator[Inspector]:
    """A ready inspector; it ends with the block."""
    inspector = Inspector(daemon, *arguments)
    try:
        yield inspector
    finally:
        if inspector.process.poll() is None:
            inspector.stop()
        assert inspector.process.stdout is not None
        inspector.process.stdout.close()


class Event(NamedTuple):
    """A server-sent event."""

    id: int | None
    kind: str
    data: Any


@contextmanager
def stream(inspector: Inspector, query: str = "", last: int | None = None) -> Iterator[Iterator[Event]]:
    """The events of a stream, until the block ends; comments and fields without data are passed over."""
    headers = {"authorization": f"Bearer {inspector.token}"}
    if last is not None:
        headers["last-event-id"] = str(last)
    with closing(inspector.connect()) as connection:
        connection.request("GET", f"/api/stream{query}", headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        with closing(response):
            yield _events(response)


def _events(response: http.client.HTTPResponse) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(
                int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])
            )
            fields = {}
        else:
            fields = {}


def token_file(folder: Path, token: str = "a-token-of-sixteen-characters", mode: int = 0o600) -> Path:
    """A file with a token."""
    path = folder / "token"
    path.write_text(f"{token}\n")
    path.chmod(mode)
    return path
