"""Arguments of the reads."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perstack_stored.errors import Refusal
from perstack_stored.read.arguments import ARGUMENTS, check_arguments
from perstack_stored.read.queries import OPERATIONS

EVENTS = {"jobId": "j", "runId": "r"}
BAD_TYPES: list[Any] = ["a", [1], ["a"] * 101, ["a" * 101], {}]
BAD_FIELDS: list[Any] = ["a", [1], [None], ["a"] * 65, ["a" * 201], ["." * 16]]


@pytest.mark.parametrize(
    ("op", "arguments", "checked"),
    [
        ("retrieveJob", {"jobId": "j", "unknown": 1}, {"jobId": "j"}),
        ("retrieveCheckpoint", {"jobId": "j", "checkpointId": "c"}, {"jobId": "j", "checkpointId": "c"}),
        ("getAllJobs", {}, {}),
        ("getAllJobs", {"limit": 1, "after": [1.5, "x"]}, {"limit": 1, "after": [1.5, "x"]}),
        ("getAllRuns", {"limit": None, "after": None}, {}),
        ("getEventContents", EVENTS | {"maxStep": 0}, EVENTS | {"maxStep": 0}),
        ("getEventContents", EVENTS | {"maxStep": 2.5}, EVENTS | {"maxStep": 2.5}),
        ("getEventContents", EVENTS | {"maxStep": 10**300}, EVENTS | {"maxStep": 2**60}),
        ("getEventContents", EVENTS | {"maxStep": -(10**300)}, EVENTS | {"maxStep": -(2**60)}),
        ("readAll", {"after": 0, "limit": 2**53 - 1}, {"after": 0, "limit": 2**53 - 1}),
        ("readAll", {"waitMs": 0}, {"waitMs": 0}),
        ("readAll", EVENTS | {"waitMs": 10**9, "store": "s"}, EVENTS | {"waitMs": 60_000, "store": "s"}),
        ("readPart", {"read": "r1", "part": 1}, {"read": "r1", "part": 1}),
    ],
)
def test_good_arguments_are_taken(op: str, arguments: dict[str, Any], checked: dict[str, Any]) -> None:
    """Known arguments come through, null counts as missing, unknown ones are ignored."""
    assert check_arguments(op, arguments) == checked


@pytest.mark.parametrize(
    ("op", "arguments", "field"),
    [
        ("retrieveJob", {}, "jobId"),
        ("retrieveJob", {"jobId": None}, "jobId"),
        ("retrieveJob", {"jobId": 5}, "jobId"),
        ("retrieveJob", {"jobId": ""}, "jobId"),
        ("retrieveJob", {"jobId": "../x"}, "jobId"),
        ("retrieveCheckpoint", {"jobId": "j"}, "checkpointId"),
        ("getEventsByRun", {"jobId": "j"}, "runId"),
        ("getEventContents", EVENTS | {"maxStep": "1"}, "maxStep"),
        ("getEventContents", EVENTS | {"maxStep": True}, "maxStep"),
        ("getAllJobs", {"limit": 0}, "limit"),
        ("getAllJobs", {"limit": 1.0}, "limit"),
        ("getAllJobs", {"limit": True}, "limit"),
        ("getAllJobs", {"limit": 2**53}, "limit"),
        ("getAllJobs", {"after": 5}, "after"),
        ("getAllJobs", {"after": [True]}, "after"),
        ("getAllJobs", {"after": [None, "x"]}, "after"),
        ("getAllJobs", {"after": [[1], "x"]}, "after"),
        ("getAllJobs", {"after": [2**70, "x"]}, "after"),
        ("getAllJobs", {"after": "x"}, "after"),
        ("readAll", {"after": -1}, "after"),
        ("readAll", {"after": [1]}, "after"),
        ("readAll", {"after": 2**53}, "after"),
        ("readAll", {"waitMs": -1}, "waitMs"),
        ("readAll", {"waitMs": 1.5}, "waitMs"),
        ("readAll", {"runId": "r"}, "jobId"),
        ("readAll", {"jobId": "../x"}, "jobId"),
        ("readAll", {"store": 5}, "store"),
        *(("getEventContents", EVENTS | {"types": value}, "types") for value in BAD_TYPES),
        *(("getEventContents", EVENTS | {"omit": value}, "omit") for value in BAD_FIELDS),
        *(("getCheckpointsByJobId", EVENTS | {"omit": value}, "omit") for value in BAD_FIELDS),
        ("getEventContents", EVENTS | {"minStep": "1"}, "minStep"),
        ("getEventContents", EVENTS | {"newestFirst": 1}, "newestFirst"),
        ("listJobs", {"status": "s" * 201}, "status"),
        ("listJobs", {"expertKey": 5}, "expertKey"),
        ("listJobs", {"contains": "c" * 201}, "contains"),
        ("listJobs", {"jobId": "a/b"}, "jobId"),
        ("listJobs", {"since": "x"}, "since"),
        ("listRuns", {"until": True}, "until"),
        ("listRuns", {"newestFirst": "x"}, "newestFirst"),
        ("listRuns", {"jobId": ""}, "jobId"),
        ("listRuns", {"limit": 0}, "limit"),
        ("getEvent", {}, "position"),
        ("getEvent", {"position": -1}, "position"),
        ("getEvent", {"position": "1"}, "position"),
        ("readPart", {"read": "x" * 201, "part": 1}, "read"),
        ("readPart", {"read": "x"}, "part"),
        ("readPart", {"read": "x", "part": 0}, "part"),
    ],
)
def test_bad_arguments_are_refused_by_name(op: str, arguments: dict[str, Any], field: str) -> None:
    """A missing or wrong argument is named before anything is read."""
    with pytest.raises(Refusal) as caught:
        check_arguments(op, arguments)
    assert (caught.value.code, caught.value.field) == ("BAD_REQUEST", field)


def test_each_read_has_its_arguments() -> None:
    """Every operation that can be asked for can be carried out."""
    assert set(ARGUMENTS) == set(OPERATIONS) | {"readPart", "cursors", "setCursor", "deleteCursor"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda c: st.lists(c) | st.dictionaries(st.text(), c),
)
_NAMES = sorted({name for arguments in ARGUMENTS.values() for name in arguments})


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(ARGUMENTS)), st.dictionaries(st.sampled_from(_NAMES), _JSON))
def test_any_arguments_are_taken_or_refused_and_nothing_else_happens(
    op: str, arguments: dict[str, Any]
) -> None:
    """No JSON in any argument raises anything but a refusal."""
    try:
        checked = check_arguments(op, arguments)
    except Refusal as refusal:
        said: tuple[str, str | None] = (refusal.code, refusal.field)
    else:
        said = ("BAD_REQUEST", next(iter(ARGUMENTS[op]), None))
        assert set(checked) <= set(ARGUMENTS[op])
    assert said[0] == "BAD_REQUEST"
    assert said[1] is None or said[1] in ARGUMENTS[op]
