"""Subscribes to new records: prints each one as it is stored, from the position that the last run ended at.

Ends when nothing new has come for as many seconds as the argument says; without one, never.
"""

import json
import sys
from pathlib import Path

from perstack_storage import Client

KEPT = Path("follow-state.json")
"""Position and epoch of the last record, and the history that they belong to."""

idle_s = float(sys.argv[1]) if sys.argv[1:] else None
kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}

with Client() as client:
    kept.setdefault("store", client.hello()["store"])
    for record in client.follow(**kept, idle_s=idle_s):
        print(record["position"], record["op"], record["value"].get("id"), flush=True)
        kept |= {"after": record["position"], "epoch": record.get("epoch")}
        KEPT.write_text(json.dumps(kept))  # after the work is done: each record is handled at least once
