"""`make demo`: a daemon, eight agent processes that replay captured Perstack runs, and everything read back.

Leaves the tree in demo-run/. Status 0 only if what the client answers, and what lies in the tree, is byte for
byte what the agents sent, in the order of their calls.
"""

import os
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import orjson  # noqa: E402

from perstack_storage import Client, StorageError, __version__, resolve_endpoint  # noqa: E402
from tests.demo import compare, readers, screen, workload  # noqa: E402
from tests.demo.agents import AgentFailed, Agents, Witnessed  # noqa: E402
from tests.demo.service import DemoFailed, Service, check, make_empty  # noqa: E402

BASE = ROOT / "demo-run"
AGENTS = 8
INTERRUPTED_STATUS = 130
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TREE_SECONDS = 60.0
PROBLEMS_SHOWN = 20
POLL_SECONDS = 0.01
TRY_NEXT = """\
.venv/bin/perstack-stored serve --base-path demo-run &    # stop it with: kill %1
.venv/bin/perstack-storectl inspect --open --base-path demo-run    # in the browser
find demo-run/jobs/agent1-a1 | sort | head -20
.venv/bin/python - <<'END'
from perstack_storage import Client
with Client(base_path="demo-run") as client:
    for run in client.get_all_runs(limit=5):
        events = client.get_event_contents(run["jobId"], run["runId"])
        print(run["jobId"], run["runId"], len(events), "events, the last one:", events[-1]["type"])
END"""


class Replay(NamedTuple):
    """Figures of the stores; times in seconds."""

    stores: int
    seconds: float
    lag_records: int
    lag_seconds: float
    witnessed: Witnessed


class Found(NamedTuple):
    """The result of reading back."""

    through_client: list[compare.Difference]
    in_tree: list[compare.Difference]
    sent_bytes: int
    tree_files: int


def main() -> int:
    """Run it; returns the exit status."""
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        problems = _demo()
    except KeyboardInterrupt:
        print("Stopped.")
        return INTERRUPTED_STATUS
    except (DemoFailed, AgentFailed, StorageError, OSError) as error:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # it came during a clean-up
            return INTERRUPTED_STATUS
        screen.clear()
        print(f"The demo could not be finished: {error}", file=sys.stderr)
        return 1
    if problems:
        screen.verdict(f"{len(problems):,} findings: not everything is as it was sent.", good=False)
        print(*(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN]), sep="\n")
        if len(problems) > PROBLEMS_SHOWN:
            print(f"  and {len(problems) - PROBLEMS_SHOWN:,} more")
        return 1
    screen.verdict(f"Nothing is missing.  ({time.monotonic() - started:.0f} s)", good=True)
    print(f"\nThe tree is in {BASE.name}/. To look around:\n\n{TRY_NEXT}")
    return 0


def _interrupt(*_: Any) -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)  # a second one must not cut the cleaning up short
    os.write(sys.stderr.fileno(), b"\nInterrupted. Stopping the daemon and the agents ...\n")
    raise KeyboardInterrupt


def _demo() -> list[str]:
    """Run the demo; returns the problems found."""
    screen.heading(f"perstack-stored {__version__}: {AGENTS} agent processes replay captured Perstack runs")
    agents = workload.jobs_of_agents(AGENTS)
    jobs = {job: calls for of_agent in agents for job, calls in of_agent.items()}
    make_empty(BASE)
    endpoint = resolve_endpoint(None, BASE)
    with ExitStack() as stack:
        # Before threads and sockets, which a fork must not copy.
        processes = Agents(endpoint, agents)
        stack.callback(processes.terminate)
        service = Service(BASE)
        stack.callback(service.stop)
        service.wait_ready()
        client = stack.enter_context(Client(endpoint))
        replay = _replay(client, processes)
        found = _read_back(client, jobs)
        unclean = service.stop()
    screen.passing("perstack-stored check")
    verdict, findings = check(BASE)
    screen.clear()
    _report(workload.count(agents), len(jobs), replay, found)
    screen.row("check", verdict)
    _report_loss(agents)
    problems = [
        f"{where}: {difference}"
        for where, differences in (
            ("client", found.through_client),
            ("tree", found.in_tree),
            ("meanwhile", replay.witnessed.differences),
        )
        for difference in differences
    ]
    problems += [f"check: {finding}" for finding in findings]
    return problems + ([unclean] if unclean else [])


def _replay(client: Client, processes: Agents) -> Replay:
    """Let the agents begin; watch until the last store is acknowledged and the tree has it."""
    client.ping()
    began = processes.go()
    progress = screen.Progress("storing", processes.total, "acknowledged")
    while (done := processes.acknowledged()) < processes.total:
        progress.show(done)
        time.sleep(POLL_SECONDS)
    behind = _tree_lag(client)
    processes.stop_reading()
    deadline = time.monotonic() + TREE_SECONDS
    progress = screen.Progress("tree", behind, "records written to it")
    while (lag := _tree_lag(client)) and time.monotonic() < deadline:
        progress.show(behind - lag)
        time.sleep(POLL_SECONDS / 2)
    if lag:
        fault = client.stats()["tree"]["fault"]
        raise DemoFailed(f"the tree is still {lag:,} records behind after {TREE_SECONDS:.0f} s. {fault}")
    complete_at = time.monotonic()
    last_at, witnessed = processes.finish()
    return Replay(processes.total, last_at - began, behind, complete_at - last_at, witnessed)


def _tree_lag(client: Client) -> int:
    """The tree's lag in records: all, as long as the tree worker has not reported."""
    stats = client.stats()
    lag = stats["tree"]["lagRecords"]
    return int(stats["position"] if lag is None else lag)


def _read_back(client: Client, jobs: workload.Jobs) -> Found:
    """Compare both readings of each job, and the listings, with what was sent."""
    differences = compare.compare(compare.listings_expected(jobs), readers.read_listings(client))
    in_tree: list[compare.Difference] = []
    sent_bytes = tree_files = 0
    names = sorted(jobs.keys() | set(readers.jobs_in_tree(BASE)))
    progress = screen.Progress("reading back", len(names), "jobs")
    for n, job in enumerate(names):
        progress.show(n)
        if job not in jobs:
            in_tree.append(compare.Difference("never sent", "files in the tree", f"jobs/{job}"))
            continue
        calls = jobs[job]
        runs = sorted({call.value["runId"] for call in calls if call.op == "storeEvent"})
        answers, tree = readers.read_answers(client, job, runs), readers.read_tree(BASE, job)
        differences += compare.compare(compare.answers_expected(job, calls), answers)
        in_tree += compare.compare(compare.tree_expected(job, calls), tree)
        sent_bytes += sum(len(orjson.dumps(call.value)) for call in calls)
        tree_files += sum(map(len, tree.values()))
    return Found(differences, in_tree, sent_bytes, tree_files)


def _report(stored: Counter[str], jobs: int, replay: Replay, found: Found) -> None:
    counts = (
        f"{stored['storeEvent']:,} events, {stored['storeCheckpoint']:,} checkpoints, "
        f"{jobs:,} jobs, {stored['storeRunSetting']:,} settings"
    )
    seconds, seen = replay.seconds, replay.witnessed
    rate = f"{replay.stores / seconds:,.0f} acknowledged/s"
    screen.row("sent", f"{counts}: {found.sent_bytes / 1e6:,.0f} MB in {seconds:.1f} s")
    screen.row("rate", f"{rate}, each one synced to disk before its answer")
    screen.row("tree", f"{replay.lag_records:,} records behind at the last answer")
    screen.row("", f"its last file was there {replay.lag_seconds:.1f} s later")
    screen.heading("Compared byte for byte with what was sent, in the order of the calls")
    screen.row("client", f"{counts}: {_outcome(found.through_client)}")
    screen.row(
        "tree", f"{found.tree_files:,} files, read by the rules of proto/tree.md: {_outcome(found.in_tree)}"
    )
    screen.row(
        "meanwhile", f"{seen.values:,} values read just after their answer: {_outcome(seen.differences)}"
    )


def _report_loss(agents: list[workload.Jobs]) -> None:
    events = workload.count(agents)["storeEvent"]
    loss = workload.loss_of_direct_writing(agents)
    screen.heading("What writing the same events straight to their files loses")
    share = f"{loss.names_taken / events:.0%}"
    screen.row("overwritten", f"{loss.names_taken:,} events ({share}): a later one has the same file name")
    share = f"{loss.captured / events:.0%}"
    screen.row("measured", f"{share} lost by Perstack's own storage in these runs, torn files included")


def _outcome(differences: list[compare.Difference]) -> str:
    if not differences:
        return "nothing missing"
    kinds = Counter(difference.kind for difference in differences)
    return ", ".join(f"{n:,} {kind.upper()}" for kind, n in kinds.items())


if __name__ == "__main__":
    sys.exit(main())
