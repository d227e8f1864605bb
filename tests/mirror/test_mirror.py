"""A daemon mirrors its journal to S3, and a base comes back from there."""

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest

from perstack_storage import Client
from perstack_stored.mirror import pieces
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.gated import GATHERED, start_gated
from tests.helpers.long_events import event, store
from tests.helpers.raw_client import Raw
from tests.helpers.s3 import ENVIRONMENT, Relay, S3Server, s3_server
from tests.mirror.bases import (
    PATIENCE_SECONDS,
    await_copy,
    copying,
    dump,
    is_mirrored,
    mirror_stats,
    mirrored,
    objects_with,
    restore,
    run,
    url_of,
)
from tests.mirror.kills import Campaign, mirror_pid
from tests.offline.bases import Checked, read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def relay(server: S3Server) -> Iterator[Relay]:
    one = Relay(server.port)
    yield one
    one.close()


def await_mirror(daemon: RunningDaemon) -> None:
    eventually(lambda: is_mirrored(daemon), "the bucket holds all", PATIENCE_SECONDS)


@contextmanager
def serving(*daemons: RunningDaemon) -> Iterator[None]:
    """They run; killed at the end if they still do."""
    try:
        for daemon in daemons:
            daemon.start()
        yield
    finally:
        for daemon in daemons:
            daemon.make_sure_it_ended()


@pytest.fixture
def daemon(tmp_path: Path, server: S3Server, request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    one = mirrored(tmp_path / "base", request.node.name, server.url)
    with serving(one):
        yield one


def test_a_base_comes_back_from_its_mirror(
    daemon: RunningDaemon, server: S3Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whole, up to a position, up to a time; a clean stop ships the rest, and no secret shows anywhere."""
    prefix = request.node.name
    store(daemon.endpoint, "j1", 2500)  # several segments, some of which are packed meanwhile
    await_mirror(daemon)
    stats = mirror_stats(daemon)
    assert stats["enabled"]
    assert (stats["lagRecords"], stats["lagBytes"], stats["fault"]) == (0, 0, "")
    assert stats["packedBytes"] < stats["bytes"] / 10
    shown = json.dumps(stats)
    store(daemon.endpoint, "j2", 100)
    assert daemon.stop() == 0
    records = dump(daemon.base)
    said = restore(prefix, server.url, tmp_path / "new")
    assert said["position"] == 2600
    assert dump(tmp_path / "new") == records
    assert not Checked(tmp_path / "new").findings
    assert restore(prefix, server.url, tmp_path / "some", "--to-position", "1234")["position"] == 1234
    assert dump(tmp_path / "some") == records[:1234]
    at = json.loads(records[2000])["time"]
    last = max(n for n, line in enumerate(records, 1) if json.loads(line)["time"] <= at)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1000)) + f".{at % 1000:03d}+00:00"
    assert restore(prefix, server.url, tmp_path / "then", "--to-time", when)["position"] == last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "base.log", "new", "some", "then"]
    shown += daemon.log.read_text() + run("config", "--mirror", url_of(prefix)).stdout
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in shown


def test_what_is_not_synced_is_not_in_the_bucket(server: S3Server, tmp_path: Path) -> None:
    """While a sync of the disk takes long, the mirror waits with it."""
    gate = tmp_path / "gate"
    daemon = mirrored(tmp_path / "base", "gated", server.url)
    flags = ("--mirror", url_of("gated"), "--mirror-endpoint", server.url)
    gate.touch()
    try:
        start_gated(daemon, gate, *flags, environment=ENVIRONMENT)
        sent = itertools.count()
        with Raw(daemon.endpoint) as raw, Client(daemon.endpoint) as client:

            def burst() -> bool:
                for n in itertools.islice(sent, 64):
                    raw.send("storeEvent", json.dumps(event("j1", n)).encode())
                eventually(lambda: is_written(client), "nearly all is written", PATIENCE_SECONDS)
                return gate.with_suffix(".met").exists()

            eventually(burst, "a sync beside the loop has begun", PATIENCE_SECONDS)
            eventually(lambda: client.stats()["mirror"]["position"] is not None, "it ships", PATIENCE_SECONDS)
            until = client.stats()["uptimeSeconds"] + 3
            eventually(lambda: client.stats()["uptimeSeconds"] > until, "time passes", PATIENCE_SECONDS)
            synced = client.stats()["position"]
            assert synced < next(sent)
            assert (client.stats()["mirror"]["position"] or 0) <= synced
        shipped = [pieces.decode(data).data for data in server.objects("gated").values()]
        assert b"".join(shipped).count(b'"id":"j1-') <= synced
        gate.unlink()
        await_mirror(daemon)
        assert daemon.stop() == 0
    finally:
        daemon.make_sure_it_ended()


def is_written(client: Client) -> bool:
    """Whether all is, but the few stores that wait for the sync that runs."""
    return bool(client.stats()["held"]["requests"] < GATHERED)


def test_nothing_is_shipped_while_idle_and_over_restarts(
    daemon: RunningDaemon, server: S3Server, request: pytest.FixtureRequest
) -> None:
    """No object is made without a store."""
    prefix = request.node.name
    store(daemon.endpoint, "j1", 10)
    await_mirror(daemon)
    before = server.objects(prefix)
    assert daemon.stop() == 0
    daemon.start()
    await_mirror(daemon)
    assert server.objects(prefix) == before
    store(daemon.endpoint, "j2", 1)
    await_mirror(daemon)
    assert len(server.objects(prefix)) == len(before) + 1


def test_a_bucket_that_is_away_delays_no_store(relay: Relay, server: S3Server, tmp_path: Path) -> None:
    """Stores are answered; stats and the log name the fault; then it catches up by itself."""
    daemon = mirrored(tmp_path / "base", "away", relay.url)
    with serving(daemon):
        store(daemon.endpoint, "j1", 10)
        await_mirror(daemon)
        relay.cut()
        store(daemon.endpoint, "j2", 500)
        eventually(lambda: bool(mirror_stats(daemon)["fault"]), "the fault is named", PATIENCE_SECONDS)
        stats = mirror_stats(daemon)
        assert stats["lagRecords"] == 500
        eventually(lambda: mirror_stats(daemon)["lagSeconds"] > 0, "the lag shows", PATIENCE_SECONDS)
        with Client(daemon.endpoint) as client:
            assert len(client.get_event_contents("j2", "r1")) == 500
        relay.mend()
        await_mirror(daemon)
        assert mirror_stats(daemon)["fault"] == ""
        assert [line["reason"] for line in daemon.events("mirror_waits")]
        assert daemon.stop() == 0


def test_a_stop_does_not_wait_for_a_bucket_that_is_away(relay: Relay, tmp_path: Path) -> None:
    """Nor does a start."""
    relay.cut()
    daemon = mirrored(tmp_path / "base", "gone", relay.url)
    with serving(daemon):
        store(daemon.endpoint, "j1", 10)
        eventually(lambda: bool(mirror_stats(daemon)["fault"]), "the fault is named", PATIENCE_SECONDS)
        assert mirror_stats(daemon)["position"] is None
        assert daemon.stop() == 0


def test_of_two_mirrors_on_one_prefix_one_stops(server: S3Server, tmp_path: Path) -> None:
    """A copy of a base goes on as the base does. The second to write stops, and its daemon stores on."""
    first = mirrored(tmp_path / "base", "two", server.url)
    second = mirrored(tmp_path / "copy", "two", server.url)
    with serving(first):
        store(first.endpoint, "j1", 100)
        await_mirror(first)
        assert first.stop() == 0
        shutil.copytree(tmp_path / "base", tmp_path / "copy")
    with serving(first, second):
        eventually(
            lambda: all(mirror_stats(one)["position"] == 100 for one in (first, second)),
            "both know the bucket",
            PATIENCE_SECONDS,
        )
        store(first.endpoint, "j2", 100)
        await_mirror(first)
        objects = server.objects("two")
        store(second.endpoint, "j3", 100)
        eventually(lambda: bool(second.events("mirror_stopped")), "the second stops", PATIENCE_SECONDS)
        stats = mirror_stats(second)
        assert "holds other bytes" in stats["fault"]
        assert stats["lagRecords"] == 100
        assert server.objects("two") == objects
        store(second.endpoint, "j4", 1)
        store(first.endpoint, "j5", 100)
        await_mirror(first)
        assert mirror_pid(second) is None
        assert (first.stop(), second.stop()) == (0, 0)
    restore("two", server.url, tmp_path / "new")
    assert dump(tmp_path / "new") == dump(tmp_path / "base")


def test_pieces_that_are_missing_or_changed_are_named(
    daemon: RunningDaemon, server: S3Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """There is no base then. What is before them can be had."""
    prefix = request.node.name
    for job in ("j1", "j2", "j3"):
        store(daemon.endpoint, job, 600)
        await_mirror(daemon)
    assert daemon.stop() == 0
    objects = server.objects(prefix)
    assert len(objects) >= 4
    keys = list(objects)
    command = ("restore", url_of(prefix), "--mirror-endpoint", server.url, "--base-path")
    for data in (b"", objects[keys[0]]):
        if data:
            obstore.put(server.store, keys[-2], data)
        else:
            obstore.delete(server.store, keys[-2])
        done = run(*command, str(tmp_path / "new"))
        assert done.returncode == 2
        assert "the mirror is damaged" in done.stderr
        assert keys[-2].rpartition("/")[2] in done.stderr
        assert not (tmp_path / "new/.stored").exists()
    assert restore(prefix, server.url, tmp_path / "some", "--to-position", "1")["position"] == 1


def is_done(stats: dict[str, Any]) -> bool:
    """Whether a mirror, of which a process may have been killed, is well and has replaced all."""
    return bool(stats["toReplace"] == 0 and stats["fault"] == "")


def test_what_was_erased_goes_from_the_bucket(server: S3Server, tmp_path: Path) -> None:
    """Soon after it went from the daemon's files, also through a kill; what is left can be had from there."""
    prefix, base = "erased", tmp_path / "base"
    daemon = mirrored(base, prefix, server.url, "--erase-within-seconds=1")
    with serving(daemon):
        store(daemon.endpoint, "sentinel", 800)
        store(daemon.endpoint, "kept", 700)
        await_mirror(daemon)
        assert objects_with(server, prefix, b"sentinel-1")
        with Client(daemon.endpoint) as client:
            client.delete_job("sentinel")
            eventually(
                lambda: all(one["erased"] for one in client.deletions()),
                "it is erased here",
                PATIENCE_SECONDS,
            )
        pid = mirror_pid(daemon)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not objects_with(server, prefix, b"sentinel-1"), "and there", PATIENCE_SECONDS)
        eventually(lambda: is_done(mirror_stats(daemon)), "nothing is left to do", PATIENCE_SECONDS)
        copy = copying(tmp_path / "copy", prefix, server.url)
        with serving(copy):
            await_copy(daemon, copy)
            wanted = read(daemon.endpoint, "getEventContents", jobId="kept", runId="r1")
            assert read(copy.endpoint, "getEventContents", jobId="kept", runId="r1") == wanted
            assert json.loads(read(copy.endpoint, "getEventContents", jobId="sentinel", runId="r1")) == []
            assert copy.stop() == 0
        assert daemon.stop() == 0
    assert restore(prefix, server.url, tmp_path / "new")["position"] == 1501
    assert dump(tmp_path / "new") == dump(base) == dump(tmp_path / "copy")
    assert not Checked(tmp_path / "new").findings


def test_what_is_no_mirror_is_named(server: S3Server, tmp_path: Path) -> None:
    """An empty prefix, a bucket that is not there, a history that is not there."""
    for source, words in (
        (url_of("nothing"), "holds no mirror"),
        ("s3://no-such-bucket/x", "NoSuchBucket"),
        ("s3://bucket/a?b", "must be s3://BUCKET/PREFIX"),
    ):
        done = run("restore", source, "--mirror-endpoint", server.url, "--base-path", str(tmp_path / "new"))
        assert done.returncode == 2
        assert words in done.stderr
        assert not (tmp_path / "new").exists()


def test_through_kills(server: S3Server, tmp_path: Path) -> None:
    """Daemon, mirror and connections at random; `make mirror-kills` does many more."""
    found = Campaign(tmp_path, server, seed=1).run(4)
    assert sum(found.kills.values()) == 4
    assert found.compared == 2
