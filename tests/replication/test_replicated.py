"""Daemons that share a journal, on three real servers."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from perstack_storage import Client
from perstack_stored.replication.message import is_damaged
from perstack_stored.replication.nats_admin import NatsAddress, NewStream, create, parse_address
from perstack_stored.replication.nats_stream import NatsStream
from tests.client.behaviour.node import NodeClient, missing
from tests.helpers.commands import run as stored
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Answer, Raw, checkpoint, event, job, session, setting

from . import campaign
from .cluster import Cluster

NEW = NewStream(3, 604_800, 0, 20_000, 1024, 86_400)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers."""
    servers = Cluster(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


class Pair:
    """Two daemons of one stream."""

    def __init__(self, cluster: Cluster, folder: Path, stream: str) -> None:
        self.url = cluster.url(stream)
        create(parse_address(self.url), NEW)
        self.daemons = [RunningDaemon(folder / name, "--journal", self.url).start() for name in "ab"]
        self.a, self.b = (Raw(daemon.endpoint) for daemon in self.daemons)

    def close(self) -> None:
        """End both."""
        self.a.close()
        self.b.close()
        for daemon in self.daemons:
            daemon.make_sure_it_ended()


@pytest.fixture(scope="module")
def pair(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two daemons that all tests of this module share; each test has jobs of its own."""
    found = Pair(cluster, tmp_path_factory.mktemp("pair"), "pair")
    try:
        yield found
    finally:
        found.close()


def test_a_read_sees_what_another_daemon_acknowledged(pair: Pair) -> None:
    for i in range(20):
        writer, reader = (pair.a, pair.b) if i % 2 else (pair.b, pair.a)
        position = writer.store("storeEvent", event(f"seen-{i}", jobId="seen"))
        answer = reader.ask("getEventsByRun", {"jobId": "seen", "runId": "r1"})
        assert len(answer.value) == i + 1
        assert answer.header["position"] >= position


def test_all_kinds_come_to_the_same_at_both(pair: Pair) -> None:
    pair.a.store("storeJob", job("kinds"))
    pair.b.store("storeCheckpoint", checkpoint("kinds-c", jobId="kinds"))
    pair.a.store("storeRunSetting", setting(jobId="kinds"))
    pair.b.store("storeEvent", event("kinds-e", jobId="kinds"))
    assert pair.a.read_all() == pair.b.read_all()
    for raw in (pair.a, pair.b):
        assert raw.read("retrieveJob", {"jobId": "kinds"})["id"] == "kinds"
        assert (
            raw.read("retrieveCheckpoint", {"jobId": "kinds", "checkpointId": "kinds-c"})["id"] == "kinds-c"
        )


def test_a_session_goes_on_at_another_daemon(pair: Pair) -> None:
    name = session()
    first = pair.a.store("storeEvent", event("s1", jobId="moves"), session=name, seq=1, settled=0)
    # The answer was lost: the client moves, and sends it again with the next one.
    assert pair.b.store("storeEvent", event("s1", jobId="moves"), session=name, seq=1, settled=0) == first
    second = pair.b.store("storeEvent", event("s2", jobId="moves"), session=name, seq=2, settled=1)
    assert second > first
    gap = pair.b.ask("storeEvent", event("s9", jobId="moves"), session=name, seq=9, settled=2)
    assert gap.code == "SEQUENCE_GAP"


def test_a_refused_value_takes_its_number(pair: Pair) -> None:
    name = session()
    wrong = pair.a.ask("storeEvent", event("w1", jobId="wrong", stepNumber="x"), session=name, seq=1)
    assert (wrong.code, wrong.error["field"]) == ("BAD_VALUE", "stepNumber")
    assert pair.b.store("storeEvent", event("w2", jobId="wrong"), session=name, seq=2)
    again = pair.b.ask("storeEvent", event("w1", jobId="wrong", stepNumber="x"), session=name, seq=1)
    assert again.code == "BAD_VALUE"


def test_a_batch_names_what_was_refused(pair: Pair) -> None:
    values = [event("b1", jobId="batch"), event("b2", jobId="batch", runId=7), event("b3", jobId="batch")]
    bodies = [json.dumps(value).encode() for value in values]
    items = [["storeEvent", len(body)] for body in bodies]
    answer = pair.a.ask("store", b"".join(bodies), items=items, session=session(), seq=1)
    results = answer.header["results"]
    assert [isinstance(result, int) for result in results] == [True, False, True]
    assert results[1]["field"] == "runId"
    all_or_none = pair.b.ask("store", b"".join(bodies), items=items, session=session(), seq=1, atomic=True)
    assert (all_or_none.code, all_or_none.error["item"]) == ("BAD_VALUE", 1)


def test_a_deletion_counts_at_both(pair: Pair) -> None:
    old = session()
    pair.a.store("storeEvent", event("d1", jobId="gone"), session=old, seq=1)
    pair.b.store("deleteJob", {"jobId": "gone"}, session=session(), seq=1)
    assert pair.a.read("getEventsByRun", {"jobId": "gone", "runId": "r1"}) == []
    late = pair.a.ask("storeEvent", event("d2", jobId="gone"), session=old, seq=2, settled=1)
    assert late.code == "DELETED"
    # Without a session a store is newer than the deletion.
    assert pair.a.store("storeEvent", event("d3", jobId="gone"))
    assert len(pair.b.read("getEventsByRun", {"jobId": "gone", "runId": "r1"})) == 1


def test_a_cursor_is_known_at_both(pair: Pair) -> None:
    position = pair.a.store("storeEvent", event("c1", jobId="cursor"))
    assert pair.a.ask("setCursor", {"name": "billing", "position": position}).header["ok"]
    answer = pair.b.ask("readAll", {"name": "billing", "limit": 10})
    assert all(record["position"] > position for record in answer.value)


def test_a_store_is_refused_when_another_daemon_s_session_stored_for_its_job(pair: Pair) -> None:
    assert "expect" in pair.a.ask("hello", {}).value["features"]
    owner, other = session(), session()

    def store(raw: Raw, name: str, seq: int, position: int) -> Answer:
        expect = {"jobId": "owned", "position": position}
        value = event(f"{name[:4]}-{seq}", jobId="owned")
        return raw.ask("storeEvent", value, session=name, seq=seq, settled=seq - 1, expect=expect)

    first = store(pair.a, owner, 1, pair.a.ask("retrieveJob", {"jobId": "owned"}).header["position"])
    assert first.header["ok"]
    late = store(pair.b, other, 1, first.position - 1)
    assert (late.code, late.error["position"]) == ("CONFLICT", first.position)
    assert store(pair.a, owner, 2, first.position).header["ok"]
    second = pair.daemons[1]
    pair.b.close()
    second.kill()
    second.start()
    pair.b = Raw(second.endpoint)
    taken = store(pair.b, other, 2, first.position + 1)
    assert taken.header["ok"]
    lost = store(pair.a, owner, 3, first.position + 1)
    assert (lost.code, lost.error["position"]) == ("CONFLICT", taken.position)
    assert pair.a.read_all() == pair.b.read_all()


def test_a_value_larger_than_a_message_of_the_servers_comes_whole(pair: Pair) -> None:
    first, second = (Client(daemon.endpoint) for daemon in pair.daemons)
    with first, second:
        value = checkpoint("large", jobId="large", text="x" * (20 << 20))
        position = first.store_checkpoint(value)
        assert pair.b.store("storeEvent", event("x", jobId="large")) > position
        assert second.retrieve_checkpoint("large", "large") == value
    limits = pair.a.ask("hello", {}).value["limits"]
    assert limits["valueBytes"] > len("x") * (20 << 20)


def test_a_daemon_that_was_away_comes_to_the_same(pair: Pair) -> None:
    second = pair.daemons[1]
    pair.b.close()
    second.kill()
    for i in range(50):
        pair.a.store("storeEvent", event(f"away-{i}", jobId="away"))
    second.start()
    pair.b = Raw(second.endpoint)
    assert pair.b.read_all() == pair.a.read_all()
    eventually(lambda: pair.b.ask("stats", {}).value["replication"]["lagMessages"] == 0, "it has caught up")


def test_a_local_read_is_not_older_than_what_its_client_has_seen(pair: Pair, tmp_path: Path) -> None:
    local = RunningDaemon(tmp_path / "local", "--journal", pair.url, "--no-strict-reads")
    try:
        with Raw(local.start().endpoint) as raw:
            for i in range(50):
                position = pair.a.store("storeEvent", event(f"least-{i}", jobId="least"))
                answer = raw.ask("getEventsByRun", {"jobId": "least", "runId": "r1"}, atLeast=position)
                assert len(answer.value) == i + 1
                followed = raw.ask("readAll", {"after": position}, atLeast=position)
                assert followed.value == []
    finally:
        local.make_sure_it_ended()


@pytest.mark.parametrize("kind", [Client, NodeClient])
def test_stores_go_on_at_another_daemon(pair: Pair, kind: type[Client | NodeClient]) -> None:
    """The daemon in use is killed: nothing is lost, nothing is there twice, and the order stays."""
    if kind is NodeClient and (what := missing()) is not None:
        pytest.skip(f"needs {what}")
    first, job_id, times = pair.daemons[0], f"moves-{kind.__name__}", [time.monotonic()]
    ids = [f"m-{i:04}" for i in range(2000)]
    pair.a.close()
    with kind(",".join(one.endpoint for one in pair.daemons)) as client:
        futures: list[Future[int]] = []
        for i, id in enumerate(ids):
            if i == 1000:
                futures[500].result(60)
                first.kill()
            futures.append(client.store_event_nowait(event(id, jobId=job_id)))
            futures[-1].add_done_callback(lambda _: times.append(time.monotonic()))
        positions = [future.result(60) for future in futures]
        assert len(client.get_event_contents(job_id, "r1")) == len(ids)
    found = [(one["value"]["id"], one["position"]) for one in pair.b.read_all() if is_of(one, job_id)]
    assert found == list(zip(ids, positions, strict=True))
    longest = max(b - a for a, b in pairwise(times))
    print(f"{kind.__name__}: {longest:.2f} s without an acknowledgement")  # noqa: T201 - pytest -s shows it
    first.start()
    pair.a = Raw(first.endpoint)


def is_of(record: dict[str, Any], job_id: str) -> bool:
    """Whether a record is an event of a job."""
    return bool(record["value"].get("jobId") == job_id)


def test_a_new_machine_begins_with_a_backup_of_another(pair: Pair, tmp_path: Path) -> None:
    pair.a.store("storeEvent", event("before", jobId="new"))
    copied = stored("backup", "--base-path", str(pair.daemons[0].base), str(tmp_path / "backup"))
    assert copied.returncode == 0, copied.stderr
    pair.b.store("storeEvent", event("after", jobId="new"))
    restored = stored("restore", "--base-path", str(tmp_path / "third"), str(tmp_path / "backup"))
    assert restored.returncode == 0, restored.stderr
    third = RunningDaemon(tmp_path / "third", "--journal", pair.url)
    try:
        third.start()
        with Raw(third.endpoint) as raw:
            assert raw.read_all() == pair.a.read_all()
            assert raw.store("storeEvent", event("third", jobId="new"))
            assert pair.b.read_all() == raw.read_all()
    finally:
        third.make_sure_it_ended()


def test_a_base_of_its_own_is_refused(pair: Pair, tmp_path: Path) -> None:
    own = RunningDaemon(tmp_path / "own").start()
    with Raw(own.endpoint) as raw:
        raw.store("storeEvent", event("own"))
    own.stop()
    found = stored("serve", "--base-path", str(own.base), "--journal", pair.url)
    assert found.returncode == 78
    assert "another history" in found.stderr
    assert "All servers are lost" in found.stderr
    shared = pair.daemons[1]
    pair.b.close()
    shared.stop()
    found = stored("serve", "--base-path", str(shared.base))
    assert found.returncode == 78
    assert "replicated log" in found.stderr
    shared.start()
    pair.b = Raw(shared.endpoint)


def test_values_outlive_their_stream(pair: Pair, tmp_path: Path) -> None:
    """As the page says it, where all servers are lost: from the tree of a base, and from its journal."""
    position = pair.b.store("storeEvent", event("out", jobId="outlives"))
    old = pair.daemons[1]
    eventually(lambda: pair.b.ask("stats", {}).value["tree"]["position"] == position, "the tree has it")
    pair.b.close()
    old.stop()
    base = str(old.base)
    imported = stored("import", base, "--base-path", str(tmp_path / "new"))
    assert imported.returncode == 0, imported.stderr
    new = RunningDaemon(tmp_path / "new")
    try:
        with Raw(new.start().endpoint) as raw:
            (found,) = raw.read("getEventsByRun", {"jobId": "outlives", "runId": "r1"})
            assert found["type"] == "startRun"
    finally:
        new.make_sure_it_ended()
    dumped = stored("dump", "--base-path", base, "--show-secrets", "--after", str(position - 1))
    assert json.loads(dumped.stdout)["value"] == event("out", jobId="outlives")
    old.start()
    pair.b = Raw(old.endpoint)


def test_two_daemons_with_retention_delete_a_job_once(cluster: Cluster, tmp_path: Path) -> None:
    """Each decides by itself; a job that somebody stores for meanwhile stays."""
    url = cluster.url("retain")
    create(parse_address(url), NEW)
    more = ["--journal", url, "--retain-jobs", "2", "--retain-sweep-seconds", "1"]
    daemons = [RunningDaemon(tmp_path / name, *more) for name in "ab"]
    try:
        with Raw(daemons[0].start().endpoint) as first, Raw(daemons[1].start().endpoint) as second:
            for i in range(6):
                first.store(
                    "storeJob", job(f"old-{i}", status="completed", startedAt=i + 1, finishedAt=i + 2)
                )
            kept = {"old-4", "old-5"}
            eventually(
                lambda: {one["id"] for one in second.read("getAllJobs", {})} == kept, "they are deleted"
            )
            eventually(
                lambda: sum(len(daemon.events("job_retired")) for daemon in daemons) == 4,
                "each says what it did",
            )
            deleted = [record for record in first.read_all() if record["op"] == "deleteJob"]
            assert sorted(record["value"]["jobId"] for record in deleted) == [f"old-{i}" for i in range(4)]
            assert first.read_all() == second.read_all()
    finally:
        for daemon in daemons:
            daemon.make_sure_it_ended()


def test_stream_commands(cluster: Cluster) -> None:
    url = cluster.url("made")
    made = stored("stream", "create", "--journal", url)
    assert made.returncode == 0, made.stderr
    again = stored("stream", "create", "--journal", url)
    assert again.returncode == 2
    assert "already" in again.stderr
    checked = stored("stream", "check", "--journal", url)
    assert checked.returncode == 0
    assert "replicas: 3" in checked.stdout
    none = stored("stream", "check", "--journal", cluster.url("none"))
    assert none.returncode == 2
    assert "stream create" in none.stderr


def test_a_flipped_bit_at_one_server_is_made_up_for_by_the_others(cluster: Cluster, tmp_path: Path) -> None:
    """The server leaves out what it can't read, in silence; which server answers is chance."""
    address = parse_address(cluster.url("flipped"))
    create(address, NEW)
    daemon = RunningDaemon(tmp_path / "base", "--journal", cluster.url("flipped")).start()
    try:
        with Raw(daemon.endpoint) as raw:
            for i in range(100):  # three blocks of the server
                raw.store("storeEvent", event(f"f-{i}", text="x" * 200_000))
    finally:
        daemon.make_sure_it_ended()
    with structlog.testing.capture_logs() as logged:
        for number in range(6):
            flip_a_bit(cluster, "flipped", number)
            for _ in range(20):
                assert sequences(address) == list(range(1, 101))
                if any(line["event"] == "stream_hole" for line in logged):
                    return
    raise AssertionError("no damaged server ever answered: nothing was tried")


def flip_a_bit(cluster: Cluster, stream: str, number: int) -> None:
    """Flip a bit in the oldest block of a server that does not lead, while it is stopped."""
    leader = cluster.leader(stream)
    others = [one for one in cluster.nodes if one is not leader]
    node = others[number % len(others)]
    node.terminate()
    block = min(node.folder.rglob(f"{stream}/msgs/*.blk"), key=lambda path: int(path.stem))
    data = bytearray(block.read_bytes())
    data[len(data) * (number + 1) // 8] ^= 1
    block.write_bytes(data)
    node.start()
    cluster.await_healthy()


def sequences(address: NatsAddress) -> list[int]:
    """Sequences that a stream gives from its beginning on, all of whose messages are whole."""
    came = threading.Event()
    stream = NatsStream(address, 0, came.set)
    found: list[int] = []
    try:
        until = time.monotonic() + 60
        while len(found) < 100:
            came.wait(1.0)
            came.clear()
            messages = stream.take(1 << 30)
            assert not any(is_damaged(message.body) for message in messages)
            found += [message.sequence for message in messages]
            assert time.monotonic() < until, f"{len(found)} messages came"
    finally:
        stream.stop()
    return found


def test_nothing_is_lost_while_daemons_and_leaders_die(tmp_path: Path) -> None:
    faults = ["daemon_killed", "leader_killed", "daemon_paused"]
    plan = campaign.Plan(12.0, int(time.time()), faults, writers=3)
    result = campaign.run(tmp_path, plan)
    assert result.verdict.is_clean, result.table()
    assert result.verdict.records > 100, result.table()
