"""The tree in a bucket: the same files under Perstack's keys, and what is deleted leaves it."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_stored.config.mirror_url import parse_url
from perstack_stored.mirror.bucket import Access, Bucket
from perstack_stored.mirror.tree_shipper import event_key, is_key
from tests.helpers.daemon import RunningDaemon, eventually, files_of
from tests.helpers.long_events import event, store
from tests.helpers.raw_client import Raw
from tests.helpers.s3 import ENVIRONMENT, S3Server, s3_server
from tests.mirror.bases import PATIENCE_SECONDS, as_objects, mirrored, restore, url_of
from tests.mirror.perstack_reader import PerstackReader
from tests.offline.bases import as_call, checkpoint, job, one_of_each, setting


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def await_tree(daemon: RunningDaemon) -> None:
    """Wait until tree and bucket have all that is stored now."""
    with Client(daemon.endpoint) as client:
        position = client.stats()["position"]

        def is_there() -> bool:
            stats = client.stats()
            return all((stats[name]["position"] or 0) >= position for name in ("tree", "treeMirror"))

        eventually(is_there, "the bucket has the tree", PATIENCE_SECONDS)


@pytest.mark.parametrize("time", [1, 4711, 1700000000001, 2**53 - 1])
def test_names_of_equal_events_keep_their_order(time: int) -> None:
    """The first as ever; Perstack reads the same time, step and type from the others."""
    numbers = [1, 2, 3, 10, 123, 9_999, 10_000, 99_999_999]
    keys = [event_key(time, 2, "stream-Text", n) for n in numbers]
    assert keys[0] == f"event-{time}-2-stream-Text.json"
    assert keys[1] == f"event-{time}.000000000000000000000002-2-stream-Text.json"
    assert sorted(set(keys)) == keys
    objects = {f"p/jobs/j/runs/r/{key}": b"{}" for key in keys}
    found = PerstackReader(objects, "p").events("j", "r")
    assert [facts for *facts, _ in found] == [[time, 2, "stream-Text"]] * len(keys)


@pytest.mark.parametrize("n", [1, 2])
def test_a_time_with_a_fraction_keeps_it(n: int) -> None:
    """Perstack's reader finds the time that the daemon answers."""
    key = event_key(1700000000001.5, 0, "a", n)
    (found,) = PerstackReader({f"p/jobs/j/runs/r/{key}": b"{}"}, "p").events("j", "r")
    assert found[:3] == (1700000000001.5, 0, "a")
    assert event_key(2.5e-7, 0, "a", 1) == "event-0-0-a.json"  # its digits have a hyphen


def test_what_s3_could_not_remove_is_not_put() -> None:
    """Else one deletion would hold up the mirror for ever: removals go as XML."""
    assert is_key("jobs/jöb \ufffd&<\U0010ffff/job.json")
    assert not any(map(is_key, ("jobs/a\uffff/job.json", "jobs/\ufffe/job.json", "jobs/" + "é" * 512)))


def assert_read_alike(there: PerstackReader, daemon: RunningDaemon) -> None:
    """Perstack's own storage finds in the bucket what the daemon answers."""

    def in_order(values: Iterable[Any]) -> list[str]:
        return sorted(json.dumps(value, sort_keys=True) for value in values)

    with Client(daemon.endpoint) as client:
        jobs, settings = client.get_all_jobs(), client.get_all_runs()
        assert in_order(there.jobs()) == in_order(jobs)
        assert [one["updatedAt"] for one in there.settings()] == [one["updatedAt"] for one in settings]
        assert in_order(there.settings()) == in_order(settings)
        assert len(settings) > 1
        for setting in settings:
            job_id, run_id = setting["jobId"], setting["runId"]
            assert there.setting(job_id, run_id) == setting
            assert setting["providerConfig"]["apiKey"] == "sk-provider"
        for job_id in [one["id"] for one in jobs]:
            checkpoints = client.get_checkpoints_by_job_id(job_id)
            assert in_order(there.checkpoints(job_id)) == in_order(checkpoints)
        events = 0
        for job_id, run_id in {(one["jobId"], one["runId"]) for one in settings}:
            found = there.events(job_id, run_id)
            facts = client.get_events_by_run(job_id, run_id)
            assert in_order((time, step, type) for time, step, type, _ in found) == in_order(
                (one["timestamp"], one["stepNumber"], one["type"]) for one in facts
            )
            contents = client.get_event_contents(job_id, run_id)
            assert in_order(event for *_, event in found) == in_order(contents)
            events += len(found)
        assert events > 3


def test_the_tree_is_in_the_bucket(server: S3Server, tmp_path: Path) -> None:
    """Through a restart and a kill; names of equal events; odd ids; deletions of a job and of a run."""
    daemon = mirrored(tmp_path / "base", "tree", server.url, "--mirror-what", "both")
    try:
        daemon.start()
        odd = "jöb %41 +?*'\"<>&|~;=,:@!$#[]{}^`"
        with Raw(daemon.endpoint) as raw:
            for op, value in [
                *one_of_each(),
                job(odd),
                as_call("storeEvent", {**event(odd, 1), "runId": odd}),
                checkpoint(odd, jobId=odd, runId=odd),
                setting(jobId=odd, runId=odd),
                job("gone"),
                as_call("storeEvent", event("gone", 1)),
                as_call("storeEvent", {**event("j1", 1), "runId": "r-gone"}),
                checkpoint("of-gone", runId="r-gone"),
            ]:
                raw.ask(op, value)
        store(daemon.endpoint, "j2", 200)
        await_tree(daemon)
        assert server.objects("tree/jobs") == as_objects(files_of(daemon.base), "tree")
        assert any(".000000000000000000000002-" in key for key in server.objects("tree/jobs"))
        assert_read_alike(PerstackReader(server.objects("tree"), "tree"), daemon)
        assert daemon.stop() == 0
        daemon.start()
        await_tree(daemon)
        with Client(daemon.endpoint) as client:
            assert client.stats()["treeMirror"]["pieces"] == 0  # it goes on where it was
            client.delete_job("gone")
            client.store_event(event("gone\uffff", 1))
            client.delete_job("gone\uffff")
            client.delete_run("j1", "r-gone")
        daemon.kill()
        daemon.start()
        store(daemon.endpoint, "j3", 10)
        await_tree(daemon)
        objects = server.objects("tree/jobs")
        assert objects == as_objects(files_of(daemon.base), "tree")
        assert not [key for key in objects if "gone" in key]
        assert daemon.stop() == 0
        assert restore("tree", server.url, tmp_path / "new")["position"] > 200
    finally:
        daemon.make_sure_it_ended()


def test_a_prefix_takes_the_tree_of_one_base(server: S3Server, tmp_path: Path) -> None:
    """The second one changes nothing there, and its daemon stores on; the first goes on after a restart."""
    first = mirrored(tmp_path / "base", "one", server.url, "--mirror-what", "tree")
    second = mirrored(tmp_path / "other", "one", server.url, "--mirror-what", "tree")
    copy = mirrored(tmp_path / "copy", "one", server.url, "--mirror-what", "tree")
    try:
        first.start()
        store(first.endpoint, "j1", 10)
        await_tree(first)
        objects = server.objects("one")
        second.start()
        store(second.endpoint, "j1", 20)
        with Client(second.endpoint) as client:
            eventually(lambda: bool(second.events("mirror_stopped")), "it stops", PATIENCE_SECONDS)
            client.delete_job("j1")
            store(second.endpoint, "j2", 1)
            with Client(first.endpoint) as other:
                history = other.hello()["store"]
            assert f"holds the tree of the history {history}" in client.stats()["treeMirror"]["fault"]
            assert client.stats()["treeMirror"]["position"] is None
        assert len(second.events("mirror_stopped")) == 1
        assert server.objects("one") == objects
        assert first.stop() == 0
        shutil.copytree(first.base, copy.base)
        first.start()
        store(first.endpoint, "j3", 1)
        await_tree(first)
        objects = server.objects("one")
        copy.start()
        store(copy.endpoint, "j3", 9)
        eventually(lambda: bool(copy.events("mirror_stopped")), "the copy stops", PATIENCE_SECONDS)
        assert "another continuation of this history" in copy.events("mirror_stopped")[0]["reason"]
        assert server.objects("one") == objects
        store(first.endpoint, "j4", 1)
        await_tree(first)
        assert server.objects("one/jobs") == as_objects(files_of(first.base), "one")
        assert (first.stop(), second.stop(), copy.stop()) == (0, 0, 0)
    finally:
        for daemon in (first, second, copy):
            daemon.make_sure_it_ended()


def test_a_write_on_condition_is_refused_where_another_version_is(server: S3Server) -> None:
    """As the fence of the tree needs it of a server."""
    assert_writes_on_condition(server)


def assert_writes_on_condition(server: S3Server) -> None:
    """Created once, replaced by tag only; an older tag, and one of an object that is gone, are refused."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        bucket = Bucket(parse_url(url_of("condition")), Access(server.url))
        first = bucket.replace("condition/o", b"1", None)
        assert first is not None
        assert bucket.replace("condition/o", b"2", None) is None
        assert bucket.read_tagged("condition/o", 10) == (b"1", first)
        second = bucket.replace("condition/o", b"2", first)
        assert second not in {None, first}
        assert bucket.replace("condition/o", b"3", first) is None
        assert bucket.read_tagged("condition/o", 10) == (b"2", second)
        bucket.remove(["condition/o"])
        assert bucket.replace("condition/o", b"3", second) is None
        assert bucket.read_tagged("condition/o", 10) is None
