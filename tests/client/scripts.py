"""How the fake daemon misbehaves: once at an operation, with a refusal, or with silence."""

from collections.abc import Callable
from typing import Any

from tests.client.fake_daemon import Script, frame


def once(op: str, answers: Callable[[dict[str, Any]], list[bytes]]) -> Script:
    """A script that misbehaves at the first request of an operation."""
    done = False

    def script(header: dict[str, Any], body: bytes) -> list[bytes] | None:
        nonlocal done
        if done or header["op"] != op:
            return None
        done = True
        return answers(header)

    return script


def refuse(error: dict[str, Any]) -> Callable[[dict[str, Any]], list[bytes]]:
    return lambda header: [frame({"id": header["id"], "ok": False, "error": error})]


def silence(header: dict[str, Any]) -> list[bytes]:
    return []
