"""Output and exit statuses of the offline commands. Other modules do the work."""

import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from perstack_storage.protocol import UNSAFE, escaped
from perstack_stored.config.settings import Settings
from perstack_stored.errors import DamageError, StoredError
from perstack_stored.offline.check.check import check as check_base
from perstack_stored.offline.dump import Wanted
from perstack_stored.offline.dump import dump as dump_base
from perstack_stored.offline.findings import Finding, Report
from perstack_stored.offline.locked import clear_bar, locked_datadir
from perstack_stored.offline.rebuild import Rebuilt
from perstack_stored.offline.rebuild import rebuild as rebuild_base
from perstack_stored.offline.rebuild_child import in_child
from perstack_stored.offline.repair.repair import FINDINGS, NOTES
from perstack_stored.offline.repair.repair import repair as repair_base

from .output import complain, say

# Maximum of lines of one name; beyond it only their count is printed, except with --json.
LINES_OF_A_NAME_MAX = 1000
STATUS_FINDINGS = 1
STATUS_UNUSABLE = 2


@contextmanager
def exit_status() -> Iterator[None]:
    """Turn an error into a sentence and an exit status: 1 for a damaged journal, 2 for an unusable base."""
    try:
        yield
    except BrokenPipeError:
        # The reader of the output has closed it. The interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DamageError as error:
        _fail(str(error), STATUS_FINDINGS)
    except (StoredError, OSError, sqlite3.Error) as error:
        _fail(str(error), STATUS_UNUSABLE)


def _fail(reason: str, status: int) -> None:
    clear_bar()
    complain(reason)
    sys.exit(status)


# --- check -----------------------------------------------------------------------------------------


def check(base_path: str | None, *, as_json: bool) -> None:
    """Check a base and print what is found."""
    with exit_status():
        report = Report(printer(as_json=as_json))
        with locked_datadir(base_path, "check", reads_only=True) as base:
            check_base(base, report)
        conclude(report, "compared", as_json=as_json)


def printer(*, as_json: bool) -> Callable[[Finding], None]:
    """Prints findings as they come: lines for people, or JSON."""
    return _show_json if as_json else _text_printer()


def conclude(report: Report, done: str, *, as_json: bool) -> None:
    """Print the end of a report, and exit with 1 if there are findings.

    Args:
        report: all that was found.
        done: what was done with what `report.compared` counts.
        as_json: as one line of JSON.
    """
    if as_json:
        summary = {"name": "summary", "findings": report.findings, "notes": report.notes, **report.compared}
        click.echo(json.dumps(summary))
    else:
        _sum_up(report, done)
    sys.stdout.flush()
    if report.findings:
        sys.exit(STATUS_FINDINGS)


def _show_json(finding: Finding) -> None:
    clear_bar()
    # Rows of a damaged index may have bytes.
    click.echo(json.dumps({"name": finding.name, "note": finding.is_note, **finding.facts}, default=str))


def _text_printer() -> Callable[[Finding], None]:
    shown: Counter[str] = Counter()

    def show(finding: Finding) -> None:
        shown[finding.name] += 1
        if shown[finding.name] > LINES_OF_A_NAME_MAX:
            return
        clear_bar()
        facts = " ".join(f"{name}={_plain(value)}" for name, value in finding.facts.items())
        say(" ".join(filter(None, ("note" if finding.is_note else "finding", finding.name, facts))))

    return show


def _plain(value: object) -> str:
    """A fact on one line: quoted as JSON where it would not be read as one word."""
    text = str(value)
    if UNSAFE.search(text) or not text.isprintable():
        return json.dumps(text)
    return text if text and not set(text) & set(' "\\=') else json.dumps(text, ensure_ascii=False)


def _sum_up(report: Report, done: str) -> None:
    for name, count in report.counts.items():
        more = f", of which {LINES_OF_A_NAME_MAX} are shown" if count > LINES_OF_A_NAME_MAX else ""
        click.echo(f"{name}: {count}{more}; {report.meaning(name)}")
    compared = ", ".join(f"{count} {what}" for what, count in report.compared.items()) or "nothing"
    result = f"{report.findings} findings" if report.findings else "clean"
    click.echo(f"{result}; {done}: {compared}")


# --- rebuild ---------------------------------------------------------------------------------------


def rebuild(settings: Settings, *, index_too: bool, tree_too: bool, retries: bool) -> None:
    """Rebuild the projections of a base and print what was done."""
    with exit_status():
        with locked_datadir(settings.base_path or None, "rebuild", reads_only=False) as base:
            done = rebuild_base(
                base, settings, index_too=index_too, tree_too=tree_too, retries=retries, do=in_child
            )
        _tell_recovery(done)
        for path, reason in done.blocked:
            say(f"can't be written: {_plain(path)}: {reason}", err=True)
        for one in done.passed_over:
            facts = f"position={one.position} kind={one.kind or '?'} file={_plain(one.file)}"
            say(f"passed over: {facts}; `rebuild --retry-blocked` tries it again", err=True)
        what = " and ".join(name for name, too in (("index", index_too), ("tree", tree_too)) if too)
        click.echo(f"rebuilt {what} from {done.position} records")
        if done.blocked or done.passed_over:
            sys.exit(STATUS_FINDINGS)


def _tell_recovery(done: Rebuilt) -> None:
    kept = sum(len(entry.records) for entry in done.recovered.kept)
    torn = done.recovered.torn_bytes
    if kept or torn:
        click.echo(
            f"the last stop was unclean: {kept} records were secured, {torn} bytes of a torn write left out"
        )


# --- repair ----------------------------------------------------------------------------------------


def repair(base_path: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Repair the journal of a base, and print what was found, restored and lost."""
    with exit_status():
        report = Report(printer(as_json=as_json), FINDINGS, NOTES)
        with locked_datadir(base_path, "repair", reads_only=dry_run, repairs=True) as base:
            done = repair_base(base, report, dry_run=dry_run)
        if done is not None and not as_json:
            say(f"rewritten: {', '.join(done.segments)}; the old ones are kept in .stored/{done.kept_in}")
            click.echo(
                "the next start builds the index; `perstack-stored check` reports what in the tree differs"
            )
        conclude(report, "would be then" if dry_run else "now", as_json=as_json)


# --- dump ------------------------------------------------------------------------------------------


def dump(base_path: str | None, wanted: Wanted) -> None:
    """Print the records of a base."""
    with exit_status(), locked_datadir(base_path, "dump", reads_only=True) as base:
        out = sys.stdout.buffer
        shown = sys.stdout.isatty()
        for line in dump_base(base, wanted):
            # To a terminal, what it would act on stands escaped, which is the same value.
            out.write(f"{escaped(line[:-1].decode())}\n".encode() if shown else line)
        out.flush()
