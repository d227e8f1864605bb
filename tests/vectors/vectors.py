"""The golden vectors of proto/vectors, opened as their README says."""

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "proto" / "vectors"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
ALWAYS_VARIES = ("message",)


class Side(NamedTuple):
    """A request or an answer."""

    frames: list[bytes]
    header: dict[str, Any] | None
    varies: tuple[str, ...]

    @property
    def frame(self) -> bytes:
        """The frame that holds header and body."""
        return self.frames[-1]

    @property
    def body(self) -> bytes:
        """What comes after the first line feed."""
        return self.frame.partition(b"\n")[2]


class Exchange(NamedTuple):
    """A request and its answer."""

    file: str
    name: str
    socket: str
    request: Side | None
    answer: Side


def load(file: str) -> dict[str, Any]:
    """A file as it stands there."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{file}.json").read_bytes())
    return loaded


def exchanges(*files: str) -> list[Exchange]:
    """The exchanges of these files, or of all."""
    return [_exchange(file, item) for file in files or FILES for item in load(file)["exchanges"]]


def name_of(exchange: Exchange) -> str:
    """Its name in a list of tests."""
    return f"{exchange.file}:{exchange.name}"


def joined(frame: Any) -> bytes:
    """The bytes of a frame."""
    return b"".join(map(_piece, frame if isinstance(frame, list) else [frame]))


def settled(frame: bytes, varies: tuple[str, ...]) -> bytes:
    """A frame in which everything that varies is the same."""
    if "body" in varies:
        frame = frame.partition(b"\n")[0] + b"\n"
    for member in (*ALWAYS_VARIES, *varies):
        value = rb'("%b":)(?:"(?:[^"\\]|\\.)+"|\d+|\[[^\]]*\])' % member.encode()
        frame = re.sub(value, rb"\1*", frame)
    return frame


def _piece(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    if "base64" in piece:
        return base64.b64decode(piece["base64"], validate=True)
    text: str = piece["repeat"]
    return text.encode() * int(piece["times"])


def _exchange(file: str, item: dict[str, Any]) -> Exchange:
    request = _side(item["request"]) if "request" in item else None
    return Exchange(file, item["name"], item.get("socket", "DEALER"), request, _side(item["answer"]))


def _side(side: dict[str, Any]) -> Side:
    return Side([joined(f) for f in side["frames"]], side.get("header"), tuple(side.get("varies", ())))
