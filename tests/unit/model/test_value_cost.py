"""What a check of a value costs: time and memory, for small and large values."""

import json
import time
import tracemalloc
from typing import Any

import pytest

from perstack_stored.model import updated_at, value_check, values
from perstack_stored.model.kinds import Kind
from tests.helpers.datadir import SAMPLES, dumps, event, setting
from tests.helpers.values import DELETE, changed, deeper, raw, refusal_or_none

_SHAPES = {
    "other alphabets": "ü".encode() * 2,
    "emoji": "🙂".encode(),
    "escaped backslashes": rb"\\\\",
    "lone surrogates": rb"\ud800",
    "pairs, one broken": rb"\ud83d\ude42",
    "quotes": rb"\"",
    "brackets": b"[",
}


def cost_of(payload: bytes) -> float:
    """Seconds of the processor that a check takes, the least of some."""

    def once() -> float:
        before = time.process_time()
        refusal_or_none(Kind.EVENT, payload)
        return time.process_time() - before

    return min(once() for _ in range(4))


@pytest.mark.parametrize("shape", list(_SHAPES.values()), ids=list(_SHAPES))
@pytest.mark.parametrize("end", [b'"', rb'\ud800"', b""], ids=["plain", "surrogate", "cut"])
def test_no_shape_of_text_is_of_another_class_of_cost(shape: bytes, end: bytes) -> None:
    """Whatever a string holds, it costs no more than some times what letters cost, and that with any size."""

    def shaped(piece: bytes, size: int) -> bytes:
        return raw(event(), "x", b'"' + piece * (size // len(piece)) + end)

    plain = cost_of(raw(event(), "x", b'"' + b"a" * 1_000_000 + b'"'))
    small, large = cost_of(shaped(shape, 500_000)), cost_of(shaped(shape, 1_000_000))
    assert large < 100 * plain
    assert large < 8 * small


@pytest.mark.parametrize("shape", [*_SHAPES.values(), b"x" + "🙂".encode()], ids=[*_SHAPES, "mixed"])
@pytest.mark.parametrize("end", [b'"', rb'\ud800"', b""], ids=["plain", "surrogate", "cut"])
def test_a_check_takes_two_copies_of_a_value_at_most(shape: bytes, end: bytes) -> None:
    """Beside the value there is room for a copy and for some slices, whatever it holds."""
    payload = raw(event(), "x", b'"' + shape * (12_000_000 // len(shape)) + end)
    tracemalloc.start()
    refusal_or_none(Kind.EVENT, payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(payload) + (10 << 20)


_PAD = "p" * 20_000


@pytest.mark.parametrize("kind", list(SAMPLES))
@pytest.mark.parametrize("odd", [None, True, 5, -1.5, 1e300, "x", [], {}, [1], {"a": 1}, DELETE], ids=repr)
def test_a_large_value_is_refused_as_a_small_one(
    kind: Kind, odd: object, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field by field, with the same words."""
    for module in (values, value_check):
        monkeypatch.setattr(module, "LARGE_BYTES", len(_PAD))
    for field in SAMPLES[kind]:
        small = extra | changed(SAMPLES[kind], field, odd)
        found = [refusal_or_none(kind, dumps(value)) for value in (small, small | {"zzz": _PAD})]
        assert (found[0] and found[0].as_dict()) == (found[1] and found[1].as_dict())


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [
        (Kind.CHECKPOINT, "messages", b"[" + b"{}," * 700_000 + b"{}]"),
        (Kind.RUN_SETTING, "env", b"{" + b'"a":0,' * 300_000 + b'"b":1}'),
        (Kind.RUN_SETTING, "input", b"{" + b",".join(b'"%d":0' % i for i in range(200_000)) + b"}"),
    ],
)
def test_many_messages_or_members_take_no_multiple_of_their_bytes(
    kind: Kind, field: str, text: bytes
) -> None:
    """They are not looked at, so nothing is made of them."""
    payload = raw(SAMPLES[kind], field, text)
    tracemalloc.start()
    value_check.check(kind, payload)
    values.decode(kind, memoryview(payload))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(payload)


@pytest.mark.parametrize("lone", ["", "\ud800"])
@pytest.mark.parametrize("id_", ["한", "🙂", "\ue000", "\uf000🙂\ue83d", "a\ud7ff", "\ue000" * 50])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_id_is_taken_as_it_was_sent_beside_a_lone_surrogate(id_: str, lone: str, ascii_only: bool) -> None:
    """Escaped or not, private characters, pairs and Hangul in ids are what they are."""
    text = json.dumps(event(id=id_, runId=f"r{id_}", zz="@@"), ensure_ascii=ascii_only)
    value = value_check.check(Kind.EVENT, text.replace('"@@"', json.dumps(lone)).encode())
    assert isinstance(value, values.Event)
    assert (value.id, value.runId) == (id_, f"r{id_}")


@pytest.mark.parametrize("text", [b"1", b"1.50", b"17171717172e2", b" 12 "])
@pytest.mark.parametrize("beside", [b"0", b'"\\ud800"', b"[" * 9900 + b"]" * 9900], ids=["0", "lone", "deep"])
def test_the_text_of_a_setting_s_time_is_found(text: bytes, beside: bytes) -> None:
    """The index keeps the digits as they were sent, whatever else the setting holds."""
    payload = raw(setting() | {"zz": {"updatedAt": 5}, "yy": "##"}, "updatedAt", text)
    sent = payload.replace(b'"##"', beside)
    start, end = updated_at.span(sent)
    assert sent[start:end] == text.strip()


def test_what_is_taken_can_be_decoded_with_a_deeper_stack() -> None:
    """A projection may stand on a deeper stack than the check, and the check on a deep one."""
    payload = raw(event(), "zz", b"[" * 850 + b"]" * 850)
    value_check.check(Kind.EVENT, payload)
    deeper(40, payload)
    deeper(300, payload)
