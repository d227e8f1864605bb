"""The child processes of the daemon, each with its configuration; none is started here."""

import os
from collections.abc import Callable

import msgspec

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import FileSystemFeatures
from perstack_stored.keeper.channel import KeeperConfig
from perstack_stored.keeper.process import KeeperProcess
from perstack_stored.mirror.channel import MirrorConfig
from perstack_stored.mirror.process import MirrorProcess
from perstack_stored.projection.process import ProjectionProcess
from perstack_stored.projection.worker_config import WorkerConfig


class Children:
    """Makes the supervisors of the processes of one base."""

    def __init__(self, base: str, settings: Settings, log_json: bool, ways: FileSystemFeatures) -> None:
        """Keep what the configurations have in common.

        Args:
            base: path of the base.
            settings: those of the start.
            log_json: the processes log as JSON.
            ways: what the file system of the base can do.
        """
        self._base = base
        self._settings = settings
        self._log_json = log_json
        self._ways = ways

    def projections(self, store: bytes, lock_fd: int) -> tuple[ProjectionProcess, ProjectionProcess]:
        """The workers of index and tree.

        Args:
            store: id of the journal.
            lock_fd: the lock of the base, which each child inherits.
        """
        config = WorkerConfig(
            base=self._base,
            store=store.hex(),
            file_mode=self._settings.file_mode,
            folder_mode=self._settings.folder_mode,
            nice=0,
            log_json=self._log_json,
            log_level=self._settings.log_level,
            parent=os.getpid(),
            silence_seconds=self._settings.worker_silence_seconds,
            unnamed=self._ways.unnamed,
            exchange=self._ways.exchange,
        )
        tree = msgspec.structs.replace(
            config,
            nice=self._settings.tree_nice,
            leave_out=self._settings.tree_leave_out,
            keep_days=self._settings.tree_keep_days,
            sweep_seconds=self._settings.retain_sweep_seconds,
        )
        return ProjectionProcess("index", config, lock_fd), ProjectionProcess("tree", tree, lock_fd)

    def keeper(
        self, lock_fd: int, on_packed: Callable[[], None], on_spare: Callable[[], None]
    ) -> KeeperProcess:
        """The keeper; for the arguments see `KeeperProcess`."""
        settings = self._settings
        config = KeeperConfig(
            base=self._base,
            parent=os.getpid(),
            log_json=self._log_json,
            log_level=settings.log_level,
            bytes_per_second=settings.pack_bytes_per_second,
            segment_bytes=settings.segment_bytes,
            exchange=self._ways.exchange,
            packs=settings.pack,
        )
        return KeeperProcess(config, lock_fd, settings.worker_silence_seconds, on_packed, on_spare)

    def mirror(self, *, of_tree: bool) -> MirrorProcess:
        """The mirror of the journal, or that of the tree."""
        settings = self._settings
        return MirrorProcess(
            MirrorConfig(
                base=self._base,
                parent=os.getpid(),
                log_json=self._log_json,
                log_level=settings.log_level,
                url=settings.mirror,
                is_of_tree=of_tree,
                endpoint=settings.mirror_endpoint,
                credentials=settings.mirror_credentials,
            )
        )
