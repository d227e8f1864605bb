"""Index or tree is taken from a daemon without privileges, while it runs or before: stores go on."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.crash.observed import Observer
from tests.helpers.daemon import RunningDaemon, eventually
from tests.helpers.once import made_once
from tests.helpers.raw_client import Raw, event, job, setting

_NOBODY = 65534
_INDEX = ".stored/index.sqlite"
_needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: another owner, a folder closed to one only"
)

pytestmark = pytest.mark.timeout(300)


@contextmanager
def unprivileged(base: Path) -> Iterator[RunningDaemon]:
    """A daemon to which permissions apply. As root it keeps the user, who owns the checkout, and no more."""
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    daemon = RunningDaemon(base, prefix=prefix).start()
    try:
        yield daemon
    finally:
        daemon.make_sure_it_ended()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with something in index and tree."""

    def make(folder: Path) -> None:
        with unprivileged(folder / "base") as daemon:
            with Raw(daemon.endpoint) as raw:
                raw.store("storeJob", job())
                raw.store("storeRunSetting", setting())
                for n in range(20):
                    raw.store("storeEvent", event(f"e{n}", timestamp=n))
            assert daemon.stop() == 0

    return made_once(tmp_path_factory, "used-unprivileged", make) / "base"


@contextmanager
def taken_away(path: Path, mode: int, owner: int | None) -> Iterator[None]:
    """Another mode or owner, for a while."""
    before = path.stat()
    if owner is not None:
        os.chown(path, owner, owner)
    path.chmod(mode)
    try:
        yield
    finally:
        if owner is not None:
            os.chown(path, before.st_uid, before.st_gid)
        path.chmod(before.st_mode & 0o7777)


def _store_some(daemon: RunningDaemon, name: str) -> None:
    with Raw(daemon.endpoint) as raw:
        raw.store("storeJob", job(status=name))
        for n in range(20):
            raw.store("storeEvent", event(f"{name} {n}", timestamp=100 + n, text=name))


def _sees_it(daemon: RunningDaemon, projection: str, name: str) -> None:
    """Stores go on; what is wrong is shown, counted, and logged."""
    with Observer(daemon.endpoint) as observer:
        before = len(_said(daemon, projection))
        _store_some(daemon, name)
        eventually(lambda: "ermission" in _fault(observer, projection), f"{name}: it is shown")
        eventually(lambda: len(_said(daemon, projection)) > before, f"{name}: it is logged")
        assert observer.stats()[projection]["faults"] > 0


def _said(daemon: RunningDaemon, projection: str) -> list[object]:
    names = ("projection_stopped", "follower_failed", "index_unavailable")
    return [event for name in names for event in daemon.events(name) if event["process"] == projection]


def _fault(observer: Observer, projection: str) -> str:
    return str(observer.stats()[projection]["fault"])


def _goes_on(daemon: RunningDaemon, names: list[str]) -> None:
    """By itself, and nothing is lost or counted twice."""
    _store_some(daemon, "last")
    with Observer(daemon.endpoint) as observer:
        observer.await_tree(60)
        stats = observer.stats()
        assert stats["index"]["fault"] == stats["tree"]["fault"] == ""
        assert stats["index"]["rebuilds"] == stats["tree"]["blocked"] == 0
        assert len(observer.read_all()) == stats["position"]
        assert observer.value("retrieveJob", jobId="j1")["status"] == "last"
        events = observer.value("getEventContents", jobId="j1", runId="r1")
    assert [e["id"] for e in events if e["timestamp"] >= 100] == [
        f"{name} {n}" for n in range(20) for name in (*names, "last")
    ]
    assert len(events) == len(list(daemon.base.glob("jobs/j1/runs/r1/event-*.json")))
    assert json.loads((daemon.base / "jobs/j1/job.json").read_bytes())["status"] == "last"
    assert b"Traceback" not in daemon.log.read_bytes()
    assert daemon.stop() == 0


@_needs_root
@pytest.mark.parametrize(
    ("projection", "losses"),
    [
        (
            "index",
            [
                (_INDEX, 0o600, _NOBODY),
                (f"{_INDEX}-wal", 0o400, None),
                (f"{_INDEX}-sums", 0, None),
                (".stored", 0, None),
            ],
        ),
        (
            "tree",
            [
                (".stored", 0o500, None),
                ("jobs", 0o700, _NOBODY),
                ("jobs/j1", 0, None),
                ("jobs/j1/runs/r1", 0o500, None),
                ("jobs/j1/job.json", 0, None),
            ],
        ),
    ],
)
def test_a_permission_that_is_lost_while_it_runs_stops_one_projection_until_it_is_back(
    tmp_path: Path, used: Path, projection: str, losses: list[tuple[str, int, int | None]]
) -> None:
    """Nothing is thrown away, and nothing is taken up twice."""
    base = Path(shutil.copytree(used, tmp_path / "base"))
    with unprivileged(base) as daemon, Observer(daemon.endpoint) as observer:
        names = [f"without {number}" for number in range(len(losses))]
        for name, (where, mode, owner) in zip(names, losses, strict=True):
            observer.await_tree(60)
            with taken_away(base / where, mode, owner):
                _sees_it(daemon, projection, name)
            eventually(lambda: _fault(observer, projection) == "", f"{name}: it goes on")
            assert observer.stats()[projection]["starts"] == 1
        _goes_on(daemon, names)


@pytest.mark.parametrize(
    ("projection", "where", "mode"),
    [
        ("index", _INDEX, 0o400),
        ("index", f"{_INDEX}-sums", 0),
        ("tree", "jobs", 0),
        ("tree", ".stored/staging", 0),
    ],
)
def test_a_permission_that_is_missing_at_the_start_is_waited_for(
    tmp_path: Path, used: Path, projection: str, where: str, mode: int
) -> None:
    """It serves meanwhile."""
    base = Path(shutil.copytree(used, tmp_path / "base"))
    with ExitStack() as lost:
        lost.enter_context(taken_away(base / where, mode, None))
        with unprivileged(base) as daemon:
            _sees_it(daemon, projection, "without")
            lost.close()
            _goes_on(daemon, ["without"])


def test_an_index_that_could_not_be_read_at_the_start_is_still_compared_with_its_checksums(
    tmp_path: Path, used: Path
) -> None:
    """The first process ended before it had looked."""
    base = Path(shutil.copytree(used, tmp_path / "base"))
    data = (base / _INDEX).read_bytes()
    (base / _INDEX).write_bytes(data.replace(b"startRun", b"startRuN"))
    with ExitStack() as lost:
        lost.enter_context(taken_away(base / f"{_INDEX}-sums", 0, None))
        with unprivileged(base) as daemon, Observer(daemon.endpoint) as observer:
            eventually(lambda: "ermission" in _fault(observer, "index"), "it is shown")
            lost.close()
            observer.await_tree(60)
            assert observer.stats()["index"]["rebuilds"] == 1
            events = observer.value("getEventsByRun", jobId="j1", runId="r1")
            assert {event["type"] for event in events} == {"startRun"}
            assert daemon.stop() == 0
