"""Builds a server from its parts; the daemon and the simulation use it alike."""

from perstack_stored.journal.replicated_sessions import ReplicatedSessions
from perstack_stored.protocol.multipart import MultipartAssembler
from perstack_stored.read.waiting import ReadsAwaitingIndex
from perstack_stored.replication.apply import LogCommitter
from perstack_stored.replication.group_commit import ReplicatedGroupCommit
from perstack_stored.store.commit import Committer
from perstack_stored.store.group_commit import GroupCommit, LoopContext
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
    group_commit = _group_commit(parts)
    waiting = ReadsAwaitingIndex(parts.reads)
    peers.on_leaving(multipart.forget)
    peers.on_leaving(parts.reads.left)
    status = StatusReporter(parts, multipart, group_commit, waiting)
    projections = ProjectionCoordinator(parts, status)
    dispatcher = RequestDispatcher(parts, multipart, group_commit, waiting, projections, status)
    return Server(parts, dispatcher, group_commit, waiting, projections, status)


def _group_commit(parts: ServerParts) -> GroupCommit:
    """The write path: into this machine's journal, or through a log that daemons share."""
    large_values = LargeValueQueue(parts.wakeup.wake, parts.peers.client)
    context = LoopContext(parts.counters, parts.settings, parts.endpoints, parts.wakeup.wake)
    if parts.replication is None:
        return GroupCommit(Committer(parts.journal, parts.sessions), large_values, context)
    assert isinstance(parts.sessions, ReplicatedSessions)
    return ReplicatedGroupCommit(
        LogCommitter(parts.journal, parts.sessions),
        large_values,
        context,
        parts.replication.open(parts.sessions.log.sequence, parts.wakeup.wake),
        parts.replication.description.message_bytes_max,
    )
