"""Places of a base, and what is done there."""

import random
from pathlib import Path
from typing import NamedTuple

from tests.offline.bases import segments
from tests.offline.damage_base import Made


class Place(NamedTuple):
    """A damage: a file of the base, an offset, and what is done there."""

    file: str
    offset: int
    how: str

    def __str__(self) -> str:
        return f"{self.how} {self.file} at {self.offset}"


HOWS = ("flip", "zero", "noise", "cut")


def places(made: Made, count: int, pick: random.Random) -> list[Place]:
    """Places of all kinds: half of them in the journal, the rest in all else."""
    journal = [f".stored/journal/{path.name}" for path in segments(made.path)]
    small = [".stored/tree.cursor", ".stored/lock"]
    indexes = [f".stored/{p.name}" for p in (made.path / ".stored").glob("index.sqlite*")]
    tree = [str(p.relative_to(made.path)) for p in sorted((made.path / "jobs").rglob("*.json"))]
    found = []
    for _ in range(count):
        name = pick.choice(pick.choices([journal, small, indexes, tree], [50, 6, 24, 20])[0])
        size = max(1, _used(made, name))
        how = pick.choices(HOWS, [60, 10, 15, 15])[0]
        # The headers are small and hit too seldom by chance.
        within = 200 if pick.random() < 0.15 else size
        found.append(Place(name, pick.randrange(min(size, within)), how))
    return found


def _used(made: Made, name: str) -> int:
    """Size of a file, without the zeros that a segment has in store."""
    data = (made.path / name).read_bytes()
    return len(data.rstrip(b"\0")) + 64 if name.endswith(".segment") else len(data)


def damage(base: Path, place: Place, pick: random.Random) -> bool:
    """Damage a copy; whether anything is different now."""
    path = base / place.file
    before = path.read_bytes()
    data = bytearray(before)
    if place.how == "cut":
        del data[place.offset :]
    elif place.offset < len(data):
        if place.how == "flip":
            data[place.offset] ^= 1 << pick.randrange(8)
        else:
            start = place.offset // 512 * 512 if place.how == "zero" else place.offset
            length = min(512, len(data) - start)
            data[start : start + length] = bytes(length) if place.how == "zero" else pick.randbytes(length)
    path.unlink()  # it may be a second name
    path.write_bytes(data)
    return bytes(data).rstrip(b"\0") != before.rstrip(b"\0") or (
        len(data) != len(before) and not place.file.endswith(".segment")
    )
