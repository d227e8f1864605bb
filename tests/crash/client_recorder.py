"""Our Python client, with its history written down as judge.py wants it: un-awaited stores.

`python -m tests.crash.client_recorder ENDPOINT HISTORY SEED` runs until its standard input is closed.
"""

import json
import random
import select
import sys
from collections import deque
from pathlib import Path

from perstack_storage import Client, StoreFuture
from tests.crash.recorder import LAST_ANSWER_SECONDS, Log, values
from tests.helpers.raw_client import session

OUTSTANDING_MAX = 200
METHODS = {
    "storeJob": Client.store_job_nowait,
    "storeCheckpoint": Client.store_checkpoint_nowait,
    "storeEvent": Client.store_event_nowait,
    "storeRunSetting": Client.store_run_setting_nowait,
}


def main() -> None:
    """Entry of the process."""
    endpoint, history, seed = sys.argv[1:]
    log = Log(Path(history))
    name = session()  # of the judge: how the client numbers its stores is its own affair
    outstanding: deque[tuple[int, StoreFuture]] = deque()
    stores = values(Path(history).stem, random.Random(int(seed)), 0)
    seq = 0
    with Client(endpoint, timeout_s=LAST_ANSWER_SECONDS) as client:
        while not select.select([sys.stdin], [], [], 0)[0]:
            op, value = next(stores)
            seq += 1
            log.say("sent", session=name, seq=seq, stores=[[op, value.decode()]])
            outstanding.append((seq, METHODS[op](client, json.loads(value))))
            while outstanding and (outstanding[0][1].done() or len(outstanding) > OUTSTANDING_MAX):
                _note(log, name, *outstanding.popleft())
        for item in outstanding:
            _note(log, name, *item)


def _note(log: Log, name: str, seq: int, future: StoreFuture) -> None:
    log.say("stored", session=name, seq=seq, positions=[future.result()])


if __name__ == "__main__":
    main()
