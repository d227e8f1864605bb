"""Output of `retention`: what the next sweep of a daemon with these settings deletes."""

import json
import time

from perstack_storage import Client, StorageError
from perstack_storage.protocol import EndpointError, resolve_base, resolve_endpoint
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir, open_base
from perstack_stored.datadir.lock import holder_of
from perstack_stored.errors import ConfigError
from perstack_stored.journal.clock import aged_at_start
from perstack_stored.journal.entry_format import SEGMENT_HEADER_BYTES
from perstack_stored.journal.reader import JournalReader
from perstack_stored.journal.segment_walk import BadEntryError, walk
from perstack_stored.server.retention import choose, policy_of

from .offline import exit_status
from .output import complain, say

_ANSWER_SECONDS = 10.0


def dry_run(settings: Settings, *, as_json: bool) -> None:
    """Print what would go, the oldest first. It only reads, also beside a daemon."""
    with exit_status():
        path = resolve_base(settings.base_path or None)
        datadir = open_base(FileSystem(), path)
        policy = policy_of(settings)
        if not policy:
            raise ConfigError("no setting asks for it: see retain-days, retain-jobs and retain-bytes")
        chosen = choose(datadir, policy, _time_of_daemon(datadir, path) or _time_of_a_start(datadir))
        for one in chosen:
            if as_json:
                say(json.dumps(one._asdict()))
            else:
                say(f"{one.job}: {one.why}, {one.bytes} bytes, last record at position {one.last_position}")
        total = sum(one.bytes for one in chosen)
        if not as_json:
            say(f"the next sweep deletes {len(chosen)} jobs, {total} bytes on disk; nothing was deleted now")


def _time_of_daemon(datadir: DataDir, path: str) -> int:
    """The time in ms by which the base's daemon counts ages; 0 if none serves it, or it does not say."""
    holder = holder_of(datadir.folders.stored)
    if holder is None or not holder.is_daemon:
        return 0
    try:
        with Client(holder.endpoint or resolve_endpoint(None, path), timeout_s=_ANSWER_SECONDS) as client:
            return int(client.stats()["retention"]["timeMs"])
    except (StorageError, EndpointError, KeyError) as error:
        complain(f"ages are counted as at a start: the daemon does not say its time: {error}")
        return 0


def _time_of_a_start(datadir: DataDir) -> int:
    """The time in ms by which a daemon that starts now counts ages: it doubts a leap of the clock."""
    now_ms = time.time_ns() // 1_000_000
    reader = JournalReader(datadir.files, datadir.folders.journal)
    try:
        return aged_at_start(_last_time_ms(reader), now_ms)
    finally:
        reader.close()


def _last_time_ms(reader: JournalReader) -> int:
    """The time of the last entry, as a start finds it; 0 without one in the last segment."""
    time_ms = 0
    if reader.chain.headers:
        segment = reader.chain.file(reader.chain.last)
        try:
            for entry in walk(segment, SEGMENT_HEADER_BYTES, segment.file.size(), split_large=True):
                time_ms = entry.header.time_ms
        except BadEntryError:
            pass  # after the last entry are zeros, or what a crash left
    return time_ms
