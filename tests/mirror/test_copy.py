"""A daemon on another machine serves a copy of a mirror, and answers all reads."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from perstack_storage import Client, Forbidden
from tests.helpers import signals
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.long_events import event, store
from tests.helpers.raw_client import Raw
from tests.helpers.s3 import Relay, S3Server, s3_server
from tests.mirror.bases import PATIENCE_SECONDS, await_copy, copying, dump, is_mirrored, mirrored
from tests.offline.bases import SMALL_SEGMENTS, Checked, one_of_each, read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def test_a_copy_answers_all_reads_and_takes_no_stores(server: S3Server, tmp_path: Path) -> None:
    """Through crashes of both, cuts of the network, a deletion; then it goes on as a base of its own."""
    relay = Relay(server.port)
    original = mirrored(tmp_path / "base", "copied", server.url)
    copy = copying(tmp_path / "copy", "copied", relay.url)
    try:
        original.start()
        with Raw(original.endpoint) as raw:
            for op, value in one_of_each():
                raw.ask(op, value)
        store(original.endpoint, "j2", 1500)
        eventually(lambda: is_mirrored(original), "the bucket holds all", PATIENCE_SECONDS)
        copy.start()
        await_copy(original, copy)
        for arguments in ({"jobId": "j1", "runId": "r1"}, {"jobId": "j2", "runId": "r1"}):
            wanted = read(original.endpoint, "getEventContents", **arguments)
            assert read(copy.endpoint, "getEventContents", **arguments) == wanted
        for op in ("getAllJobs", "getAllRuns"):
            assert read(copy.endpoint, op) == read(original.endpoint, op)
        with Client(copy.endpoint) as client:
            assert client.hello()["access"] == "read-only"
            assert client.stats()["copy"]["enabled"]
            with pytest.raises(Forbidden, match="copy of a mirror"):
                client.store_event(event("j9", 1))
            with pytest.raises(Forbidden):
                client.delete_job("j2")
        relay.cut()
        original.kill()
        original.start()
        store(original.endpoint, "j3", 300)
        with Client(original.endpoint) as client:
            client.delete_job("j2")
        copy.kill()
        copy.start()
        with Client(copy.endpoint) as client:
            eventually(lambda: bool(client.stats()["copy"]["fault"]), "the cut shows", PATIENCE_SECONDS)
            relay.mend()
            await_copy(original, copy)
            eventually(lambda: not client.stats()["copy"]["fault"], "it is over", PATIENCE_SECONDS)
        assert json.loads(read(copy.endpoint, "getEventContents", jobId="j2", runId="r1")) == []
        assert (original.stop(), copy.stop()) == (0, 0)
        assert dump(copy.base) == dump(original.base)
        assert not Checked(copy.base).findings
        alone = RunningDaemon(copy.base, *SMALL_SEGMENTS)
        alone.start()
        try:
            store(alone.endpoint, "j4", 1)
            assert alone.stop() == 0
        finally:
            alone.make_sure_it_ended()
        copy.start(wait=False)
        assert copy.process is not None
        assert copy.process.wait(PATIENCE_SECONDS) == 78
        assert "records of its own" in copy.log.read_text()
    finally:
        original.make_sure_it_ended()
        copy.make_sure_it_ended()
        relay.close()


def test_a_read_that_waits_at_a_copy_shows_nothing_that_was_deleted(server: S3Server, tmp_path: Path) -> None:
    """Also where the copy has the deletion, and its index does not know of it yet."""
    original = mirrored(tmp_path / "base", "copied-deletion", server.url)
    copy = copying(tmp_path / "copy", "copied-deletion", server.url)
    waits = {"after": 0, "waitMs": 500}
    try:
        original.start()
        store(original.endpoint, "j1", 2)
        eventually(lambda: is_mirrored(original), "the bucket holds all", PATIENCE_SECONDS)
        copy.start()
        await_copy(original, copy)
        with Raw(copy.endpoint) as raw:
            eventually(lambda: len(raw.read("readAll", waits)) == 2, "it answers", PATIENCE_SECONDS)
            index = copy.workers()["index"]
            signals.stop(index)
            with Client(original.endpoint) as client:
                client.delete_job("j1")
            await_copy(original, copy)
            meanwhile = raw.ask("readAll", waits)
            os.kill(index, signal.SIGCONT)
            assert (meanwhile.value, meanwhile.header["next"]) == ([], 0)
            eventually(lambda: raw.read("readAll", waits), "the index has the deletion", PATIENCE_SECONDS)
            assert [record["op"] for record in raw.read("readAll", waits)] == ["deleteJob"]
    finally:
        original.make_sure_it_ended()
        copy.make_sure_it_ended()
