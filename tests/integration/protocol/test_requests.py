"""Requests of both socket types are answered in their own form, and `hello` names the settings."""

import re
from pathlib import Path

import zmq

from perstack_storage import Client
from perstack_stored.protocol.limits import FEATURES
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.raw_client import Raw


def test_a_dealer_and_a_req_are_answered_in_their_own_form(daemon: RunningDaemon) -> None:
    """The delimiter of REQ comes back; a DEALER that sends none gets none, one that does gets it."""
    request = b'{"v":1,"op":"ping","id":1}\n{}'
    with Raw(daemon.endpoint, zmq.REQ) as req:
        for _ in range(3):
            assert req.frames(request).value == {}
    with Raw(daemon.endpoint) as dealer:
        for frames in ([request], [b"", request]):
            dealer.socket.send_multipart(frames)
            assert dealer.socket.recv_multipart()[:-1] == frames[:-1]


def test_unknown_header_fields_and_an_empty_body_are_taken(raw: Raw) -> None:
    """What a newer client says beyond us is ignored, and no body stands for {}."""
    assert raw.ask("ping", hint={"a": [1, None]}, priority=7).value == {}
    runs = raw.ask("getAllRuns").value
    for frame in (b'{"v":1,"op":"getAllRuns","id":5}', b'{"v":1,"op":"getAllRuns","id":5}\n'):
        assert raw.frames(frame).value == runs


def test_hello_has_the_settings(tmp_path: Path) -> None:
    """Each bound that hello grants is the one that the daemon was started with."""
    flags = {
        "--frame-bytes-max": 200_000,
        "--value-bytes-max": 300_000,
        "--answer-bytes": 70_000,
        "--batch-items-max": 9,
        "--session-seconds": 11,
        "--parts-seconds": 12,
        "--read-seconds": 13,
        "--window-records": 14,
        "--window-bytes": 2_000_000,
    }
    arguments = [str(part) for pair in flags.items() for part in pair]
    with running_daemon(tmp_path / "base", *arguments) as daemon, Raw(daemon.endpoint) as raw:
        hello = raw.ask("hello").value
        with Client(daemon.endpoint) as client:
            assert client.hello() == hello
        daemon.stop()
        again = RunningDaemon(daemon.base).start()
        store = raw.ask("hello").value["store"]
        again.stop()
    assert hello.pop("store") == store
    assert re.fullmatch("[0-9a-f]{32}", store)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", hello.pop("version"))
    assert hello == {
        "server": "perstack-stored",
        "versions": [1],
        "base": str(daemon.base),
        "access": "read-write",
        "mayDelete": True,
        "features": list(FEATURES),
        "window": {"records": 14, "bytes": 2_000_000},
        "limits": {
            "frameBytes": 200_000,
            "valueBytes": 300_000,
            "answerBytes": 70_000,
            "batchItems": 9,
            "headerBytes": 65_536,
            "readAllRecords": 10_000,
            "sessionSeconds": 11,
            "partsSeconds": 12,
            "readSeconds": 13,
        },
    }
