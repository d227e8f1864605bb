"""A journal whose end is gone must not be taken for a shorter one."""

from pathlib import Path
from typing import Any

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon


def _job(n: int) -> dict[str, Any]:
    usage = dict.fromkeys(
        ("inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens"), 0
    )
    return {
        "id": f"job-{n}",
        "status": "running",
        "coordinatorExpertKey": "me",
        "totalSteps": 0,
        "startedAt": n,
        "usage": usage,
    }


def test_a_start_without_the_last_segment_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Index and tree remember higher positions, which must not be given out again."""
    base = tmp_path / "base"
    for n in (1, 2):
        # After a kill the next start begins another segment.
        with running_daemon(base) as daemon, Client(daemon.endpoint) as client:
            client.store_job(_job(n))
            assert client.retrieve_job(f"job-{n}") == _job(n)
    journal = base / ".stored" / "journal"
    last = max(journal.glob("*.segment"))
    content = last.read_bytes()
    last.unlink()
    before = {path.name: path.read_bytes() for path in journal.glob("*.segment")}
    daemon = RunningDaemon(base).start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(timeout=120) == 78
    assert "its end is lost" in daemon.events("failed")[-1]["reason"]
    assert {path.name: path.read_bytes() for path in journal.glob("*.segment")} == before
    last.write_bytes(content)
    with running_daemon(base) as daemon, Client(daemon.endpoint) as client:
        assert client.get_all_jobs() == [_job(2), _job(1)]
