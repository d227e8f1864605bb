"""Who is let in over ipc, and what those learn who are not: with real users and forged claims."""

import grp
import json
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from perstack_storage import Client, Forbidden
from tests.helpers import commands
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import VALUES, Raw, event, job, session, setting

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users can be tried by root only")
OTHER = pwd.getpwnam("nobody")
SECRET = "sk-PLANTED-access"


@contextmanager
def new_place() -> Iterator[Path]:
    """A folder that other users may enter; pytest takes its own ones back from them at each start."""
    with tempfile.TemporaryDirectory(prefix="stored-access-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def place() -> Iterator[Path]:
    """Such a folder for one test."""
    with new_place() as path:
        yield path


@contextmanager
def serving(place: Path, *arguments: str) -> Iterator[RunningDaemon]:
    """A daemon whose socket anybody may connect to, as far as its mode goes."""
    socket_path = place / "sock"
    with running_daemon(
        place / "base", "--bind", f"ipc://{socket_path}", "--socket-mode", "0666", *arguments
    ) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def reads_only() -> Iterator[RunningDaemon]:
    """A daemon in which this user may only read; it serves at `sock` beside its base."""
    with new_place() as path, serving(path, "--read-only-users", str(os.geteuid())) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def refuses() -> Iterator[RunningDaemon]:
    """A daemon that lets another user in, and not this one; it serves at `sock` beside its base."""
    with new_place() as path, serving(path, "--allow-users", str(os.geteuid() + 1)) as daemon:
        yield daemon


def sock_of(daemon: RunningDaemon) -> str:
    return f"{daemon.base.parent}/sock"


ASK = """
import os, sys, zmq
os.setgid(int(sys.argv[1])); os.setgroups([]); os.setuid(int(sys.argv[2]))
socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
socket.connect(sys.argv[3])
for frame in sys.stdin.buffer.read().split(b"\\0"):
    socket.send(frame)
    assert socket.poll(30_000), "no answer"
    sys.stdout.buffer.write(socket.recv() + b"\\0")
"""


def as_user(uid: int, gid: int, place: Path, *frames: bytes) -> list[dict[str, Any]]:
    """Answers that a process of this user gets; a body comes as "body"."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(gid), str(uid), f"ipc://{place}/sock"],
        input=b"\0".join(frames), capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    answers = []
    for frame in done.stdout.rstrip(b"\0").split(b"\0"):
        head, _, body = frame.partition(b"\n")
        answers.append({**json.loads(head), "body": json.loads(body or b"null")})
    return answers


def frame(op: str, value: object = None) -> bytes:
    return json.dumps({"v": 1, "op": op, "id": 1}).encode() + b"\n" + json.dumps(value or {}).encode()


STORE, READ, HELLO = frame("storeEvent", event()), frame("getAllJobs"), frame("hello")


def code_of(answer: dict[str, Any]) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["code"])


# --- users and groups ------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "write"),
        (("--allow-users", "root"), "none"),
        (("--allow-users", "root", "--allow-users", "nobody"), "write"),
        (("--allow-users", str(OTHER.pw_uid)), "write"),
        (("--allow-groups", grp.getgrgid(OTHER.pw_gid).gr_name), "write"),
        (("--allow-groups", "daemon"), "none"),
        (("--read-only-users", "nobody"), "read"),
        (("--read-only-users", "root"), "write"),
        (("--read-only-groups", str(OTHER.pw_gid), "--allow-users", "nobody"), "read"),
        (("--allow-users", "root", "--read-only-users", "nobody"), "read"),
    ],
)
def test_users_and_groups_may_do_what_the_lists_say(
    place: Path, arguments: tuple[str, ...], expected: str
) -> None:
    """A refused one learns by every answer that it is refused, and the log who it was."""
    with serving(place, *arguments) as daemon:
        answers = as_user(OTHER.pw_uid, OTHER.pw_gid, place, STORE, READ, HELLO)
        codes = [code_of(answer) for answer in answers]
        assert (
            codes
            == {
                "write": ["ok", "ok", "ok"],
                "read": ["FORBIDDEN", "ok", "ok"],
                "none": ["FORBIDDEN", "FORBIDDEN", "FORBIDDEN"],
            }[expected]
        )
        if expected != "write":
            assert answers[0]["error"]["retryable"] is False
            logged = daemon.events("forbidden")
            assert [line["uid"] for line in logged] == [OTHER.pw_uid]
            assert logged[0]["pid"] > 0
            assert (logged[0]["op"], logged[0]["request"]) == ("storeEvent", 1)
        if expected != "none":
            assert answers[2]["body"]["access"] == {"write": "read-write", "read": "read-only"}[expected]
        daemon.stop()
        assert daemon.events("stopped")[0]["position"] == (1 if expected == "write" else 0)


@needs_root
def test_a_member_of_a_group_is_let_in_by_the_system_s_database(place: Path) -> None:
    """The process itself has only its primary group here; the daemon sees a database with a group more."""
    group = place / "group"
    group.write_text(f"{Path('/etc/group').read_text()}stored-testers:x:64123:{OTHER.pw_name}\n")
    show = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', str(group))
    rules = ("--bind", f"ipc://{place}/sock", "--socket-mode", "0666", "--allow-groups", "stored-testers")
    daemon = RunningDaemon(place / "base", *rules, prefix=show).start()
    try:
        assert code_of(as_user(OTHER.pw_uid, OTHER.pw_gid, place, STORE)[0]) == "ok"
        stranger = pwd.getpwnam("daemon")
        assert code_of(as_user(stranger.pw_uid, stranger.pw_gid, place, STORE)[0]) == "FORBIDDEN"
    finally:
        daemon.stop()


@needs_root
def test_a_reload_changes_the_lists_for_connected_clients(place: Path) -> None:
    """And a list that is wrong changes nothing."""
    path = place / "stored.toml"
    path.write_text('allow-users = ["root"]\n')
    with serving(place, "--config", str(path)) as daemon, Raw(f"ipc://{place}/sock") as raw:

        def reload(text: str, name: str) -> None:
            before = len(daemon.events(name))
            path.write_text(text)
            os.kill(daemon.pid, signal.SIGHUP)
            eventually(lambda: len(daemon.events(name)) > before, name)

        raw.store("storeEvent", event("a"))
        reload('allow-users = ["nobody-of-that-name"]\n', "reload_failed")
        assert "nobody-of-that-name" in daemon.events("reload_failed")[0]["reason"]
        raw.store("storeEvent", event("b"))
        reload('allow-users = ["nobody"]\n', "reloaded")
        assert raw.ask("storeEvent", event("c")).code == "FORBIDDEN"
        assert raw.ask("hello").code == "FORBIDDEN"
        reload('read-only-users = ["root"]\n', "reloaded")
        assert raw.ask("storeEvent", event("c")).code == "FORBIDDEN"
        assert raw.ask("hello").value["access"] == "read-only"
        reload("", "reloaded")
        assert raw.store("storeEvent", event("c")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--allow-users", "nobody-of-that-name"), "nobody-of-that-name"),
        (("--read-only-groups", "nobodies"), "nobodies"),
        (("--allow-users", "root", "--insecure-tcp"), "insecure-tcp"),
        (("--bind", "tcp://127.0.0.1:1"), "curve-key"),
        (("--bind", "tcp://0.0.0.0:1", "--insecure-tcp"), "loopback"),
        (("--curve-key", "/nowhere"), "curve-clients"),
        (("--curve-clients", "/nowhere"), "curve-key"),
        (("--curve-key", "/nowhere", "--curve-clients", "/nowhere"), "/nowhere"),
    ],
)
def test_rules_that_can_t_hold_let_it_not_start(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = commands.run("serve", "--base-path", str(tmp_path / "base"), *arguments)
    assert done.returncode == 78
    assert says in json.loads(done.stderr.splitlines()[-1])["reason"]


# --- read-only -------------------------------------------------------------------------------------


@needs_root
def test_a_read_only_client_sees_settings_with_secrets_masked(place: Path) -> None:
    """By every way that leads to a setting, waiting and large answers in parts included; others see them."""
    planted = setting(env={"KEY": SECRET}, providerConfig={"providerName": "p", "apiKey": SECRET})
    large = [setting(f"r{n}", env={"KEY": SECRET * 3000}) for n in range(5)]
    arguments = ("--read-only-users", "nobody", "--answer-bytes", "65536")
    with serving(place, *arguments), Raw(f"ipc://{place}/sock") as raw:
        raw.store("storeJob", job())
        for value in (planted, *large):
            raw.store("storeRunSetting", value)
        reads = (
            frame("getAllRuns"),
            frame("readAll"),
            frame("readAll", {"jobId": "j1"}),
            frame("readAll", {"waitMs": 2000}),
            frame("readAll", {"jobId": "j1", "runId": "r1", "waitMs": 2000}),
            frame("getEvent", {"position": 2}),
        )
        answers = as_user(OTHER.pw_uid, OTHER.pw_gid, place, *reads)
        for read, answer in zip(reads, answers, strict=True):
            assert answer["ok"], read
            assert SECRET not in json.dumps(answer)
            assert '"***"' in json.dumps(answer)
        seen, parts = raw.whole("getAllRuns")
        assert seen.count(SECRET.encode()) > 5
        assert parts > 1
        records = raw.ask("readAll", {"jobId": "j1", "runId": "r1", "waitMs": 2000})
        assert SECRET.encode() in records.body


def test_the_client_distinguishes_refusals_by_class(reads_only: RunningDaemon) -> None:
    with Client(f"ipc://{sock_of(reads_only)}") as client:
        with pytest.raises(Forbidden, match="only read") as caught:
            client.store_event(event())
        assert caught.value.code == "FORBIDDEN"
        assert client.get_all_jobs() == []
        assert client.hello()["access"] == "read-only"


@pytest.mark.parametrize("op", VALUES)
def test_every_store_of_a_read_only_client_is_refused(reads_only: RunningDaemon, op: str) -> None:
    """Alone, in a batch, in parts and in a session; nothing is stored."""
    with Raw(f"ipc://{sock_of(reads_only)}") as raw:
        body = json.dumps(VALUES[op]()).encode()
        assert raw.ask(op, body).code == "FORBIDDEN"
        assert raw.ask(op, body, session=session(), seq=1).code == "FORBIDDEN"
        assert raw.ask("store", body, items=[[op, len(body)]]).code == "FORBIDDEN"
        part = {"part": 0, "parts": 2, "bytes": len(body)}
        assert raw.ask(op, body[:5], session=session(), seq=1, **part).code == "FORBIDDEN"
        stats = raw.ask("stats").value
        assert (stats["position"], stats["partsBytes"], stats["sessions"]) == (0, 0, 0)


# --- claims ----------------------------------------------------------------------------------------


def zmtp(path: str, properties: dict[str, bytes], message: bytes) -> bytes:
    """A client that says of itself what it likes; what it receives for its message."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(path)
        peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
        received = until(peer, b"", lambda received: len(received) >= 64)
        said = b"\x05READY" + b"".join(
            bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value
            for name, value in properties.items()
        )
        peer.sendall(bytes([4, len(said)]) + said)
        received = until(peer, received, lambda received: b"READY" in received)
        peer.sendall(b"\x02" + struct.pack(">Q", len(message)) + message)
        return until(peer, received, lambda received: b'"ok"' in received)


def until(peer: socket.socket, received: bytes, done: Callable[[bytes], bool]) -> bytes:
    while not done(received):
        piece = peer.recv(65_536)
        assert piece, f"cut off after {received!r}"
        received += piece
    return received


FORGED = {
    "Peer-Address": f"localhost:{os.geteuid()}:0:1".encode(),
    "User-Id": b"root",
    "Socket-Type": b"DEALER",
}


@pytest.mark.parametrize("claims", [FORGED, {**FORGED, "Identity": b"chosen"}, {**FORGED, "Identity": b"\0"}])
def test_what_a_client_says_of_itself_counts_for_nothing(
    refuses: RunningDaemon, claims: dict[str, bytes]
) -> None:
    """Not an address, not a user, not a routing id: only what the kernel says."""
    forged = {**claims, "Peer-Address": f"localhost:{os.geteuid() + 1}:0:1".encode()}
    answer = zmtp(sock_of(refuses), forged, STORE)
    assert b"FORBIDDEN" in answer
    assert b'"ok":true' not in answer
    assert refuses.events("forbidden")


@pytest.mark.parametrize("identity", [b"chosen", b"\0", b"\0abc", b"\0abcde", b"x" * 255])
def test_a_claimed_routing_id_gives_and_takes_no_rights(reads_only: RunningDaemon, identity: bytes) -> None:
    """It is not looked at: the kernel says which user connects."""
    with Raw(f"ipc://{sock_of(reads_only)}", routing_id=identity) as raw:  # type: ignore[arg-type]
        assert raw.ask("getAllJobs").value == []
        assert raw.ask("storeEvent", event()).code == "FORBIDDEN"


def test_a_routing_id_whose_owner_is_gone_gives_its_rights_to_nobody(reads_only: RunningDaemon) -> None:
    """Rights belong to a connection."""
    for n in range(3):
        with Raw(f"ipc://{sock_of(reads_only)}") as raw:
            assert raw.ask("storeEvent", event(f"e{n}")).code == "FORBIDDEN"
            assert raw.ask("getAllJobs").value == []


def test_without_lists_every_client_writes(place: Path) -> None:
    with serving(place), Raw(f"ipc://{place}/sock", routing_id=b"chosen") as raw:  # type: ignore[arg-type]
        assert raw.store("storeEvent", event()) == 1


def test_a_refused_client_that_goes_on_asking_does_not_fill_the_log(place: Path) -> None:
    with serving(place, "--allow-users", str(os.geteuid() + 1)) as daemon, Raw(f"ipc://{place}/sock") as raw:
        for _ in range(500):
            assert raw.ask("ping").code == "FORBIDDEN"
        assert 1 <= len(daemon.events("forbidden")) <= 5


def test_a_plain_tcp_port_is_open_to_this_machine_only_when_asked_for(place: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
    endpoint = f"tcp://127.0.0.1:{port}"
    with running_daemon(place / "base", "--bind", endpoint, "--insecure-tcp"), Raw(endpoint) as raw:
        assert raw.store("storeEvent", event()) == 1
