"""Event blocks: what goes in comes out, within their bounds, and a changed byte is noticed."""

from random import Random

import pytest

from perstack_stored.index.event_blocks import (
    EVENTS_MAX,
    BadBlockError,
    EventBlock,
    EventColumns,
    EventRow,
    decode,
)

U32 = 1 << 32


def rows_of(count: int, seed: int = 0, **changes: int) -> list[EventRow]:
    """Events as a run has them: positions grow, timestamps and steps don't fall."""
    random = Random(seed)
    position, timestamp, step = 10, 1_700_000_000_000, 0
    rows = []
    for _ in range(count):
        position += random.randint(1, changes.get("gap", 9))
        timestamp += random.randint(0, changes.get("pause", 50))
        step += random.random() < 0.1
        name = random.choice(["startRun", "streamText", "é", "callTools"])
        length, crc = random.randrange(1 << 20), random.randrange(U32)
        rows.append(
            (position, timestamp, step, random.randrange(U32), length, crc, name, random.randint(1, 255))
        )
    return rows


def block_of(rows: list[EventRow]) -> tuple[EventBlock, int]:
    block = EventBlock(3, *rows[0][:3])
    return block, block.extend(EventColumns.of(rows))


@pytest.mark.parametrize("seed", range(10))
def test_events_come_out_as_they_went_in(seed: int) -> None:
    """Whatever portions they come in."""
    random = Random(seed)
    rows = rows_of(EVENTS_MAX, seed)
    block = EventBlock(3, *rows[0][:3])
    start = 0
    while start < len(rows):
        first = random.randint(0, start)
        some = EventColumns.of(rows[first : start + random.randint(1, 60)])
        start += block.extend(some, start - first)
        block = decode(block.encode())
    assert (block.rows(), block.segment, len(block)) == (rows, 3, EVENTS_MAX)
    assert block.last == (rows[-1][2], rows[-1][1], rows[-1][0])
    assert block.rows(5, 9) == rows[5:9]
    for position, timestamp, step, _, _, _, name, _ in rows:
        assert block.rows(0, block.upto(position))[-1][0] == position
        same = [row for row in rows if (row[1], row[2], row[6]) == (timestamp, step, name)]
        assert block.named(timestamp, step, name) == same
    assert block.upto(0) == 0
    assert block.named(rows[0][1], 999, "startRun") == []


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({"gap": U32 // 2}, 1),
        ({"pause": U32 // 2}, 1),
    ],
)
def test_a_block_ends_where_a_difference_does_not_fit(changed: dict[str, int], fits: int) -> None:
    """The others go into the next block, and none is left out."""
    rows = rows_of(60, **changed)
    left = rows
    found: list[EventRow] = []
    while left:
        block, count = block_of(left)
        assert count >= fits
        found += decode(block.encode()).rows()
        left = left[count:]
    assert found == rows


def test_a_block_has_a_bound_and_each_event_may_have_its_own_type() -> None:
    """The count says what did not fit."""
    many = rows_of(EVENTS_MAX + 1)
    assert block_of(many)[1] == EVENTS_MAX
    block, _ = block_of(many)
    assert block.extend(EventColumns.of(many[-1:])) == 0
    named = EventBlock(1, *many[0][:3])
    taken = 0
    for n, row in enumerate(many[:EVENTS_MAX]):
        taken += named.extend(EventColumns.of([(*row[:6], f"type{n}", 1)]))
    assert taken == EVENTS_MAX
    assert [row[6] for row in decode(named.encode()).rows()] == [f"type{n}" for n in range(EVENTS_MAX)]


def test_a_changed_byte_is_noticed_wherever_it_stands() -> None:
    """Each bit of a block counts."""
    data = block_of(rows_of(20))[0].encode()
    for place in range(len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(BadBlockError):
                decode(bytes(changed))


@pytest.mark.parametrize("size", [0, 1, 39, 40, 100])
def test_a_cut_block_is_no_block(size: int) -> None:
    data = block_of(rows_of(20))[0].encode()
    with pytest.raises(BadBlockError):
        decode(data[:size])
