"""Start and stop of the daemon: what must be ready before the first request, and the order of the stop."""

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator

import structlog
import zmq

from perstack_stored import __version__
from perstack_stored.access.peers import Peers
from perstack_stored.access.rate_limits import RateLimiter
from perstack_stored.access.rules import curve_key_of, rules_of
from perstack_stored.config.settings import LOG_LEVELS, Settings
from perstack_stored.config.sources import Sources, reloaded
from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import (
    STORED_NAME,
    DataDir,
    FileSystemFeatures,
    TreeModes,
    open_folders,
    set_up,
)
from perstack_stored.datadir.lock import DataDirLock
from perstack_stored.datadir.pending_repair import refuse_unfinished
from perstack_stored.datadir.permissions import tighten
from perstack_stored.datadir.probe import probe
from perstack_stored.errors import ConfigError, StartFailedError, StoredError, start_error
from perstack_stored.journal.sessions import Sessions
from perstack_stored.journal.writer import JournalWriter
from perstack_stored.mirror.extra import require_library
from perstack_stored.observe import log
from perstack_stored.observe.health import Health
from perstack_stored.observe.systemd import Notifier
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.read.executor import ReadExecutor, ReadLimits
from perstack_stored.replication.setup import Replication, replication_of
from perstack_stored.startup import import_at_first_start, make_sessions, open_journal
from perstack_stored.transport import binding
from perstack_stored.transport.endpoints import Endpoints
from perstack_stored.transport.socket_activation import inherited_listeners
from perstack_stored.transport.tcp import TcpTransport
from perstack_stored.transport.wakeup import WakeupPipe
from perstack_stored.tree import left_out
from perstack_stored.tree.options import umask_for

from .assembly import assemble
from .children import Children
from .copying import open_copying
from .loop import Server
from .parts import NoMirror, ServerParts
from .retention import NoRetention, Retention

_STOP_MARGIN_SECONDS = 5
_OWN_DESCRIPTORS = 256  # at most: segments that readers keep open, metrics, workers

_log = structlog.get_logger()


def allow_descriptors() -> None:
    """Raise the limit of open files to its maximum: each connection takes one descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def room_for_connections(settings: Settings) -> int:
    """Return the maximum of connections that leaves enough descriptors for the daemon's own files."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return settings.connections_max
    return max(1, min(settings.connections_max, most - min(_OWN_DESCRIPTORS, most // 2)))


@contextlib.contextmanager
def _naming(sentence: str) -> Iterator[None]:
    """Turn errors of the system at the start into one sentence.

    Raises:
        ConfigError: the path or its permissions are wrong; the operator must correct them.
        StartFailedError: the disk fails or is full, or the system lacks descriptors or memory.
    """
    try:
        yield
    except (OSError, zmq.ZMQError) as error:
        raise start_error(sentence, error) from error
    except RuntimeError as error:
        if "new thread" not in str(error):  # Python has no error of its own for a lack of threads
            raise
        raise StartFailedError(f"{sentence}: {error}") from error


def await_whole_tree(server: Server, datadir: DataDir, journal: JournalWriter) -> None:
    """Let the server be ready only when no file of the tree is torn or missing after an unclean stop."""
    cursor = left_out.load(datadir.files, datadir.folders.stored, journal.store).cursor
    if journal.mark.position and not cursor.clean:
        server.await_tree(min(journal.mark.position, cursor.written_max))


def _start_metrics(address: str, server: Server, health: Health) -> None:
    """Serve metrics. The library is imported here, because most daemons run without and start sooner."""
    from perstack_stored.observe.http import MetricsServer  # noqa: PLC0415
    from perstack_stored.observe.prometheus import Metrics  # noqa: PLC0415

    MetricsServer(address, Metrics(server.metrics_source()), health).start()


class Daemon:
    """Owns all parts of the process, and starts and stops them in order."""

    def __init__(self, sources: Sources, notifier: Notifier) -> None:
        self._sources = sources
        self._config = sources.read()
        settings = self._settings = self._config.settings
        self._log_json = settings.log_format == "json" or (
            settings.log_format == "auto" and not sys.stderr.isatty()
        )
        log.configure(json=self._log_json, level=settings.log_level)
        self._base = self._config.base
        # Inherited sockets belong to the service manager: the daemon does not remove their paths.
        self._inherited = inherited_listeners()
        own = self._config.endpoints if settings.bind or not self._inherited else ()
        self._endpoints = tuple(dict.fromkeys([*self._inherited, *own]))
        self._notifier = notifier
        self._curve = curve_key_of(settings)
        if settings.mirror or settings.follow_mirror:
            require_library()
        self._rules = rules_of(settings)
        self._ways = FileSystemFeatures()
        self._replication: Replication | None = None
        self._is_ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            StoredError: the daemon can't start, or the journal failed.
        """
        if not sys.platform.startswith("linux"):
            raise ConfigError("the daemon runs on Linux only; clients run anywhere")
        started = time.monotonic()
        # The watchdog's SIGABRT logs where the loop hung. The kernel gives the signal to the main
        # thread. The frames of other threads change while they are read: SIGSEGV was seen.
        faulthandler.enable(all_threads=False)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop handles it
        allow_descriptors()
        settings = self._settings
        modes = TreeModes(settings.file_mode, settings.folder_mode)
        umask_for(modes)
        files = FileSystem()
        replication = replication_of(settings, self._notifier.working)
        sessions = make_sessions(settings) if replication is None else replication.sessions()
        with _naming(f"can't use {self._base} as a base"):
            set_up(self._base, settings.folder_mode)
            os.umask(0o077)  # from here on files are the daemon's alone; the tree worker sets its own
            folders = open_folders(files, self._base)
            datadir = DataDir(self._base, files, folders)
            tighten(folders.stored, os.path.join(self._base, STORED_NAME))
            lock = DataDirLock(folders.stored)
            lock.say(role="daemon", endpoints=list(self._endpoints))
            refuse_unfinished(files, folders.stored)
            self._ways = probe(files, folders, self._base)
            history = None if replication is None else replication.history
            journal = open_journal(datadir, sessions, settings, self._notifier.working, history)
            if replication is not None:
                replication.refuse_lost(
                    sessions.log, lambda: self._notifier.working("waiting for the log's servers")
                )
            import_at_first_start(datadir, journal, self._notifier.working)
        self._replication = replication
        self._serve(datadir, journal, sessions, lock, started)
        lock.release()
        _log.info("stopped", position=journal.mark.position)

    def _serve(
        self,
        datadir: DataDir,
        journal: JournalWriter,
        sessions: Sessions,
        lock: DataDirLock,
        started: float,
    ) -> None:
        settings = self._settings
        children = Children(self._base, settings, self._log_json, self._ways)
        projections = children.projections(journal.store, lock.fd)
        with _naming("can't start"):
            wakeup = WakeupPipe()
            peers = self._peers = Peers(
                self._rules, RateLimiter(settings.rate_records_per_second, settings.rate_bytes_per_second)
            )
            limits = ReadLimits(
                answer_bytes=settings.answer_bytes,
                open_max=settings.open_reads_max,
                open_bytes_max=settings.open_reads_bytes_max,
                keep_seconds=settings.read_seconds,
                waits_max=settings.follows_max,
                listings_bytes=settings.listings_bytes_max,
            )
            reads = ReadExecutor(datadir, journal.epochs, limits, wakeup.wake, peers.is_here)
            keeper = children.keeper(lock.fd, reads.drop_replaced, journal.offer_spare)
            mirror = children.mirror(of_tree=False) if settings.mirrors_journal else NoMirror()
            tree_mirror = children.mirror(of_tree=True) if settings.mirrors_tree else NoMirror()
            copying = open_copying(datadir, settings, journal, sessions, wakeup.wake)
            endpoints = Endpoints(peers, settings, room_for_connections(settings))
            tcp = self._tcp = TcpTransport(self._rules, peers, settings) if self._serves_tcp() else None
            server = assemble(
                ServerParts(
                    base=self._base,
                    journal=journal,
                    sessions=sessions,
                    peers=peers,
                    endpoints=endpoints,
                    reads=reads,
                    projections=projections,
                    wakeup=wakeup,
                    settings=settings,
                    read_settings=self._reread_settings,
                    notifier=self._notifier,
                    keeper=keeper,
                    retention=NoRetention()
                    if copying.is_on
                    else Retention(datadir, settings, lambda: journal.clock.aged_ms(journal.clock.now_ms())),
                    copying=copying,
                    mirror=mirror,
                    replication=self._replication,
                    tree_mirror=tree_mirror,
                )
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        signal.signal(signal.SIGHUP, lambda *_: server.reload())
        health = Health(server.counters, lambda: projections[0].fault)
        try:
            with _naming("can't start"):
                if settings.metrics_bind:
                    _start_metrics(settings.metrics_bind, server, health)
                projections[0].start()
                await_whole_tree(server, datadir, journal)
                self._open(endpoints, tcp)
            health.serving = True
            copying.start()
            server.run(lambda: self._tell_ready(journal.mark.position, started))
            health.serving = False
            _log.info("stopping")
            self._notifier.stopping(4 * self._settings.stop_seconds + _STOP_MARGIN_SECONDS)
            keeper.stop()
            copying.stop()
            mark = journal.mark
            mirror.follow(mark)  # it ships the rest while the others stop
            self._stop(journal, reads, projections, endpoints, tcp)
            mirror.finish(mark, settings.stop_seconds)
            tree_mirror.finish(projections[0].place or mark, settings.stop_seconds)
        finally:
            keeper.stop()
            mirror.stop()
            tree_mirror.stop()
            copying.stop()
            for projection in projections:
                projection.stop()
            if tcp is not None:
                tcp.stop()

    def _tell_ready(self, position: int, started: float) -> None:
        _log.info(
            "ready",
            endpoints=list(self._endpoints),
            base=self._base,
            position=position,
            version=__version__,
            seconds=round(time.monotonic() - started, 3),
        )
        self._is_ready = True
        self._notifier.ready()

    def _serves_tcp(self) -> bool:
        return any(endpoint.startswith("tcp://") for endpoint in self._endpoints)

    def _open(self, endpoints: Endpoints, tcp: TcpTransport | None) -> None:
        """Listen at all endpoints.

        Raises:
            ConfigError: an endpoint can't be bound.
        """
        settings = self._settings
        for endpoint in self._endpoints:
            if endpoint.startswith("ipc://"):
                path = endpoint.removeprefix("ipc://")
                listener = self._inherited.get(endpoint) or binding.listen_ipc(path, settings.socket_mode)
                endpoints.serve_ipc(listener)
            elif tcp is not None and endpoint.startswith("tcp://"):
                insecure = settings.insecure_tcp
                binding.bind_tcp(tcp.socket, endpoint, curve=self._curve, insecure_tcp=insecure)
            else:
                raise ConfigError(f"{endpoint}: only ipc:// and tcp:// can be bound")
        if tcp is not None:
            endpoints.serve_tcp(tcp)

    def _reread_settings(self) -> Settings:
        """Read the settings again and return those in force: the old ones if the new ones are invalid."""
        if not self._is_ready:
            return self._apply_reloaded()
        self._notifier.reloading()
        try:
            return self._apply_reloaded()
        finally:
            self._notifier.ready()

    def _apply_reloaded(self) -> Settings:
        try:
            config, taken, left = reloaded(self._config, self._sources.read())
            rules = rules_of(config.settings)
        except StoredError as error:
            # The old rules stay: they give no access that they did not give before.
            _log.error("reload_failed", reason=str(error))
            return self._settings
        settings = config.settings
        # Logged at the more verbose of both levels, so that a quieter log ends with the reason.
        log.set_level(min(settings.log_level, self._settings.log_level, key=LOG_LEVELS.index))
        access = rules != self._rules
        _log.info(
            "reloaded", file=self._sources.path, changed=taken, access_changed=access, needs_restart=left
        )
        log.set_level(settings.log_level)
        self._peers.apply_rules(rules)
        self._peers.rates.apply_settings(settings.rate_records_per_second, settings.rate_bytes_per_second)
        if self._tcp is not None:
            self._tcp.gate.rules = rules
        self._config, self._settings, self._rules = config, settings, rules
        return settings

    def _stop(
        self,
        journal: JournalWriter,
        reads: ReadExecutor,
        projections: tuple[ProjectionProcess, ProjectionProcess],
        endpoints: Endpoints,
        tcp: TcpTransport | None,
    ) -> None:
        """Stop in order: last answers are sent, the journal closes, the workers finish their last slice."""
        endpoints.close()
        if tcp is not None:
            tcp.close()
        for endpoint in self._endpoints:
            if endpoint not in self._inherited:
                binding.remove_socket(endpoint)
        journal.close()
        reads.stop()
        index, tree = projections
        index.send(journal.mark)
        index.finish()
        index.wait(self._settings.stop_seconds)
        if index.place == journal.mark:  # see ProjectionCoordinator.follow
            if not tree.running:
                tree.start()  # it was stopped before it had caught up
            tree.send(index.place)
        else:
            _log.warning(
                "index_unfinished", reason="it did not end in time; the next start goes on from its cursor"
            )
        tree.finish()
        if not tree.wait(self._settings.stop_seconds):
            _log.warning(
                "tree_unfinished", reason="it did not end in time; the next start goes on from its cursor"
            )
