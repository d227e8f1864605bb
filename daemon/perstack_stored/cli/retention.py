"""Output of `retention`: what the next sweep of a daemon with these settings deletes."""

import json
import time

from perstack_storage.protocol import resolve_base
from perstack_stored.config.settings import Settings
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import open_base
from perstack_stored.errors import ConfigError
from perstack_stored.server.retention import choose, policy_of

from .offline import exit_status
from .output import say


def dry_run(settings: Settings, *, as_json: bool) -> None:
    """Print what would go, the oldest first. It only reads, also beside a daemon."""
    with exit_status():
        path = resolve_base(settings.base_path or None)
        datadir = open_base(FileSystem(), path)
        policy = policy_of(settings)
        if not policy:
            raise ConfigError("no setting asks for it: see retain-days, retain-jobs and retain-bytes")
        chosen = choose(datadir, policy, time.time_ns() // 1_000_000)
        for one in chosen:
            if as_json:
                say(json.dumps(one._asdict()))
            else:
                say(f"{one.job}: {one.why}, {one.bytes} bytes, last record at position {one.last_position}")
        total = sum(one.bytes for one in chosen)
        if not as_json:
            say(f"the next sweep deletes {len(chosen)} jobs, {total} bytes on disk; nothing was deleted now")
