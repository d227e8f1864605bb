"""Builds a server from its parts; the daemon and the simulation use it alike."""

from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.waiting import ReadsAwaitingIndex
from perstack_stored.store.commit import Committer
from perstack_stored.store.group_commit import GroupCommit
from perstack_stored.store.large_values import LargeValueQueue

from .dispatch import RequestDispatcher
from .loop import Server
from .parts import ServerParts
from .projections import ProjectionCoordinator
from .status import StatusReporter


def assemble(parts: ServerParts) -> Server:
    """Build a server. It starts no thread, and serves nothing before `Server.run`."""
    settings, peers = parts.settings, parts.peers
    multipart = MultipartAssembler(
        value_bytes_max=settings.value_bytes_max,
        budget_bytes=settings.parts_bytes_max,
        silence_seconds=settings.parts_seconds,
    )
    group_commit = GroupCommit(
        Committer(parts.journal, parts.sessions),
        LargeValueQueue(parts.wakeup.wake, peers.client),
        parts.counters,
        settings,
        parts.endpoints,
        parts.wakeup.wake,
    )
    waiting = ReadsAwaitingIndex(parts.reads)
    peers.on_leaving(multipart.forget)
    peers.on_leaving(parts.reads.left)
    status = StatusReporter(parts, multipart, group_commit, waiting)
    projections = ProjectionCoordinator(parts, status)
    dispatcher = RequestDispatcher(parts, multipart, group_commit, waiting, projections, status)
    return Server(parts, dispatcher, group_commit, waiting, projections, status)
