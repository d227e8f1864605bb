"""A large answer is pulled in parts, and its rest is kept for a while only."""

import json
import time
from pathlib import Path

from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import MIB, Raw, event


def test_two_large_answers_are_pulled_side_by_side(tmp_path: Path) -> None:
    """Each is of one moment: what is stored while it is pulled is not in it."""
    with (
        running_daemon(tmp_path / "base", "--answer-bytes", "65536") as daemon,
        Raw(daemon.endpoint) as raw,
        Raw(daemon.endpoint) as other,
    ):
        for n in range(300):
            raw.send("storeEvent", event(f"e{n}", text="x" * 2000, timestamp=n))
        for _ in range(300):
            assert raw.receive().header["ok"]
        expected = [event(f"e{n}", text="x" * 2000, timestamp=n) for n in range(300)]
        run = {"jobId": "j1", "runId": "r1"}
        bodies: list[list[bytes]] = [[], []]
        answers = [raw.ask("getEventContents", run), raw.ask("readAll")]
        raw.store("storeEvent", event("late", timestamp=0))
        foreign = other.ask("readPart", answers[0].header["more"])
        assert foreign.code == "READ_GONE"
        while any("more" in answer.header for answer in answers):
            for n, answer in enumerate(answers):
                if "more" in answer.header:
                    bodies[n].append(answer.body)
                    assert len(answer.body) == 65536
                    answers[n] = raw.ask("readPart", answer.header["more"])
        contents, records = (
            json.loads(b"".join([*pieces, answer.body]))
            for pieces, answer in zip(bodies, answers, strict=True)
        )
        assert contents == expected
        assert [record["value"] for record in records] == expected
        assert raw.ask("readPart", {"read": "r1", "part": 99}).code == "READ_GONE"


def test_the_rest_of_a_large_answer_is_kept_for_a_while_only(raw: Raw) -> None:
    """READ_GONE, retryable, after limits.readSeconds of silence, 1 here, and for a part that was pulled."""
    for n in range(5):
        raw.store("storeEvent", event(f"gone{n}", jobId="gone", text="x" * 2 * MIB))
    run = {"jobId": "gone", "runId": "r1"}
    first = raw.ask("getEventContents", run)
    second = raw.ask("readPart", first.header["more"])
    assert second.header["ok"]
    repeated = raw.ask("readPart", first.header["more"])
    assert (repeated.code, repeated.error["retryable"]) == ("READ_GONE", True)
    pulled = time.monotonic()
    assert len(json.loads(raw.whole("getEventContents", run)[0])) == 5
    eventually(lambda: time.monotonic() > pulled + 1.1, "a second has passed")
    assert raw.ask("readPart", second.header["more"]).code == "READ_GONE"
