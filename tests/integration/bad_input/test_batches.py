"""Sessions, batches and parts that can not be are refused."""

from typing import Any

import pytest

from tests.helpers.raw_client import Raw, batch, event, session
from tests.integration.bad_input.refusals import VALUE_BYTES_MAX, S, refused


@pytest.mark.parametrize(
    ("field", "header"),
    [
        ("session", {"seq": 1}),
        ("session", {"seq": 1, "session": None}),
        ("session", {"seq": 1, "session": ""}),
        ("session", {"seq": 1, "session": "5e" * 15}),
        ("session", {"seq": 1, "session": "5e" * 17}),
        ("session", {"seq": 1, "session": "5E" * 16}),
        ("session", {"seq": 1, "session": "zz" * 16}),
        ("session", {"seq": 1, "session": "5e " * 10 + "5e"}),
        ("session", {"seq": 1, "session": "é" * 16}),
        ("session", {"seq": 1, "session": "٣" * 32}),
        ("session", {"seq": 1, "session": "0" * 32}),
        ("seq", {"session": S}),
        ("seq", {"session": S, "seq": 0}),
        ("seq", {"session": S, "seq": -1}),
        ("seq", {"session": S, "seq": 2**53}),
        ("seq", {"session": S, "seq": 10**30}),
        ("seq", {"session": S, "seq": 1.5}),
        ("settled", {"session": S, "seq": 1, "settled": -1}),
        ("settled", {"session": S, "seq": 1, "settled": 10**30}),
    ],
)
def test_a_session_or_number_that_is_wrong_is_refused(raw: Raw, field: str, header: dict[str, Any]) -> None:
    """BAD_REQUEST names session, seq or settled."""
    refused(raw, "BAD_REQUEST", field, "storeEvent", event(), **header)
    assert raw.ask("hello", session=S).value["session"] == {"last": 0}


@pytest.mark.parametrize(
    ("code", "items", "body"),
    [
        ("BAD_REQUEST", None, b"{}"),
        ("BAD_REQUEST", [], b""),
        ("BAD_REQUEST", [], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 1]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 3]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2], ["storeEvent", 1]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2], ["storeEvent", -2]], b""),
        ("BAD_REQUEST", [["storeEvent", -2], ["storeEvent", 4]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2**63]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 10**30]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 10**4299]] * 12, b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2.5]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", True]], b"{"),
        ("BAD_REQUEST", [["storeEvent"]], b"{}"),
        ("BAD_REQUEST", [["storeEvent", 2, 2]], b"{}"),
        ("BAD_REQUEST", ["storeEvent", 2], b"{}"),
        ("BAD_REQUEST", [[2, "storeEvent"]], b"{}"),
        ("BAD_REQUEST", [["storeX", 2]], b"{}"),
        ("BAD_REQUEST", [["store", 2]], b"{}"),
        ("BAD_REQUEST", [["ping", 2]], b"{}"),
        ("TOO_LARGE", [["storeEvent", 2]] * 1025, b"{}" * 1025),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_that_does_not_fit_is_refused_as_a_whole(
    raw: Raw, code: str, items: object, body: bytes
) -> None:
    """None of its items is stored, and its numbers are not used up."""
    name = session()
    refused(raw, code, "items", "store", body, items=items, session=name, seq=1)
    assert raw.ask("hello", session=name).value["session"] == {"last": 0}


def test_a_batch_of_bad_values_names_each(raw: Raw) -> None:
    """Each item has an error of its own, in the order of the items."""
    items, body = batch([("storeEvent", b"{}"), ("storeJob", b"[]"), ("storeJob", b""), ("storeEvent", b"x")])
    results = raw.ask("store", body, items=items).header["results"]
    assert [result["code"] for result in results] == ["BAD_VALUE", "BAD_JSON", "BAD_JSON", "BAD_JSON"]
    assert all(result["retryable"] is False for result in results)


@pytest.mark.parametrize(
    ("code", "field", "header"),
    [
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 1, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": -1, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 11, "bytes": 10}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 2, "bytes": 0}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 2, "bytes": -5}),
        ("BAD_REQUEST", "parts", {"part": 1}),
        ("BAD_REQUEST", "parts", {"part": 0, "parts": 0, "bytes": 6}),
        ("SEQUENCE_GAP", "part", {"part": 1, "parts": 2, "bytes": 10}),
        ("BAD_REQUEST", "part", {"part": -1, "parts": 2, "bytes": 10}),
        ("SEQUENCE_GAP", "part", {"part": 10**30, "parts": 10**31, "bytes": 10}),
        ("BAD_REQUEST", "bytes", {"part": 0, "parts": 2, "bytes": 5}),
        ("TOO_LARGE", "bytes", {"part": 0, "parts": 2, "bytes": VALUE_BYTES_MAX + 1}),
        ("TOO_LARGE", "bytes", {"part": 0, "parts": 2, "bytes": 10**30}),
    ],
)
def test_parts_that_can_not_be_are_refused(raw: Raw, code: str, field: str, header: dict[str, Any]) -> None:
    """A wrong count, order or size; what came of the value is forgotten."""
    error = raw.ask("storeEvent", b"sixsix", **header).error
    assert (error["code"], error["field"]) == (code, field)
    assert raw.ask("stats").value["partsBytes"] == 0


def test_a_batch_in_parts_is_refused(raw: Raw) -> None:
    """Only a single value may come in parts."""
    refused(raw, "BAD_REQUEST", "parts", "store", b"{}", items=[["storeEvent", 4]], parts=2, bytes=4)


def test_parts_that_end_too_early_are_refused(raw: Raw) -> None:
    """The last part came, but not all the bytes."""
    head = {"parts": 2, "bytes": 100}
    assert raw.ask("storeEvent", b"{", part=0, **head).header["part"] == 0
    refused(raw, "BAD_REQUEST", "bytes", "storeEvent", b"}", part=1, **head)
