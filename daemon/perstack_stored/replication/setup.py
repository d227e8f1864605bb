"""What a daemon needs to know before it opens a replicated journal: the stream, and that it may join it."""

import contextlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import structlog

from perstack_stored.config.settings import Settings
from perstack_stored.errors import ConfigError, StartFailedError
from perstack_stored.journal.deletion_guards import DeletionGuards
from perstack_stored.journal.log_place import LogPlace
from perstack_stored.journal.options import History
from perstack_stored.journal.replicated_sessions import ReplicatedSessions
from perstack_stored.process.interpreter import install_command

from .stream import ALL_SERVERS_LOST, Description, Stream

_REQUIREMENT = "nats-py>=2.16,<3"
_START_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_BEHIND_SECONDS = 30.0  # for a stream to come to what this daemon has applied

_log = structlog.get_logger()


class Replication(NamedTuple):
    """A stream that this daemon shares.

    Attributes:
        description: of the stream, at the start.
        describe: describes it again.
        open: opens it after a sequence; the second argument is called from a thread when there is news.
    """

    description: Description
    describe: Callable[[], Description]
    open: Callable[[int, Callable[[], None]], Stream]

    @property
    def history(self) -> History:
        """The history that its journal shares."""
        return History(self.description.store, self.description.stream)

    def sessions(self) -> ReplicatedSessions:
        """Empty sessions with the bounds that all daemons of the stream have."""
        found = self.description
        return ReplicatedSessions(
            sessions_max=found.sessions_max,
            remembered_records_max=found.remembered_records,
            guards=DeletionGuards(guard_seconds=found.guard_seconds),
        )

    def refuse_lost(self, place: LogPlace, working: Callable[[], None]) -> None:
        """Refuse a stream that lacks what this daemon has applied, or what comes next.

        Args:
            place: what it has applied.
            working: called while the servers are asked again.

        Raises:
            ConfigError: the message says what to do.
        """
        found = self._not_before(place, working)
        first, last = found.first, found.last
        if place.sequence > last:
            raise ConfigError(
                f"this base has applied message {place.sequence}, and the stream ends at {last}: it is"
                " another one, or was restored from an older state. Bring back servers that have more of it."
                f" If there are none: {ALL_SERVERS_LOST}"
            )
        if last and place.sequence + 1 < first:
            raise ConfigError(
                f"this base has applied message {place.sequence}, and the stream begins at {first}: restore"
                " a backup of another daemon that has applied more, into an empty base"
            )

    def _not_before(self, place: LogPlace, working: Callable[[], None]) -> Description:
        """Describe the stream; if it ends before a place, ask again for a time.

        A server that was cut off, or is being restored, may speak for the stream with what it has.
        """
        found, until = self.description, time.monotonic() + _BEHIND_SECONDS
        while found.last < place.sequence and time.monotonic() < until:
            _log.warning("stream_behind", last=found.last, applied=place.sequence)
            working()
            time.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(StartFailedError):  # the loop ends by time
                found = self.describe()
        return found


def load_nats_admin() -> ModuleType:
    """Import what needs the library of NATS, which is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from . import nats_admin  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise ConfigError(
            "a replicated journal needs the package nats-py: install the extra nats, or type"
            f" {install_command(_REQUIREMENT)}"
        ) from None
    return nats_admin


def replication_of(settings: Settings, working: Callable[[str], None]) -> Replication | None:
    """Find the stream of the settings; None if the journal is this machine's alone.

    Raises:
        ConfigError: settings or stream are not usable.
        StartFailedError: no server can be reached.
    """
    if not settings.journal:
        return None
    if settings.follow_mirror:
        raise ConfigError("journal and follow-mirror can't be used together: a copy takes no stores")
    nats_admin = load_nats_admin()
    from . import nats_stream  # noqa: PLC0415 - as above

    address = nats_admin.parse_address(settings.journal, settings.nats_credentials)
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            description = nats_admin.describe(address)
            break
        except StartFailedError as error:
            # Machines of a cluster start together, and elect their leaders after that.
            if time.monotonic() > until:
                raise
            _log.warning("stream_awaited", reason=str(error))
            working("waiting for the servers of the stream")
            time.sleep(_PAUSE_SECONDS)
    return Replication(
        description,
        lambda: nats_admin.describe(address),
        lambda after, notify: nats_stream.NatsStream(address, after, notify),
    )
