"""A daemon that shares its journal mirrors it: a base that joins the others, and a copy, come from it."""

from pathlib import Path

from perstack_stored.replication.nats_admin import NewStream, create, parse_address
from tests.helpers.commands import run as stored
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.raw_client import Raw, event, job, session
from tests.helpers.s3 import s3_server
from tests.mirror.bases import await_copy, copying, is_mirrored, mirrored, restore

from .cluster import Cluster

STREAM = "mirrored"


def test_a_shared_journal_comes_back_from_a_mirror(tmp_path: Path) -> None:
    """Two daemons mirror to one prefix: one stops, named. What was restored joins; a copy goes on alone."""
    cluster = Cluster(tmp_path / "servers", 1)
    with s3_server(tmp_path) as s3:
        shared = ("--journal", cluster.url(STREAM))
        first = mirrored(tmp_path / "a", "shared", s3.url, *shared, "--mirror-what", "both")
        second = mirrored(tmp_path / "b", "shared", s3.url, *shared)
        copy = copying(tmp_path / "copy", "shared", s3.url)
        restored = RunningDaemon(tmp_path / "restored", *shared)
        alone = RunningDaemon(copy.base)
        try:
            cluster.start()
            create(parse_address(cluster.url(STREAM)), NewStream(1, 604_800, 0, 20_000, 1024, 86_400))
            with Raw(first.start().endpoint) as raw:
                raw.store("storeJob", job("j1"))
                for i in range(50):
                    raw.store("storeEvent", event(f"e{i}", text="x" * 2000))
                raw.store("deleteJob", {"jobId": "none"}, session=session(), seq=1)
                eventually(lambda: is_mirrored(first), "the bucket has all")
                second.start()
                eventually(lambda: bool(second.events("mirror_stopped")), "one stops")
                assert restore("shared", s3.url, restored.base)["position"] == 52
                copy.start()
                raw.store("storeEvent", event("later"))
                await_copy(first, copy)
                with Raw(copy.endpoint) as read:
                    assert read.read_all() == raw.read_all()
                assert copy.stop() == 0
                refused = stored("serve", "--base-path", str(copy.base), *shared)
                assert (refused.returncode, "another history" in refused.stderr) == (78, True)
                with Raw(alone.start().endpoint) as other:
                    assert other.read_all() == raw.read_all()
                    assert other.store("storeEvent", event("alone")) == 54
                with Raw(restored.start().endpoint) as other:
                    other.store("storeEvent", event("joined"))
                    assert other.read_all() == raw.read_all()
            assert not first.events("mirror_stopped")
        finally:
            for daemon in (first, second, copy, restored, alone):
                daemon.make_sure_it_ended()
            cluster.stop()
