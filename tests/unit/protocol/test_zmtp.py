"""ZMTP as the daemon speaks it: bytes in any pieces become messages, or a reason to close."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.protocol.zmtp import OPENING, READ_BYTES, TooLargeError, ZmtpDecoder, ZmtpError, head_of

FRAME_BYTES_MAX = 1 << 20
MANY = 1 << 30
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
PLAIN, DELIMITED = "plain", "delimited"
MORE, LONG, COMMAND = 1, 2, 4

Messages = list[tuple[str, bytes | None]]


def frame(body: bytes, flags: int = 0, *, long: bool = False) -> bytes:
    if long or len(body) > 255:
        return struct.pack(">BQ", flags | LONG, len(body)) + body
    return bytes((flags, len(body))) + body


def command(name: bytes, data: bytes = b"") -> bytes:
    return frame(bytes((len(name),)) + name + data, COMMAND)


def prop(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack(">I", len(value)) + value


READY = command(b"READY", prop(b"Socket-Type", b"DEALER") + prop(b"Identity", b""))
HANDSHAKE = GREETING + READY


def fed(*pieces: bytes) -> tuple[ZmtpDecoder[str], Messages]:
    decoder, messages = ZmtpDecoder(PLAIN, DELIMITED, FRAME_BYTES_MAX), Messages()
    for piece in pieces:
        decoder.feed(piece, messages, MANY)
    return decoder, messages


SHAPES = [
    (frame(b"one"), [(PLAIN, b"one")]),
    (frame(b"one", long=True), [(PLAIN, b"one")]),
    (frame(b""), [(PLAIN, b"")]),
    (frame(bytes(255)), [(PLAIN, bytes(255))]),
    (frame(bytes(256)), [(PLAIN, bytes(256))]),
    (frame(b"", MORE) + frame(b"one"), [(DELIMITED, b"one")]),
    (frame(b"", MORE, long=True) + frame(b"one"), [(DELIMITED, b"one")]),
    (frame(b"", MORE) + frame(b""), [(DELIMITED, b"")]),
    (frame(b"a", MORE) + frame(b"b"), [(PLAIN, None)]),
    (frame(b"a", MORE) + frame(b"b", MORE) + frame(b"c"), [(PLAIN, None)]),
    (frame(b"", MORE) + frame(b"b", MORE) + frame(b"c"), [(DELIMITED, None)]),
    (
        frame(b"", MORE) + frame(b"", MORE) + frame(b"") + frame(b"next"),
        [(DELIMITED, None), (PLAIN, b"next")],
    ),
    (command(b"PING", b"\0\7context") + frame(b"one"), [(PLAIN, b"one")]),
    (frame(b"", MORE) + command(b"PONG", b"x") + frame(b"one"), [(DELIMITED, b"one")]),
]


@pytest.mark.parametrize(("sent", "messages"), SHAPES)
def test_every_shape_is_understood_cut_at_every_byte(sent: bytes, messages: Messages) -> None:
    """In two pieces, at each place; and byte by byte."""
    whole = HANDSHAKE + sent
    for place in range(len(whole) + 1):
        decoder, got = fed(whole[:place], whole[place:])
        assert (got, decoder.partial_bytes, decoder.ready) == (messages, 0, True), place
    assert fed(*(whole[n : n + 1] for n in range(len(whole))))[1] == messages


@given(
    bodies=st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([0, 1, 255, 256, 3000, READ_BYTES, READ_BYTES + 1, 200_000])
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 300_000), max_size=30),
)
def test_messages_come_out_as_they_went_in_with_any_cuts(
    bodies: list[tuple[bool, int]], cuts: list[int]
) -> None:
    """Small and large ones, as DEALER and as REQ sends them."""
    wanted = [
        (DELIMITED if delimited else PLAIN, struct.pack(">Q", n) * (size // 8) + bytes(size % 8))
        for n, (delimited, size) in enumerate(bodies)
    ]
    sent = HANDSHAKE
    for tag, body in wanted:
        sent += (frame(b"", MORE) if tag == DELIMITED else b"") + frame(body)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    decoder, got = fed(*(sent[start:end] for start, end in itertools.pairwise(places)))
    assert got == wanted
    assert decoder.partial_bytes == 0


def test_what_is_wanted_ends_with_the_large_frame() -> None:
    """Nothing after a large frame is read with it, and what is kept never exceeds what came."""
    decoder, messages = fed(HANDSHAKE)
    sent = frame(bytes(300_000)) + frame(b"next")
    while sent:
        piece, sent = sent[: decoder.wanted], sent[decoder.wanted :]
        decoder.feed(piece, messages, MANY)
        assert decoder.partial_bytes <= 300_009
    assert messages == [(PLAIN, bytes(300_000)), (PLAIN, b"next")]


def test_a_limit_leaves_the_rest_for_the_next_call() -> None:
    """In order, and without a byte more."""
    decoder, messages = fed(HANDSHAKE)
    assert decoder.feed(b"".join(frame(b"%d" % n) for n in range(10)), messages, 4) == 4
    assert (len(messages), decoder.unread) == (4, True)
    assert decoder.feed(b"", messages, 4) == 4
    assert (len(messages), decoder.unread) == (8, True)
    assert decoder.feed(b"", messages, 4) == 2
    assert messages == [(PLAIN, b"%d" % n) for n in range(10)]
    assert (decoder.unread, decoder.partial_bytes) == (False, 0)


@pytest.mark.parametrize("piece", [frame(b"", MORE), frame(b"x", MORE), command(b"PING", b"\0\0")])
def test_a_limit_counts_what_is_no_message(piece: bytes) -> None:
    """Frames of a message without an end, and commands: they take as long as messages."""
    decoder, messages = fed(HANDSHAKE)
    assert decoder.feed(piece * 1000 + frame(b"one"), messages, 64) == 64
    assert (messages, decoder.unread) == ([], True)
    assert len(decoder.outgoing) <= 64 * len(command(b"PONG"))
    assert decoder.feed(b"", messages, MANY) == 937
    assert (len(messages), decoder.unread) == (1, False)


def test_complete_frames_that_wait_for_their_turn_are_not_unfinished() -> None:
    """A client is not blamed for what we have not looked at; what is cut off after it counts later."""
    decoder, messages = fed(HANDSHAKE)
    decoder.feed(frame(b"one") * 3 + frame(bytes(100))[:50], messages, 2)
    assert (len(messages), decoder.unread, decoder.partial_bytes) == (2, True, 0)
    decoder.feed(b"", messages, 2)
    assert (len(messages), decoder.unread, decoder.partial_bytes) == (3, False, 50)


def test_a_ping_is_answered_with_its_context() -> None:
    decoder, _ = fed(HANDSHAKE + command(b"PING", b"\0\7context") + command(b"PING", b"\0\0"))
    assert decoder.outgoing == command(b"PONG", b"context") + command(b"PONG")


@pytest.mark.parametrize("kind", [b"DEALER", b"REQ", b"ROUTER"])
@pytest.mark.parametrize("name", [b"Socket-Type", b"SOCKET-TYPE"])
@pytest.mark.parametrize("minor", [0, 1, 9])
def test_every_peer_that_asks_is_let_in(kind: bytes, name: bytes, minor: int) -> None:
    greeting = GREETING[:11] + bytes((minor,)) + GREETING[12:]
    decoder, messages = fed(
        greeting + command(b"READY", prop(b"X-Own", b"1") + prop(name, kind) + prop(b"Identity", b"me"))
    )
    assert decoder.ready
    assert not messages


BROKEN = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "ZMTP 1": b"\x01\x00",
    "ZMTP 1, a long id": b"\xff" + bytes(7) + b"\x02\x00a",
    "ZMTP 2": GREETING[:10] + b"\x01\x05\x00\x00",
    "CURVE": GREETING[:12] + b"CURVE".ljust(20, b"\0") + GREETING[32:],
    "a message at once": GREETING + frame(b"one"),
    "another command first": GREETING + command(b"PING", b"\0\0"),
    "a subscriber": GREETING + command(b"READY", prop(b"Socket-Type", b"SUB")),
    "no type": GREETING + command(b"READY"),
    "metadata cut off": GREETING + command(b"READY", prop(b"Socket-Type", b"DEALER")[:-1]),
    "metadata cut off in a name": GREETING + command(b"READY", b"\xffabc"),
    "an empty command": GREETING + frame(b"", COMMAND),
    "READY again": HANDSHAKE + READY,
    "an unknown command": HANDSHAKE + command(b"SUBSCRIBE", b"topic"),
    "a command without a name": HANDSHAKE + frame(b"", COMMAND),
    "a PING without a time": HANDSHAKE + command(b"PING", b"\0"),
    "a PING with much": HANDSHAKE + command(b"PING", bytes(19)),
    "a command that goes on": HANDSHAKE + frame(b"\4PING\0\0", COMMAND | MORE),
    "unknown flags": HANDSHAKE + frame(b"one", 8),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
def test_what_breaks_the_protocol_ends_the_connection(sent: bytes) -> None:
    """At once and byte by byte."""
    for pieces in ([sent], [sent[n : n + 1] for n in range(len(sent))]):
        with pytest.raises(ZmtpError):
            fed(*pieces)


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (HANDSHAKE + struct.pack(">BQ", LONG, FRAME_BYTES_MAX), False),
        (HANDSHAKE + struct.pack(">BQ", LONG, FRAME_BYTES_MAX + 1), True),
        (HANDSHAKE + struct.pack(">BQ", LONG | MORE, 1 << 63), True),
        (HANDSHAKE + struct.pack(">BQ", LONG, (1 << 64) - 1), True),
        (HANDSHAKE + struct.pack(">BQ", LONG | COMMAND, 9000), True),
        (HANDSHAKE + frame(b"\4PING" + bytes(9000), COMMAND), True),
        (GREETING + struct.pack(">BQ", LONG | COMMAND, 9000), True),
    ],
)
def test_a_frame_is_refused_by_its_announced_size(sent: bytes, refused: bool) -> None:
    """Before anything of it has come, and nothing is set aside for it."""
    if refused:
        with pytest.raises(TooLargeError):
            fed(sent)
    else:
        assert fed(sent)[0].partial_bytes == 0


@given(st.binary(max_size=400), st.integers(0, 3))
def test_noise_is_refused_or_understood_and_nothing_else(noise: bytes, where: int) -> None:
    """After each step of the handshake."""
    before = (b"", GREETING, HANDSHAKE, HANDSHAKE + frame(b"", MORE))[where]
    decoder, messages = ZmtpDecoder(PLAIN, DELIMITED, FRAME_BYTES_MAX), Messages()
    try:
        decoder.feed(before + noise, messages, MANY)
    except ZmtpError:
        return
    assert decoder.partial_bytes <= len(before) + len(noise)


def test_the_own_side_is_what_the_own_decoder_takes() -> None:
    """Greeting and READY, and the head of an answer, short and long, with and without a delimiter."""
    sent = OPENING
    for size, delimited in itertools.product((0, 255, 256, 70_000), (False, True)):
        sent += head_of(size, delimited=delimited) + bytes(size)
    decoder, messages = fed(sent)
    assert decoder.ready
    assert messages == [
        (DELIMITED if delimited else PLAIN, bytes(size))
        for size, delimited in itertools.product((0, 255, 256, 70_000), (False, True))
    ]
