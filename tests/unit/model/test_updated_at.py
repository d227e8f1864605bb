"""Where the time of a run setting stands: found right, and by no look at each token."""

import re
from pathlib import Path

import pytest

from perstack_stored.model import json_text, updated_at
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import Base, dumps, setting

PLAIN = dumps(setting())
SHAPES = {
    "plain": PLAIN,
    "twice": PLAIN[:-1] + b', "updatedAt" : 77 }',
    "escaped key": PLAIN[:-1] + b',"\\u0075pdatedAt":\n78.50}',
    "within": PLAIN[:-1] + b',"in":{"updatedAt":79},"l":[{"updatedAt":80}],"s":"\\"updatedAt\\":81"}',
    "lone surrogates": b'{"a":"\\ud800\\\\\\ud800",' + PLAIN[1:],
    "first": b' {"updatedAt":  0 ,' + PLAIN[1:].replace(b"updatedAt", b"other"),
    "other alphabet": b'{"\xc3\xa9":"\xf0\x9f\x98\x80",' + PLAIN[1:],
    "deeper than is stored today": b'{"in":' + b"[" * 3000 + b"]" * 3000 + b"," + PLAIN[1:],
    "zeros": b'{"in":[' + b"0," * 5000 + b"1]," + PLAIN[1:],
}


@pytest.mark.parametrize("slice_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", SHAPES)
def test_finds_the_place_that_counts(name: str, slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the last one of the outermost object, whatever stands around it, and the text stays as it is."""
    monkeypatch.setattr(updated_at, "_SLICE_BYTES", slice_bytes)
    text = bytes(SHAPES[name])
    before = bytes(bytearray(text))
    start, end = updated_at.span(text)
    assert (start, end) == json_text.span(text, "updatedAt")
    assert re.fullmatch(rb"[0-9.]+", text[start:end])
    assert text == before


def test_no_shape_is_looked_at_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at each bracket or member would keep the index busy for a minute with a large setting."""

    def refuse(*_: object) -> None:
        raise AssertionError("the text is looked at token by token")

    monkeypatch.setattr(json_text, "span", refuse)
    base = Base(tmp_path / "base")
    dense = b"[" + b",".join([b'[{"":' * 400 + b"1" + b"}]" * 400] * 30) + b"]"
    for run, more in enumerate(
        (dense, b'"\\ud800"', b"0" + b',"a":1' * 30_000, b"[" + b"[]," * 30_000 + b"1]")
    ):
        text = b'{"more":' + more + b"," + dumps(setting(runId=str(run)))[1:]
        base.store((Kind.RUN_SETTING, text), (Kind.RUN_SETTING, text))
    settings, _ = base.ask("getAllRuns")
    assert [found["updatedAt"] > setting()["updatedAt"] for found in settings] == [True] * 4
