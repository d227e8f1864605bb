"""The types of events that the daemon knows are those that the clients declare."""

import re
from pathlib import Path

from perstack_stored.model.event_types import DELTAS, EVENT_TYPES

CLIENTS = Path(__file__).parents[3] / "client"


def test_they_are_those_of_both_clients() -> None:
    python = (CLIENTS / "python/perstack_storage/_core/events.py").read_text()
    assert tuple(re.findall(r'^    type: Literal\["(\w+)"\]', python, re.MULTILINE)) == EVENT_TYPES
    typescript = (CLIENTS / "typescript/src/core/events.ts").read_text()
    payloads = typescript.partition("interface Payloads {")[2].partition("\n}")[0]
    assert tuple(re.findall(r"^  (\w+): ", payloads, re.MULTILINE)) == EVENT_TYPES
    assert set(DELTAS) < set(EVENT_TYPES)
