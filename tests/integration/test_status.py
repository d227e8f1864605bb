"""`status` on real daemons that are well, stopped, far behind, or can't go on. It ends soon each time."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perstack_storage import Client
from perstack_stored.cli.status_facts import look
from tests.helpers import commands, signals
from tests.helpers.daemon import RunningDaemon, eventually, running_daemon
from tests.helpers.raw_client import Raw, event, setting
from tests.integration.test_private import GROUP, as_member

NOBODY = 65534
_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of another owner")


def said(base: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of the screen, of which only those with one long word exceed 80 columns."""
    done = commands.run("status", "--base-path", str(base), *arguments)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in lines), done.stdout
    return done.returncode, lines


def facts(base: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = commands.run("status", "--base-path", str(base), "--json", *arguments)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def journal_of(disk: dict[str, Any]) -> tuple[int, int]:
    return disk["journalBytes"], disk["journalFiles"]


def journal_files(base: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in (base / ".stored/journal").iterdir()]
    return sum(sizes), len(sizes)


def row(lines: list[str], label: str) -> str:
    (line,) = [line for line in lines if line.startswith(f"  {label} ")]
    return line[12:]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    signals.stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_daemon_that_is_well(tmp_path: Path) -> None:
    """Status 0; process, endpoint, position, lag, disk and errors are right; no secret is shown."""
    base, secret = tmp_path / "base", "sk-PLANTED-4711"
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeRunSetting", setting(env={"KEY": secret}))
        for n in range(4):
            raw.store("storeEvent", event(f"e{n}", timestamp=n))
        raw.ask("storeEvent", {"id": secret})
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree follows")
        status, found = facts(base)
        assert (status, found["healthy"], found["reason"], found["running"]) == (0, True, "", True)
        assert found["process"]["pid"] == daemon.pid
        assert abs(found["process"]["startedMs"] / 1000 - time.time()) < 120
        assert (found["daemon"]["base"], found["endpoint"]) == (str(base), daemon.endpoint)
        assert found["stats"]["position"] == 5
        # The daemon prepares the next segment meanwhile: its file appears, and grows.
        eventually(lambda: journal_of(facts(base)[1]["disk"]) == journal_files(base), "it counts the journal")
        assert found["disk"]["indexBytes"] >= (base / ".stored/index.sqlite").stat().st_size
        assert 0 < found["disk"]["freeBytes"] <= found["disk"]["totalBytes"]
        status, lines = said(base)
    assert (status, lines[0]) == (0, "healthy")
    assert row(lines, "process").startswith(f"daemon {daemon.pid}, version ")
    assert row(lines, "position").startswith("5 of history ")
    assert row(lines, "tree") == row(lines, "index") == "up to date"
    assert row(lines, "errors").startswith("refused: BAD_VALUE 1")  # a busy disk adds slow syncs
    assert len(lines) <= 24
    assert secret not in json.dumps(found) + "".join(lines)


def test_rates_are_those_of_a_second(tmp_path: Path) -> None:
    """Stores and reads of a steady load."""
    with running_daemon(tmp_path / "base") as daemon:
        done = threading.Event()
        counts = [0]

        def load() -> None:
            with Client(daemon.endpoint) as client:
                while not done.wait(0.005):
                    client.store_event(event(f"e{counts[0]}", timestamp=counts[0]))
                    client.get_all_jobs()
                    counts[0] += 1

        thread = threading.Thread(target=load)
        thread.start()
        try:
            eventually(lambda: counts[0] > 20, "the load has begun")
            before, began = counts[0], time.monotonic()
            _, found = facts(tmp_path / "base")
            pace = (counts[0] - before) / (time.monotonic() - began)
        finally:
            done.set()
            thread.join()
    for what in ("stores", "reads"):
        assert pace / 4 < found["rates"][what] < pace * 4


def test_a_tree_that_lags_is_shown_in_records_bytes_and_seconds(tmp_path: Path) -> None:
    """It is no reason to be unhealthy: /readyz is well, too."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("first"))
        eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree follows")
        with stopped(daemon.workers()["tree"]):
            for n in range(3):
                raw.store("storeEvent", event(f"e{n}", timestamp=n))
            status, found = facts(base)
            text = row(said(base)[1], "tree")
    tree = found["stats"]["tree"]
    assert (status, tree["lagRecords"]) == (0, 3)
    assert tree["lagBytes"] > 300
    assert 0.5 < tree["lagSeconds"] < 60
    assert text.startswith("3 records behind (")


def test_a_daemon_that_hangs_is_unhealthy_within_the_timeout(tmp_path: Path) -> None:
    """And the line says that a signal stopped it, where one did."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, stopped(daemon.pid):
        began = time.monotonic()
        status, lines = said(base, "--timeout", "1")
        assert time.monotonic() - began < 10
        found = facts(base, "--timeout", "0.5")[1]
    assert status == 1
    assert lines[0].startswith("not healthy: its process is stopped by a signal")
    assert (found["running"], found["healthy"], found["stats"]) == (True, False, None)
    assert found["disk"]["journalFiles"] >= 1


def test_a_base_that_is_not_served(tmp_path: Path) -> None:
    """After a stop, and where there is none; no daemon is asked, since that would start one by its socket."""
    base = tmp_path / "base"
    assert said(base)[0] == 1
    assert not base.exists()
    with running_daemon(base) as daemon:
        assert daemon.stop() == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(base / ".stored/stored.sock"))
        listener.listen()
        listener.setblocking(False)
        status, lines = said(base)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (status, lines[0]) == (1, "not running: no process holds the base")
    assert facts(base)[1]["running"] is False


def test_a_tool_that_holds_the_base_is_named(tmp_path: Path) -> None:
    """It is no daemon."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event(text="x" * 1_000_000))
        daemon.stop()
    # Its output has no reader, so it stays where it is.
    command = [sys.executable, "-m", "perstack_stored", "dump", "--base-path", str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        assert dump.stdout.read(1)
        status, lines = said(base)
        dump.stdout.close()
    assert status == 1
    assert lines[0] == f"not running: `dump` with process id {dump.pid} holds the base"


@_needs_root
def test_the_judgement_is_that_of_readyz(tmp_path: Path) -> None:
    """An index that may not be opened: both say so, in the same words; stores go on."""
    base = tmp_path / "base"
    with running_daemon(base) as first, Raw(first.endpoint) as raw:
        raw.store("storeEvent", event())
        first.stop()
    index = base / ".stored/index.sqlite"
    os.chown(index, NOBODY, NOBODY)
    index.chmod(0)
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    daemon = RunningDaemon(base, "--metrics-bind", "127.0.0.1:0", prefix=bare).start()
    try:
        with Raw(daemon.endpoint) as raw:
            eventually(lambda: raw.ask("stats").value["index"]["fault"] != "", "the fault is shown")
        status, found = facts(base)
        url = str(daemon.events("metrics_ready")[0]["url"]).replace("/metrics", "/readyz")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=60)
        assert (status, refused.value.code) == (1, 503)
        assert refused.value.read().decode().strip() == found["reason"]
        assert said(base)[1][0].startswith("not healthy: index: ")
    finally:
        daemon.make_sure_it_ended()


@_needs_root
def test_without_rights_a_sentence_says_so() -> None:
    """A member of the group learns from the daemon how it is; of a stopped one it can't tell."""
    folder = Path(tempfile.mkdtemp(prefix="stored-", dir="/var/tmp"))  # a member can't enter pytest's own
    os.chown(folder, 0, GROUP)
    folder.chmod(0o750)
    base = folder / "base"
    daemon = RunningDaemon(base, prefix=("setpriv", f"--regid={GROUP}", "--clear-groups"))
    try:
        daemon.start()

        def looked() -> str:
            found = look(str(base), None, None, 1)
            return f"{found.healthy} {found.running} {found.process} {found.reason}"

        assert as_member(looked) == "True True None "
        daemon.stop()
        told = as_member(looked)
        assert told.startswith("False None None ")
        assert "run this as that user, or as root" in told
    finally:
        daemon.make_sure_it_ended()
        shutil.rmtree(folder)


def test_the_age_of_a_backup_is_shown(tmp_path: Path) -> None:
    """Of a folder that is named, or that of the installed timer, beside the base; and what came since."""
    base = tmp_path / "base"
    with running_daemon(base) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event("e0"))
        for target, keep in (("one", ()), (f"{tmp_path.name}.backups", ("--keep", "2"))):
            where = tmp_path.parent / target if keep else tmp_path / target
            done = commands.run("backup", "--base-path", str(base), *keep, str(where))
            assert done.returncode == 0, done.stderr
        raw.store("storeEvent", event("e1", timestamp=2))
        named = facts(base, "--backups", str(tmp_path / "one"))[1]["backup"]
        beside = facts(base)[1]["backup"]
        lines = said(base)[1]
        wrong = facts(base, "--backups", str(tmp_path / "none"))
    assert named["path"] == str(tmp_path / "one")
    assert Path(beside["path"]).parent == tmp_path.parent / f"{tmp_path.name}.backups"
    for backup in (named, beside):
        assert backup["position"] == 1
        assert abs(backup["timeMs"] / 1000 - time.time()) < 120
    assert "old, up to position 1 (1 record since)" in row(lines, "backup")
    assert wrong[0] == 0
    assert "none" in wrong[1]["notes"][0]


def test_what_another_program_answers_is_not_believed(tmp_path: Path) -> None:
    """A daemon of another base, and a wrong flag."""
    with running_daemon(tmp_path / "base") as daemon, running_daemon(tmp_path / "other") as other:
        status, found = facts(tmp_path / "base", "--endpoint", other.endpoint)
        assert (status, found["healthy"]) == (1, False)
        assert "serves another base" in found["reason"]
        assert facts(tmp_path / "base", "--endpoint", daemon.endpoint)[0] == 0
    assert commands.run("status", "--timeout", "soon").returncode == 2


def test_a_path_controls_no_terminal(tmp_path: Path) -> None:
    """It is escaped."""
    base = tmp_path / "x\x1b[2J"
    base.mkdir()
    status, lines = said(base)
    assert status == 1
    assert "\x1b" not in "".join(lines)
