"""Arguments of reads that are wrong are named."""

from typing import Any

import pytest

from tests.helpers.raw_client import Raw
from tests.integration.bad_input.refusals import refused

_RUN = {"jobId": "j", "runId": "r"}


@pytest.mark.parametrize(
    ("field", "op", "arguments"),
    [
        ("jobId", "retrieveJob", {}),
        ("jobId", "retrieveJob", {"jobId": None}),
        ("jobId", "retrieveJob", {"jobId": 5}),
        ("jobId", "retrieveJob", {"jobId": "../x"}),
        ("jobId", "retrieveJob", {"jobId": "a" * 300}),
        ("jobId", "retrieveJob", {"jobId": ""}),
        ("checkpointId", "retrieveCheckpoint", {"jobId": "j"}),
        ("checkpointId", "retrieveCheckpoint", {"jobId": "j", "checkpointId": ["c"]}),
        ("jobId", "getCheckpointsByJobId", {}),
        ("runId", "getEventsByRun", {"jobId": "j"}),
        ("runId", "getEventContents", {"jobId": "j", "runId": "a/b"}),
        ("maxStep", "getEventContents", {**_RUN, "maxStep": "3"}),
        ("maxStep", "getEventContents", {**_RUN, "maxStep": True}),
        ("asOf", "retrieveJob", {"jobId": "j", "asOf": -1}),
        ("asOf.timeMs", "getEventsByRun", {**_RUN, "asOf": {"timeMs": None}}),
        ("limit", "getAllJobs", {"limit": 0}),
        ("limit", "getAllJobs", {"limit": -1}),
        ("limit", "getAllRuns", {"limit": 1.5}),
        ("limit", "getAllRuns", {"limit": "1"}),
        ("limit", "getEventsByRun", {**_RUN, "limit": True}),
        ("limit", "getEventsByRun", {**_RUN, "limit": 10**30}),
        ("after", "getAllJobs", {"after": 5}),
        ("after", "getAllJobs", {"after": []}),
        ("after", "getAllJobs", {"after": ["x", 5]}),
        ("after", "getAllJobs", {"after": [5, "x", 5]}),
        ("after", "getAllJobs", {"after": [10**30, "x"]}),
        ("after", "getAllJobs", {"after": [True, "x"]}),
        ("after", "getAllJobs", {"after": {"a": 1}}),
        ("after", "getAllRuns", {"after": [10**30, "j", "r"]}),
        ("after", "getCheckpointsByJobId", {"jobId": "j", "after": [10**30, 1]}),
        ("after", "getCheckpointsByJobId", {"jobId": "j", "after": [1.5, 1]}),
        ("after", "getEventsByRun", {**_RUN, "after": [10**30, 1]}),
        ("after", "getEventsByRun", {**_RUN, "after": [1, -(10**30)]}),
        ("after", "getEventContents", {**_RUN, "after": [1, 2**63]}),
        ("after", "getEventContents", {**_RUN, "after": [[1], [2]]}),
        ("after", "readAll", {"after": -1}),
        ("after", "readAll", {"after": [0]}),
        ("after", "readAll", {"after": 10**30}),
        ("limit", "readAll", {"limit": 0}),
        ("read", "readPart", {}),
        ("read", "readPart", {"read": 5, "part": 1}),
        ("read", "readPart", {"read": "r" * 1000, "part": 1}),
        ("part", "readPart", {"read": "r1"}),
        ("part", "readPart", {"read": "r1", "part": 0}),
    ],
    ids=str,
)
def test_an_argument_of_a_read_that_is_wrong_is_named(
    raw: Raw, field: str, op: str, arguments: dict[str, Any]
) -> None:
    """BAD_REQUEST, and every read is still answered afterwards."""
    refused(raw, "BAD_REQUEST", field, op, arguments)
    assert raw.ask("getAllRuns").value == []
    assert raw.ask("retrieveJob", {"jobId": "j"}).value is None


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b'{"jobId":"\\ud800"}', b"[" * 9999]
)
def test_arguments_that_are_no_json_object_are_refused(raw: Raw, body: bytes) -> None:
    """BAD_REQUEST, whatever stands there."""
    refused(raw, "BAD_REQUEST", None, "retrieveJob", body)


@pytest.mark.parametrize("step", [10**30, -(10**30), 1e300, -1.5, 0.5])
def test_a_step_limit_beyond_all_steps_is_just_that(raw: Raw, step: float) -> None:
    """Any number may be given as maxStep."""
    assert raw.ask("getEventContents", {**_RUN, "maxStep": step}).value == []
