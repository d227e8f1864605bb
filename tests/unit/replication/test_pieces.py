"""Messages in pieces: every daemon puts the same together, wherever it begins to read."""

import random

from hypothesis import given
from hypothesis import strategies as st

from perstack_stored.replication import message as log_message
from perstack_stored.replication.message import LoggedRequest, MessageType
from perstack_stored.replication.pieces import PIECE_BYTES, Assembler, split
from perstack_stored.replication.stream import LoggedMessage

SENDERS = (b"a" * 16, b"b" * 16)


def make_log(seed: int) -> tuple[list[LoggedMessage], set[bytes]]:
    """Messages of two senders, some in pieces, of which one may be missing; and all of them, whole."""
    chance = random.Random(seed)
    bodies: list[bytes] = []
    sent = set()
    for number in range(1, 12):
        payload = chance.randbytes(chance.randint(0, 40))
        request = LoggedRequest(b"s" * 16, number, 0, False, [(3, payload)])
        body = log_message.encode(MessageType.STORES, chance.choice(SENDERS), number, [request])
        sent.add(body)
        pieces = list(split(body, 30)) if chance.random() < 0.7 else [body]
        fate = chance.random()
        if fate < 0.2:
            del pieces[chance.randrange(len(pieces))]
        elif fate < 0.4:
            pieces.insert(
                chance.randrange(len(pieces) + 1), log_message.encode(MessageType.BARRIER, b"c" * 16, 1)
            )
        elif fate < 0.5:
            pieces.append(pieces[-1])
        bodies += pieces
    return [LoggedMessage(sequence, 0, body) for sequence, body in enumerate(bodies, 1)], sent


def applied(log: list[LoggedMessage], chance: random.Random | None) -> list[LoggedMessage]:
    """What is applied, by a daemon that starts again at random, after what it has applied."""
    found: list[LoggedMessage] = []
    assembler, sequence = Assembler(), 0
    while sequence < len(log):
        whole = assembler.take(log[sequence])
        sequence += 1
        if whole is not None:
            found.append(whole)
        if chance is not None and chance.random() < 0.2:
            assembler, sequence = Assembler(), found[-1].sequence if found else 0
    return found


@given(seed=st.integers(0, 2**32))
def test_all_daemons_put_the_same_together(seed: int) -> None:
    log, sent = make_log(seed)
    undisturbed = applied(log, None)
    assert applied(log, random.Random(seed + 1)) == undisturbed
    for one in undisturbed:
        if log_message.decode(one.body).type is MessageType.STORES:
            assert one.body in sent


def test_a_message_comes_back_as_it_was() -> None:
    request = LoggedRequest(b"s" * 16, 1, 0, False, [(3, random.Random(1).randbytes(3 * PIECE_BYTES))])
    body = log_message.encode(MessageType.STORES, SENDERS[0], 7, [request])
    pieces = list(split(body))
    assert len(pieces) == 4
    log = [LoggedMessage(sequence, sequence, piece) for sequence, piece in enumerate(pieces, 10)]
    assert applied(log, None) == [LoggedMessage(13, 13, body)]


def test_what_is_incomplete_is_named_and_comes_to_nothing() -> None:
    body = log_message.encode(
        MessageType.STORES, SENDERS[0], 7, [LoggedRequest(b"s" * 16, 1, 0, False, [(3, b"x" * 99)])]
    )
    pieces = list(split(body, 50))
    assembler = Assembler()
    assert assembler.take(LoggedMessage(1, 0, pieces[0])) is None
    other = LoggedMessage(2, 0, log_message.encode(MessageType.BARRIER, SENDERS[1], 1))
    assert assembler.take(other) == other
    assert assembler.dropped == [(SENDERS[0], 7)]
    rest = [assembler.take(LoggedMessage(3 + i, 0, piece)) for i, piece in enumerate(pieces[1:])]
    assert all(one is not None and log_message.decode(one.body).requests == [] for one in rest)
