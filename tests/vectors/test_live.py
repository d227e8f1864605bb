"""A live daemon is fed the frames of the golden vectors, and answers them byte for byte."""

from pathlib import Path

import pytest
import zmq

from tests.helpers.daemon import running_daemon
from tests.vectors.vectors import FILES, exchanges, load, settled

ANSWER_MS = 10_000


@pytest.mark.parametrize("file", [file for file in FILES if load(file)["daemon"] is not None])
def test_a_daemon_answers_as_the_vectors_say(tmp_path: Path, file: str) -> None:
    """One after the other, on a fresh base; only what the file says may vary."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with running_daemon(tmp_path / "base", *load(file)["daemon"]) as daemon:
        try:
            sockets = {kind: context.socket(getattr(zmq, kind)) for kind in ("DEALER", "REQ")}
            for socket in sockets.values():
                socket.connect(daemon.endpoint)
            for exchange in exchanges(file):
                socket = sockets[exchange.socket]
                assert exchange.request is not None
                socket.send_multipart(exchange.request.frames)
                assert socket.poll(ANSWER_MS), f"no answer to {exchange.name}"
                varies = exchange.answer.varies
                answered = [settled(frame, varies) for frame in socket.recv_multipart()]
                assert answered == [settled(f, varies) for f in exchange.answer.frames], exchange.name
        finally:
            context.destroy(linger=0)
        assert daemon.stop() == 0
