"""The commands `stream create` and `stream check`."""

import json
from typing import Any

import click

from perstack_stored.config.settings import Settings
from perstack_stored.config.sources import Sources
from perstack_stored.errors import ConfigError

from .offline import exit_status
from .options import read_settings, with_settings
from .output import Commands, say

_DAY_SECONDS = 86_400
_REPLICAS = 3  # with fewer, a majority does not survive the loss of one


@click.group(cls=Commands)
def stream() -> None:
    """Create or check a replicated log (setting journal)."""


@stream.command()
@with_settings("journal", "nats_credentials", "sessions_max", "window_records", "delete_guard_seconds")
@click.option(
    "--replicas",
    type=click.IntRange(1, 5),
    default=_REPLICAS,
    show_default=True,
    help="Servers that each keep a copy.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(1, 3650),
    default=7,
    show_default=True,
    help="Older messages are removed; a daemon that was away longer needs a backup of another one.",
)
@click.option(
    "--keep-bytes",
    type=click.IntRange(0),
    default=0,
    help="Beyond it the oldest messages are removed, too. Default: no limit.",
)
def create(sources: Sources, replicas: int, keep_days: int, keep_bytes: int) -> None:
    """Create the stream that --journal names.

    It is empty. Its settings count for all daemons, and never change.

    The servers must sync always (jetstream { sync_interval: always }): else they confirm what a power cut
    takes. They don't say whether they do; their monitoring does (/varz, sync_always).
    """
    with exit_status():
        settings = read_settings(sources)
        admin = _admin()
        new = admin.NewStream(
            replicas=replicas,
            age_seconds=keep_days * _DAY_SECONDS,
            bytes_max=keep_bytes,
            sessions_max=settings.sessions_max,
            remembered_records=max(settings.window_records, settings.batch_items_max),
            guard_seconds=settings.delete_guard_seconds,
        )
        found = admin.create(_address(admin, settings), new)
        say(f"created, for the store {found.store.hex()}, with {replicas} replicas")


@stream.command()
@with_settings("journal", "nats_credentials")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(sources: Sources, *, as_json: bool) -> None:
    """Check that the stream suits a journal.

    It is the one that --journal names. Nothing is changed.
    """
    with exit_status():
        settings = read_settings(sources)
        admin = _admin()
        found = admin.describe(_address(admin, settings))
        facts = {
            "store": found.store.hex(),
            "stream": found.stream.hex(),
            "first": found.first,
            "last": found.last,
            "replicas": found.replicas,
            "messageBytesMax": found.message_bytes_max,
            "sessionsMax": found.sessions_max,
        }
        if as_json:
            say(json.dumps(facts))
            return
        for name, value in facts.items():
            say(f"{name}: {value}")
        if found.replicas < _REPLICAS:
            say(f"with fewer than {_REPLICAS} replicas, the loss of one machine stops it")


def _address(admin: Any, settings: Settings) -> Any:
    if not settings.journal:
        raise ConfigError("name the stream: --journal nats://HOST,…/STREAM")
    return admin.parse_address(settings.journal, settings.nats_credentials)


def _admin() -> Any:
    """The library's part, which is an extra."""
    from perstack_stored.replication.setup import load_nats_admin  # noqa: PLC0415

    return load_nats_admin()
