"""Damages of a journal's segments."""

import os
from pathlib import Path

from tests.offline.bases import segments
from tests.offline.damages import Damage, flip


def flip_head(number: int) -> Damage:
    return lambda base: flip(segments(base)[number], 80)


def flip_text(text: bytes) -> Damage:
    def damage(base: Path) -> None:
        for path in segments(base):
            place = path.read_bytes().rfind(text)
            if place >= 0:
                flip(path, place)

    return damage


def drop(number: int) -> Damage:
    return lambda base: segments(base)[number].unlink()


def cut(number: int, size: int) -> Damage:
    return lambda base: os.truncate(segments(base)[number], size)


def overwrite(number: int, content: bytes) -> Damage:
    return lambda base: segments(base)[number].write_bytes(content)


def drop_all_but_the_first(base: Path) -> None:
    for path in segments(base)[1:]:
        path.unlink()


def both(*damages: Damage) -> Damage:
    def damage(base: Path) -> None:
        for each in damages:
            each(base)

    return damage


def flips(number: int, *offsets: int) -> Damage:
    def damage(base: Path) -> None:
        for offset in offsets:
            flip(segments(base)[number], offset)

    return damage
