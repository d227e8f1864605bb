"""A ROUTER that answers the Python client as the daemon does, and checks, remembers and projects nothing.

    python -m tests.bench.echo_router ENDPOINT FILE|-

In each round it takes the messages that have arrived, appends their frames to FILE (filled with zeros
beforehand, as the daemon's segments are), syncs once, and answers. At the end it prints the count of events.
"""

import json
import os
import sys
from typing import Any

import orjson
import zmq
import zmq.backend

DRAIN_MAX = 512
FILE_BYTES = 128 * 1024 * 1024
LIMITS = {
    "window": {"records": 1024, "bytes": 16_777_216},
    "limits": {"frameBytes": 16_777_216, "batchItems": 1024},
}


class Log:
    """A file of written zeros that is filled again and again."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        for _ in range(FILE_BYTES // 1_048_576):
            os.write(self._file, bytes(1_048_576))
        os.fsync(self._file)
        self._offset = 0

    def append(self, frames: list[bytes]) -> None:
        """Appends and syncs."""
        data = b"".join(frames)
        if self._offset + len(data) > FILE_BYTES:
            self._offset = 0
        self._offset += os.pwrite(self._file, data, self._offset)
        os.fdatasync(self._file)


def main() -> None:
    """Serve until a line comes on stdin."""
    endpoint, path = sys.argv[1:]
    log = None if path == "-" else Log(path)
    router = zmq.Context().socket(zmq.ROUTER)
    router.rcvhwm = router.sndhwm = 0
    router.bind(endpoint)
    # The low-level calls: pyzmq's own send and recv cost twice as much.
    receive: Any = zmq.backend.Socket.recv.__get__(router)
    send: Any = zmq.backend.Socket.send.__get__(router)
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    print("ready", flush=True)
    position = 0
    while True:
        events = dict(poller.poll())
        if sys.stdin.fileno() in events:
            break
        answers: list[tuple[bytes, bytes]] = []
        frames = []
        try:
            while len(answers) < DRAIN_MAX:
                peer, frame = receive(zmq.NOBLOCK), receive(zmq.NOBLOCK)
                answer, count = answer_to(frame, position)
                position += count
                answers.append((peer, answer))
                if count:
                    frames.append(frame)
        except zmq.Again:
            pass
        if log is not None and frames:
            log.append(frames)
        for peer, answer in answers:
            send(peer, zmq.SNDMORE)
            send(answer, 0)
    print(position)


def answer_to(frame: bytes, position: int) -> tuple[bytes, int]:
    """The answer, and the number of events in the request."""
    header = orjson.loads(frame[: frame.index(b"\n")])
    if "seq" not in header:
        body = json.dumps(LIMITS) if header["op"] == "hello" else "{}"
        return f'{{"v":1,"id":{header["id"]},"ok":true,"position":{position}}}\n{body}'.encode(), 0
    count = len(header["items"]) if header["op"] == "store" else 1
    more = f',"count":{count}' if count > 1 else ""
    return f'{{"v":1,"id":{header["id"]},"ok":true,"position":{position + 1}{more}}}'.encode(), count


if __name__ == "__main__":
    main()
