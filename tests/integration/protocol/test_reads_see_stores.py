"""A read sees every acknowledged store, and waits for it no longer than its deadline."""

import time

from tests.helpers.daemon import RunningDaemon
from tests.helpers.raw_client import VALUES, Answer, Raw, event


def test_a_deadline_is_for_reads_only(raw: Raw) -> None:
    """With no time left a read is DEADLINE, retryable; a store has no deadline; 1 ms is one or the other."""
    refused = raw.ask("getAllJobs", timeoutMs=0)
    assert (refused.code, refused.error["retryable"]) == ("DEADLINE", True)
    assert raw.store("storeEvent", event("deadline"), timeoutMs=0)
    for _ in range(20):
        answer = raw.ask("getAllJobs", timeoutMs=1)
        assert answer.header["ok"] or answer.code == "DEADLINE"
    assert raw.ask("getAllJobs", timeoutMs=2**53 - 1).header["ok"]
    assert raw.ask("ping", timeoutMs=0).header["ok"]


def test_a_read_waits_for_the_position_that_its_client_has_seen(raw: Raw, daemon: RunningDaemon) -> None:
    """Nothing else waits for it: no later read of the connection, and no store."""
    run = {"jobId": "ahead", "runId": "r1"}
    next_position = raw.ask("ping").header["position"] + 1
    reads = [raw.send(op, run, atLeast=next_position) for op in ("getEventsByRun", "retrieveJob", "readAll")]
    assert raw.ask("getEventsByRun", run).value == []
    assert raw.ask("getEventsByRun", run, atLeast=next_position - 1).value == []
    assert raw.ask("stats").value["reads"]["waiting"] == 3
    with Raw(daemon.endpoint) as other:
        other.store("storeEvent", event("ahead", jobId="ahead"))
    answers = {answer.header["id"]: answer for answer in (raw.receive() for _ in range(3))}
    assert all(answers[read].header["position"] >= next_position for read in reads)
    assert len(answers[reads[0]].value) == 1
    assert raw.ask("getEventsByRun", run, atLeast=2**53 - 1, timeoutMs=50).code == "DEADLINE"
    assert raw.ask("stats").value["reads"]["waiting"] == 0


def test_every_store_is_seen_by_every_client_at_once(raw: Raw, daemon: RunningDaemon) -> None:
    """Five hundred times: one client stores, another one on its own connection reads it, of each kind."""
    readers = [Raw(daemon.endpoint) for _ in range(8)]
    latencies = []
    try:
        for n in range(500):
            op = list(VALUES)[n % 4]
            id = f"seen{n}"
            changes = {"jobId": id} if op != "storeJob" else {}
            name = "r1" if op == "storeRunSetting" else id
            position = raw.store(op, VALUES[op](name, **changes))
            start = time.perf_counter()
            found = _look_for(readers[n % 8], op, id)
            latencies.append(time.perf_counter() - start)
            assert found.header["position"] >= position
    finally:
        for reader in readers:
            reader.close()
    latencies.sort()
    print(f"read after write: p50 {latencies[250] * 1e3:.1f} ms, p99 {latencies[494] * 1e3:.1f} ms")  # noqa: T201


def _look_for(reader: Raw, op: str, id: str) -> Answer:
    if op == "storeJob":
        answer = reader.ask("retrieveJob", {"jobId": id})
        assert answer.value["id"] == id
    elif op == "storeCheckpoint":
        answer = reader.ask("retrieveCheckpoint", {"jobId": id, "checkpointId": id})
        assert answer.value["id"] == id
    elif op == "storeEvent":
        answer = reader.ask("getEventsByRun", {"jobId": id, "runId": "r1"})
        assert len(answer.value) == 1
    else:
        answer = reader.ask("getAllRuns")
        assert id in {found["jobId"] for found in answer.value}
    return answer
