"""OTLP's messages in protobuf: the form that every receiver takes; some take no JSON. No I/O.

Only what spans need of opentelemetry/proto/collector/trace/v1. Numbers of fields stand beside their names.
"""

import struct
from collections.abc import Iterable, Mapping

from perstack_storage._otlp.spans import Span

OK, ERROR = 1, 2
_NANOS = 1_000_000
_NANOS_MAX = (1 << 63) - 1
_INT_MAX = (1 << 63) - 1
_NAME_CHARS_MAX, _MESSAGE_CHARS_MAX = 200, 1000
_VARINT, _FIXED, _BYTES = 0, 1, 2


def request(spans: Iterable[Span], resource: Mapping[str, str | int], scope: tuple[str, str]) -> bytes:
    """An ExportTraceServiceRequest with the spans of one scope, named and versioned, of one resource."""
    name, version = scope
    scoped = _field(1, _text(1, name) + _text(2, version)) + b"".join(
        _field(2, _span(span)) for span in spans
    )
    resource_spans = _field(1, _attributes(1, resource)) + _field(2, scoped)
    return _field(1, resource_spans)


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans an ExportTraceServiceResponse rejects, and why; 0 where it says nothing of it."""
    number, why = 0, ""
    for field, value in _fields(answer):
        if field != 1 or not isinstance(value, bytes):
            continue
        for inner, found in _fields(value):
            if inner == 1 and isinstance(found, int):
                number = found
            elif inner == 2 and isinstance(found, bytes):  # noqa: PLR2004 - the message's field
                why = found.decode(errors="replace")
    return number, why


def _span(span: Span) -> bytes:
    start = min(max(0, int(span.start * _NANOS)), _NANOS_MAX)
    end = min(max(start, int(span.end * _NANOS)), _NANOS_MAX)
    status = _number(3, ERROR if span.error else OK)
    if span.error:
        status = _text(2, span.error[:_MESSAGE_CHARS_MAX]) + status
    return b"".join(
        (
            _field(1, bytes.fromhex(span.trace)),
            _field(2, bytes.fromhex(span.id)),
            _field(4, bytes.fromhex(span.parent)) if span.parent else b"",
            _text(5, span.name[:_NAME_CHARS_MAX]),
            _number(6, span.kind),
            _key(7, _FIXED) + struct.pack("<Q", start),
            _key(8, _FIXED) + struct.pack("<Q", end),
            _attributes(9, span.attributes),
            _field(15, status),
        )
    )


def _attributes(field: int, values: Mapping[str, str | int]) -> bytes:
    """Attributes as a repeated field; what is empty is left out."""
    return b"".join(
        _field(field, _text(1, name) + _field(2, _any(value)))
        for name, value in values.items()
        if value != ""
    )


def _any(value: str | int) -> bytes:
    if isinstance(value, int) and 0 <= value <= _INT_MAX:
        return _number(3, value)
    return _text(1, str(value))


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode(errors="replace"))


def _field(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(data)) + data


def _number(field: int, number: int) -> bytes:
    return _key(field, _VARINT) + _varint(number)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _fields(data: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message; ends where it is none."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            number, at = _read_varint(data, at)
            yield field, number
        elif kind == _FIXED:
            yield field, data[at : at + 8]
            at += 8
        elif kind == _BYTES:
            size, at = _read_varint(data, at)
            yield field, data[at : at + size]
            at += size
        else:
            return


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:  # noqa: PLR2004 - bits of the longest
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last one
            break
        shift += 7
    return number, at
