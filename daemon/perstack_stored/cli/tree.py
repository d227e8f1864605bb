"""Output and exit statuses of `import`, `audit`, `tree` and `exec`. Other modules do the work."""

import os
import sys
from collections.abc import Sequence

from perstack_storage.protocol import EndpointError, resolve_base
from perstack_stored.config.settings import Settings
from perstack_stored.config.sources import Config
from perstack_stored.datadir.layout import set_up
from perstack_stored.errors import StartFailedError, StoredError
from perstack_stored.launcher.run import execute
from perstack_stored.observe import log
from perstack_stored.offline import import_tree as import_later
from perstack_stored.offline.audit import audit as audit_module
from perstack_stored.offline.findings import Report
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.offline.write_back import write_job

from .offline import STATUS_FINDINGS, conclude, exit_status, printer
from .output import complain, say

EXEC_FAILED_STATUS = 125  # as env, timeout and docker have it: what was asked to run never ran


def import_tree(settings: Settings, source: str, *, force: bool, as_json: bool) -> None:
    """Import a tree and print what was skipped."""
    log.configure(json=as_json, level="warning")
    with exit_status():
        report = Report(printer(as_json=as_json), import_later.FINDINGS, import_later.NOTES)
        source_dir = import_later.open_source(source)
        base_path = settings.base_path or None
        set_up(resolve_base(base_path), settings.folder_mode)
        with locked_datadir(base_path, "import", reads_only=False) as base:
            import_later.import_later(base, settings, source_dir, report, force=force)
        os.close(source_dir)
        conclude(report, "of the tree", as_json=as_json)


def audit(tree: str, *, as_json: bool) -> None:
    """Look through a tree and print what is found."""
    with exit_status():
        report = Report(printer(as_json=as_json), audit_module.FINDINGS, audit_module.NOTES)
        tree_dir = import_later.open_source(tree)
        audit_module.audit(tree_dir, report)
        os.close(tree_dir)
        conclude(report, "read", as_json=as_json)


def write_back(settings: Settings, job: str) -> None:
    """Write a job back into the tree."""
    log.configure(json=False, level="warning")
    with exit_status():
        try:
            by_daemon = write_job(resolve_base(settings.base_path or None), settings, job)
        except StartFailedError as error:
            complain(error)
            sys.exit(STATUS_FINDINGS)
        say(f"the files of the job are in the tree{', written by its daemon' if by_daemon else ''}")


def run(config: Config, command: Sequence[str], drain_seconds: float) -> None:
    """Run a command with a daemon beside it, and exit with its status."""
    try:
        base, endpoint = config.base, config.endpoints[0]
        status = execute(base, endpoint, command, config.settings, drain_seconds=drain_seconds, say=complain)
    except (StoredError, EndpointError, OSError) as error:
        complain(error)
        status = EXEC_FAILED_STATUS
    sys.exit(status)
