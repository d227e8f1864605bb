"""The system's clock steps back and forth under a daemon: nothing that it promises hangs on it."""

import json
import time
from pathlib import Path

from perstack_storage import Client
from tests.helpers.daemon import eventually
from tests.helpers.raw_client import Raw, event, job, session, setting
from tests.helpers.shifted import Clock, shifted_command, shifted_daemon

HOUR_MS = 3_600_000
RUN = {"jobId": "j1", "runId": "r1"}


def _updated_at(raw: Raw) -> int:
    (found,) = raw.ask("getAllRuns").value
    return int(found["updatedAt"])


def _is_near(time_ms: int, shift_ms: int) -> bool:
    """Whether a time is what a clock with this shift shows, or showed within the last minutes."""
    return abs(time.time() * 1000 + shift_ms - time_ms) < HOUR_MS // 4


def test_a_clock_that_was_wrong_leaves_no_trace_in_what_is_stored_later(tmp_path: Path) -> None:
    """Forth by ten years, back by two hours, and again over a kill: positions grow, times are the clock's."""
    clock = Clock(tmp_path / "clock")
    stored = 0
    for generation in range(2):
        with shifted_daemon(tmp_path / "base", clock) as daemon, Raw(daemon.endpoint) as raw:
            for shift in (0, 87_600 * HOUR_MS, 0, -2 * HOUR_MS, HOUR_MS, 87_600 * HOUR_MS):
                clock.set(shift)
                stored += 1
                assert raw.store("storeRunSetting", setting(updatedAt=5)) == stored
                stored += 1
                assert raw.store("storeEvent", event(f"{generation}{shift}", timestamp=stored)) == stored
                records = raw.read_all()
                assert [record["position"] for record in records] == list(range(1, stored + 1))
                assert all(_is_near(record["time"], shift) for record in records[-2:])
                if stored > 2:  # the first one counts as it was sent
                    assert _is_near(_updated_at(raw), shift)
            eventually(lambda: bool(daemon.events("clock_leapt")), "the leap is logged")
            assert daemon.events("clock_put_back")
        clock.set(0)


def test_times_wait_for_a_clock_that_is_put_back_a_little(tmp_path: Path) -> None:
    """By some seconds, as a time server does it: the order of times is that of positions."""
    clock = Clock(tmp_path / "clock")
    with shifted_daemon(tmp_path / "base", clock) as daemon, Raw(daemon.endpoint) as raw:
        for n, shift in enumerate((20_000, 0, 10_000, -20_000, 30_000)):
            clock.set(shift)
            raw.store("storeEvent", event(f"e{n}"))
        times = [record["time"] for record in raw.read_all()]
        assert times == sorted(times)
        assert not daemon.events("clock_put_back")


def test_sessions_grow_old_by_the_time_that_passed(tmp_path: Path) -> None:
    """A clock that was ten years ahead for a moment keeps no place taken; neither does a restart."""
    clock = Clock(tmp_path / "clock")
    for ahead in (87_600 * HOUR_MS, 0):
        with shifted_daemon(
            tmp_path / "base", clock, "--sessions-max", "2", "--session-seconds", "1"
        ) as daemon:
            clock.set(ahead)
            for _ in range(3):
                with Client(daemon.endpoint) as client:
                    client.store_event(event("e"))
            clock.set(0)
            for _ in range(3):
                with Client(daemon.endpoint) as client:
                    client.store_event(event("e"))


def test_a_session_and_the_waits_of_reads_do_not_hang_on_the_clock(tmp_path: Path) -> None:
    """A jump of two days: a repeat gets its position, a read is answered, a wait ends in time."""
    clock = Clock(tmp_path / "clock")
    key = session()
    with shifted_daemon(tmp_path / "base", clock) as daemon, Raw(daemon.endpoint) as raw:
        first = raw.ask("storeEvent", event("a"), session=key, seq=1).position
        for shift in (48 * HOUR_MS, -48 * HOUR_MS):
            clock.set(shift)
            assert raw.ask("storeEvent", event("a"), session=key, seq=1).position == first
            assert raw.ask("getEventsByRun", RUN, timeoutMs=5000).header["ok"]
            start = time.monotonic()
            waited = raw.ask("readAll", {"after": first, "waitMs": 300})
            assert json.loads(waited.body) == []
            assert 0.25 < time.monotonic() - start < 10
        part = raw.ask("storeEvent", b"{", session=key, seq=2, part=0, parts=2, bytes=20)
        assert part.header["ok"]
        clock.set(48 * HOUR_MS)
        eventually(lambda: raw.ask("stats").value["partsBytes"] == 1, "the part is kept")


def test_a_leap_of_the_clock_deletes_no_job(tmp_path: Path) -> None:
    """Neither does one leave the tree. Time that passes does both, and the dry run counts as the daemon."""
    clock = Clock(tmp_path / "clock")
    keeps = ("--retain-days", "2", "--tree-keep-days", "1", "--retain-sweep-seconds", "1")
    in_tree = tmp_path / "base/jobs/j1/job.json"

    def dry_run() -> list[str]:
        said = shifted_command(
            clock,
            "retention",
            "--dry-run",
            "--json",
            "--retain-days",
            "1",
            "--base-path",
            str(tmp_path / "base"),
        )
        return [json.loads(line)["job"] for line in said.splitlines()]

    def is_swept(client: Client) -> None:
        sweeps = client.stats()["retention"]["sweeps"]
        eventually(lambda: client.stats()["retention"]["sweeps"] > sweeps + 1, "a sweep")

    with shifted_daemon(tmp_path / "base", clock, *keeps) as daemon, Client(daemon.endpoint) as client:
        client.store_job(job(status="completed"))
        is_swept(client)
        clock.set(87_600 * HOUR_MS)
        is_swept(client)
        assert len(client.get_all_jobs()) == 1
        assert daemon.events("clock_doubted")
        assert in_tree.exists()
        assert dry_run() == []
    assert dry_run() == []  # a daemon that starts now doubts the clock as well
    with shifted_daemon(tmp_path / "base", clock, *keeps) as daemon, Client(daemon.endpoint) as client:
        is_swept(client)
        assert len(client.get_all_jobs()) == 1
        assert in_tree.exists()
    clock.set(0)
    with (
        shifted_daemon(tmp_path / "base", clock, *keeps, passes=True) as daemon,
        Client(daemon.endpoint) as client,
    ):
        clock.set(30 * HOUR_MS)
        eventually(lambda: not in_tree.exists(), "the job leaves the tree")
        assert dry_run() == ["j1"]
        assert len(client.get_all_jobs()) == 1
        clock.set(60 * HOUR_MS)
        eventually(lambda: not client.get_all_jobs(), "the job is deleted")
