"""An S3 server: moto in a process of its own, on loopback, and a relay before it that can be cut."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.store import S3Store

BUCKET = "bucket"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """A running server with one bucket."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.s3"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd=Path(__file__).parents[2],
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")).close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it; its objects are gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()

    @property
    def store(self) -> S3Store:
        """A client of the bucket."""
        return S3Store(
            BUCKET,
            config={
                "endpoint": self.url,
                "access_key_id": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
                "secret_access_key": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            },
            client_options={"allow_http": True},
        )

    def objects(self, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix, by key, in order."""
        store = self.store
        keys = sorted(item["path"] for page in obstore.list(store, prefix=prefix) for item in page)
        return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A running server; its log is in the folder."""
    server = S3Server(folder / "s3.log")
    try:
        yield server
    finally:
        server.stop()


class Relay:
    """Passes connections on to a server. `cut` breaks all of them, in the middle of what they carry."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_up = True
        self._drops_answers = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self, *, drops_answers: bool = False) -> None:
        """Break all connections, and take no new ones.

        With `drops_answers`, requests go on to the server, whose answers are lost.
        """
        with self._lock:
            self.is_up, self._drops_answers = False, drops_answers
            if not drops_answers:
                for one in self._open:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        with self._lock:
            self.is_up, self._drops_answers = True, False
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all of it."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        workers = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            if not self.is_up and not self._drops_answers:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the server is away
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for ends in ((client, server, False), (server, client, True)):
                workers.append(threading.Thread(target=self._pass, args=ends, daemon=True))
                workers[-1].start()
        for worker in workers:
            worker.join()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_answer and self._drops_answers:
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


def main() -> None:
    """Serve until standard input ends; print the port."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer  # noqa: PLC0415 - slow

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    sys.stdout.write(f"{server.get_host_and_port()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
