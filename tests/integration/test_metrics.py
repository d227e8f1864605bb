"""What is scraped and logged of a real run: right figures, documented names, no secrets."""

import itertools
import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from perstack_storage.protocol import ErrorCode
from perstack_stored.protocol.frames import OPERATIONS
from tests.helpers import commands, long_events, signals
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import VALUES, Raw, batch, event, job, session, setting

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "daemon/docs/metrics.md"
DASHBOARD = ROOT / "deploy/grafana-dashboard.json"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    arguments = ("--metrics-bind", "127.0.0.1:0", "--log-level", "debug", "--slow-sync-ms", "1")
    with running_daemon(tmp_path / "base", *arguments) as running:
        yield running


def url_of(daemon: RunningDaemon, path: str = "/metrics") -> str:
    return str(daemon.events("metrics_ready")[-1]["url"]).removesuffix("/metrics") + path


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(daemon: RunningDaemon) -> Samples:
    """All samples, as Prometheus' own parser reads them."""
    status, text = get(url_of(daemon))
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"perstack_stored_{name}", tuple(sorted(labels.items()))]


def lag(daemon: RunningDaemon, unit: str = "records") -> float:
    """How far the tree is behind; -1 while it starts, since nothing is known then."""
    key = (f"perstack_stored_follower_lag_{unit}", (("follower", "tree"),))
    return scrape(daemon).get(key, -1)


def test_a_scrape_has_counts_of_all_work(daemon: RunningDaemon) -> None:
    """Requests by operation and outcome, records, refusals, latencies, batches, workers, memory."""
    with Raw(daemon.endpoint) as raw:
        for n in range(5):
            raw.store("storeEvent", event(f"e{n}"))
        raw.store("storeJob", job())
        assert raw.ask("storeEvent", {"id": 1}).code == "BAD_VALUE"
        items, body = batch([("storeEvent", json.dumps(event("b1")).encode()), ("storeEvent", b"{}")])
        assert raw.ask("store", body, items=items).header["results"][1]["code"] == "BAD_VALUE"
        assert raw.ask("retrieveJob", {"jobId": "j1"}).value["id"] == "j1"
        assert raw.ask("retrieveCheckpoint", {"jobId": "j1", "checkpointId": "c"}).code == "NOT_FOUND"
        assert raw.ask("nonsense").code == "UNKNOWN_OPERATION"
        raw.ask("ping")
        eventually(lambda: lag(daemon) == 0, "the tree follows")
        samples = scrape(daemon)
    assert value(samples, "requests_total", operation="storeEvent", outcome="ok") == 5
    assert value(samples, "requests_total", operation="storeEvent", outcome="BAD_VALUE") == 1
    assert value(samples, "requests_total", operation="store", outcome="ok") == 1
    assert value(samples, "requests_total", operation="retrieveJob", outcome="ok") == 1
    assert value(samples, "requests_total", operation="retrieveCheckpoint", outcome="NOT_FOUND") == 1
    assert value(samples, "requests_total", operation="?", outcome="UNKNOWN_OPERATION") == 1
    assert value(samples, "requests_total", operation="ping", outcome="ok") == 1
    assert value(samples, "records_stored_total", operation="storeEvent") == 6
    assert value(samples, "records_stored_total", operation="storeJob") == 1
    assert value(samples, "refused_total", code="BAD_VALUE") == 2
    assert value(samples, "messages_total") == 12
    assert value(samples, "position") == 7
    assert value(samples, "request_seconds_count", kind="store") == 8
    assert value(samples, "request_seconds_count", kind="read") == 2
    assert 0 < value(samples, "request_seconds_sum", kind="store") < 60
    assert value(samples, "request_seconds_bucket", kind="store", le="+Inf") == 8
    assert value(samples, "commit_records_count") == 8
    assert value(samples, "sync_seconds_count") >= 7
    assert value(samples, "journal_segments") >= 1
    assert value(samples, "journal_bytes") > 100_000
    assert value(samples, "connections") == 1
    for follower in ("index", "tree"):
        assert value(samples, "follower_position", follower=follower) == 7
        assert value(samples, "follower_lag_seconds", follower=follower) == 0
        assert value(samples, "follower_fault", follower=follower) == 0
    for process in ("server", "index", "tree"):
        assert 1 << 20 < value(samples, "memory_bytes", process=process) < 1 << 30
        assert value(samples, "cpu_seconds_total", process=process) >= 0


def test_each_process_has_its_processor_time(daemon: RunningDaemon) -> None:
    """It grows with the work; the kernel counts in hundredths of a second."""
    names = itertools.count()

    def all_have() -> bool:
        long_events.store(daemon.endpoint, f"j{next(names)}", 500)
        seconds = labels_of(scrape(daemon), "cpu_seconds_total")  # without what has not started yet
        return all(seconds.get((process,), 0) > 0 for process in ("server", "index", "tree"))

    eventually(all_have, "each process has worked")


def labels_of(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by the values of its labels."""
    found = {
        labels: count for (sample, labels), count in samples.items() if sample == f"perstack_stored_{name}"
    }
    return {tuple(text for _, text in labels): count for labels, count in found.items()}


def test_counters_of_a_fresh_daemon_are_there_at_zero(daemon: RunningDaemon) -> None:
    """Each value of a label that is known: `increase` sees no first count that comes with its series."""
    samples = scrape(daemon)
    known: dict[str, set[str]] = {
        "records_stored_total": set(VALUES),
        "refused_total": set(ErrorCode),
        "handshakes_failed_total": {"refused", "protocol", "broken", "timeout"},
        "connections_cut_total": {"protocol", "too_large", "memory", "share"},
        "accepting_paused_total": {"full", "emfile", "enfile", "enobufs", "enomem", "enospc"},
        "answers_lost_total": {"dropped", "gone"},
        "follower_faults_total": {"index", "tree"},
    }
    for name, texts in known.items():
        assert labels_of(samples, name) == {(text,): 0 for text in texts}
    assert labels_of(samples, "requests_total") == {(op, "ok"): 0 for op in OPERATIONS}
    started = {"cpu_seconds_total", "follower_starts_total"}
    counted = {
        name: count
        for (name, _), count in samples.items()
        if name.startswith("perstack_stored_") and name.endswith("_total") and name[16:] not in started
    }
    assert set(counted.values()) == {0}
    with Raw(daemon.endpoint) as raw:
        assert raw.ask("storeEvent", {"id": 1}).code == "BAD_VALUE"
    assert value(scrape(daemon), "refused_total", code="BAD_VALUE") == 1


def test_a_stopped_worker_lags_in_records_and_seconds(daemon: RunningDaemon) -> None:
    """And no more when it goes on."""
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("e0"))
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree follows")
        (pid,) = [pid for pid in children_of(daemon.pid) if b"tree" in command_of(pid)]
        signals.stop(pid)
        try:
            for n in range(3):
                raw.store("storeEvent", event(f"x{n}"))
            eventually(lambda: lag(daemon, "seconds") > 0.5, "it lags")
            samples = scrape(daemon)
            assert value(samples, "follower_lag_records", follower="tree") == 3
            assert value(samples, "follower_lag_bytes", follower="tree") > 300
            assert value(samples, "follower_lag_seconds", follower="index") == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: lag(daemon, "seconds") == 0, "it goes on")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_connections_are_counted_up_and_down(daemon: RunningDaemon) -> None:
    """One that does not speak ZeroMQ is counted as a handshake that failed."""
    raws = [Raw(daemon.endpoint) for _ in range(5)]
    for raw in raws:
        raw.ask("ping")
    assert value(scrape(daemon), "connections") == 5
    for raw in raws:
        raw.close()
    eventually(lambda: value(scrape(daemon), "connections") == 0, "they are gone")
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(daemon.endpoint.removeprefix("ipc://"))
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    stranger.close()

    def failed() -> float:
        samples = scrape(daemon)
        reasons = ("broken", "protocol")
        return sum(value(samples, "handshakes_failed_total", reason=reason) for reason in reasons)

    eventually(lambda: failed() == 1, "it is counted")
    assert value(scrape(daemon), "connections_accepted_total") == 6


def test_health_and_readiness(daemon: RunningDaemon) -> None:
    """Both are well of a daemon that serves."""
    assert get(url_of(daemon, "/healthz")) == (200, "ok\n")
    assert get(url_of(daemon, "/readyz")) == (200, "ok\n")
    assert get(url_of(daemon, "/other"))[0] == 404
    assert get(url_of(daemon, "/metrics?x=1"))[0] == 200


def test_a_client_that_falls_silent_after_a_request_delays_no_other(daemon: RunningDaemon) -> None:
    """More connections than are served at a time, all silent: the daemon serves, and later answers again."""
    host, port = url_of(daemon, "").removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
    for connection in silent:
        connection.close()

    def answers() -> bool:
        try:
            return get(url_of(daemon, "/healthz"))[0] == 200
        except OSError:
            return False

    eventually(answers, "it answers again")


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "9464", "localhost:x", "127.0.0.1:70000"],
)
def test_only_a_loopback_address_is_bound(tmp_path: Path, address: str) -> None:
    done = commands.run("serve", "--base-path", str(tmp_path / "base"), "--metrics-bind", address)
    assert done.returncode == 78
    assert "metrics-bind" in json.loads(done.stderr.splitlines()[-1])["reason"]


def names_of(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


def test_every_metric_is_documented_and_none_else(daemon: RunningDaemon) -> None:
    """The table in daemon/docs/metrics.md has each of ours, and nothing that is not there."""
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
        raw.ask("nonsense")
    _, text = get(url_of(daemon))
    ours = {
        family.name.removeprefix("perstack_stored_") + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
        if family.name.startswith("perstack_stored_")
    }
    lines = PAGE.read_text().splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| `") and "`/" not in line]
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert documented == ours


def test_the_dashboard_names_only_metrics_that_exist(daemon: RunningDaemon) -> None:
    """Every panel has a query, and every name in a query is scraped."""
    with Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
        raw.ask("retrieveJob", {"jobId": "j1"})
        raw.ask("nonsense")
    known = names_of(scrape(daemon))
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert len(panels) >= 10
    for panel in panels:
        queries = [target["expr"] for target in panel["targets"]]
        assert queries
        for query in queries:
            names = set(re.findall(r"\b((?:perstack_stored|process)_[a-z_]+)\b", query))
            assert names
            assert names <= known, (panel["title"], names - known)


def test_no_secret_gets_into_logs_errors_and_metrics(daemon: RunningDaemon) -> None:
    """Planted in values, in wrong values, in ids, in headers and in a frame that is none."""
    secret = "sk-PLANTED-7f3a9"
    answers: list[bytes] = []
    with Raw(daemon.endpoint) as raw:
        planted = setting(env={"KEY": secret}, providerConfig={"providerName": "p", "apiKey": secret})
        raw.store("storeRunSetting", planted)
        for op, make in VALUES.items():
            for changes in (
                {"id": {"x": secret}},
                {"jobId": [secret]},
                {"stepNumber": secret},
                {"usage": secret},
            ):
                raw.send(op, make(**changes))
                raw.socket.poll(10_000)
                answers.append(raw.socket.recv())
        raw.send("storeRunSetting", b'{"env":{"KEY":"' + secret.encode() + b'"},')
        raw.send("storeRunSetting", planted, session=session(), seq=5)
        raw.send("storeRunSetting", planted, session="0", seq=1)
        raw.send("getAllRuns", {"after": [secret]})
        raw.send("getAllRuns", b'{"' + secret.encode())
        for _ in range(5):
            assert raw.socket.poll(10_000)
            answers.append(raw.socket.recv())
        for frames in ([secret.encode()], [b"", secret.encode(), b"x"]):
            raw.socket.send_multipart(frames)
            assert raw.socket.poll(10_000)
            answers.append(b"".join(raw.socket.recv_multipart()))
        _, text = get(url_of(daemon))
        daemon.stop()
    errors = [answer for answer in answers if b'"ok":true' not in answer]
    assert len(errors) > 15
    for answer in errors:
        assert secret.encode() not in answer
    assert secret not in text
    assert secret.encode() not in daemon.log.read_bytes()
    assert daemon.events("slow_sync") or daemon.events("ready")


def test_a_slow_sync_is_logged_and_counted(tmp_path: Path) -> None:
    """With 1 ms as slow, a disk that syncs a mebibyte is."""
    with running_daemon(tmp_path / "base", "--metrics-bind", "127.0.0.1:0", "--slow-sync-ms", "1") as daemon:
        with Raw(daemon.endpoint) as raw:
            while not daemon.events("slow_sync"):
                raw.store("storeEvent", event("e", text="x" * (4 << 20)))
        assert value(scrape(daemon), "slow_syncs_total") >= 1
        assert daemon.events("slow_sync")[0]["ms"] >= 1
