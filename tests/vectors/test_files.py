"""The vectors themselves: whole, and without a contradiction."""

import json

import pytest

from perstack_storage._core.errors import RETRYABLE, ErrorCode
from perstack_stored.protocol import frames
from perstack_stored.read.arguments import ARGUMENTS
from tests.vectors.vectors import FILES, FOLDER, Side, exchanges, load


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_the_members_of_the_readme_and_no_others(file: str) -> None:
    """Names are unique; a file without a daemon has answers only."""
    loaded = load(file)
    assert set(loaded) == {"about", "daemon", "exchanges"}
    names = [item["name"] for item in loaded["exchanges"]]
    assert len(set(names)) == len(names)
    for item in loaded["exchanges"]:
        assert item["about"]
        assert set(item) - {"socket"} == {"name", "about", "answer"} | (
            set() if loaded["daemon"] is None else {"request"}
        )
        assert set(item.get("request", {})) <= {"frames", "header"}
        assert set(item["answer"]) <= {"frames", "header", "varies"}


def test_the_readme_names_every_file() -> None:
    """And no other."""
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{file}.json`" in text for file in FILES)
    assert text.count(".json`") == len(FILES)


def test_each_decoded_header_is_that_of_its_frame() -> None:
    """`header` tells the same as the bytes."""
    sides: list[Side] = []
    for exchange in exchanges():
        sides += [exchange.answer, *([exchange.request] if exchange.request else [])]
    for side in sides:
        if side.header is not None:
            assert json.loads(side.frame.partition(b"\n")[0]) == side.header
    assert len(sides) > 400


def test_every_operation_header_field_and_error_has_a_vector() -> None:
    """What is new in the protocol gets one."""
    requests, answers = [], []
    for exchange in exchanges():
        if exchange.request is not None and exchange.request.header is not None:
            requests.append(exchange.request.header)
        if exchange.answer.header is not None:
            answers.append(exchange.answer.header)
    done = {request["op"] for request in requests}
    assert done == {*frames.STORE_KINDS, frames.BATCH_OP, *ARGUMENTS, "hello", "ping", "stats"}
    fields = {name for request in requests for name in request}
    assert fields >= set(frames.RequestHeader.__struct_fields__)
    codes = {a["error"]["code"]: a["error"]["retryable"] for a in answers if not a["ok"]}
    assert {code: codes[code] for code in ErrorCode} == RETRYABLE
    assert {name for answer in answers for name in answer} >= {
        *("v", "id", "ok", "position", "count", "results", "part", "more", "next", "gaps", "error")
    }
