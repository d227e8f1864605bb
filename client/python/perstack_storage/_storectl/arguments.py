"""The command line of `perstack-storectl`: commands, options, and what they mean together. No I/O."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from perstack_storage import __version__
from perstack_storage._core.escape import escaped
from perstack_storage._otlp.delivery import checked_url
from perstack_storage._storectl import (
    cursors,
    deleting,
    diff,
    exporting,
    following,
    ids,
    inspecting,
    listing,
    log,
    overview,
    storing,
    style,
)
from perstack_storage._storectl.call import PROG, Command
from perstack_storage._storectl.completion import SHELLS, commands_of
from perstack_storage._storectl.selection import steps
from perstack_storage._storectl.storing import KINDS
from perstack_storage._storectl.values import as_of, at_least, cursor, moment, port, seconds
from perstack_storage._wire.endpoint import BASE_VARIABLE, ENDPOINT_VARIABLE, PERSTACK_BASE_VARIABLE

TIMEOUT_DEFAULT_S = 10.0
PORT_MAX = 65_535
_COMMON = {
    "endpoint": None,
    "base_path": None,
    "timeout": TIMEOUT_DEFAULT_S,
    "json": False,
    "show_secrets": False,
    "no_pager": False,
    "color": "auto",
}
_EPILOG = f"""\
The daemon is found by --endpoint, else {ENDPOINT_VARIABLE}, else by the base: --base-path, else
{BASE_VARIABLE}, {PERSTACK_BASE_VARIABLE}, else ./perstack. Options may stand before or after
the command. An id may be shortened to a prefix that no other id has. Where JOB is optional, the
default is the newest job.

exit status:
  0  done
  1  not found, or refused
  2  wrong usage
  3  no daemon answered
"""


def _common() -> argparse.ArgumentParser:
    """Options of every command; without defaults, or those of a command would undo what stands before it."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("common options")
    group.add_argument(
        "--endpoint",
        metavar="ENDPOINT",
        help="where the daemon serves, such as ipc:///run/stored.sock; several with commas",
    )
    group.add_argument("--base-path", metavar="DIR", help="the base of the daemon")
    group.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help=f"seconds to wait for an answer (default: {TIMEOUT_DEFAULT_S:g})",
    )
    group.add_argument("--json", action="store_true", help="print JSON, one value a line")
    group.add_argument(
        "--show-secrets", action="store_true", help="don't hide keys, tokens, headers and env in run settings"
    )
    group.add_argument("--no-pager", action="store_true", help="never print through $PAGER")
    group.add_argument(
        "--color",
        choices=style.CHOICES,
        metavar="WHEN",
        help="auto (default: on a terminal, unless NO_COLOR is set), always or never",
    )
    return common


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments, which may be the names of files of others."""

    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            known = list(map(str, action.choices or ()))
            hint = ids.did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"{error.message}{hint}") from None


class _Commands:
    """Adds commands to a parser."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        self._common = common
        self._subparsers = parser.add_subparsers(
            title="commands", dest="command", metavar="COMMAND", required=True
        )

    def add(self, name: str, run: Command | None, text: str, more: str = "") -> argparse.ArgumentParser:
        """Add a command with its help."""
        added = self._subparsers.add_parser(
            name, parents=[self._common], help=text, allow_abbrev=False,
            description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
        )  # fmt: skip
        added.set_defaults(handler=run)
        return added


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    common = _common()
    parser: argparse.ArgumentParser = _Parser(
        PROG,
        description="Look at what perstack-stored has stored, store, and follow.",
        epilog=_EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = _Commands(parser, common)
    commands.add("ping", listing.ping, "ask the daemon whether it answers")
    commands.add("stats", listing.stats, "print the daemon's counters", "See daemon/docs/stats.md.")
    _add_listings(commands)
    _add_views(commands)
    added = commands.add(
        "put", storing.put, "store values from standard input",
        "One JSON object, or one in each line. The positions are printed when all is on disk.",
    )  # fmt: skip
    added.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    _add_follow(commands.add(
        "follow", following.follow, "print every record as it is stored",
        "From the first record on, or as the options say. Ends with Ctrl-C, or as --limit and --idle say.",
    ))  # fmt: skip
    added = commands.add(
        "cursors", cursors.cursors, "list the named cursors of subscribers, which the daemon keeps",
        "Lag: how many positions the subscriber has not committed yet.",
    )  # fmt: skip
    added.add_argument("--delete", metavar="NAME", help="delete this cursor instead")
    _add_inspect(commands)
    _add_export(commands)
    added = _job(commands.add(
        "delete", deleting.delete, "delete a job, or one of its runs",
        "Says first what would go, in counts and bytes, and asks; elsewhere than on a terminal it needs"
        " --yes, and whole ids. No read shows it after that.",
    ))  # fmt: skip
    added.add_argument("--run", metavar="RUN", help="only this run; the job and its other runs stay")
    added.add_argument("--yes", action="store_true", help="don't ask")
    added.add_argument("--why", metavar="TEXT", help="a reason, which is kept with the deletion")
    added.add_argument("--wait-erased", action="store_true", help="return when its bytes are erased too")
    added = _job(commands.add(
        "redact", deleting.redact, "mask the secrets of a run setting for good",
        "Keys, tokens, headers and env become ***; the run stays. Whole ids are needed.",
    ))  # fmt: skip
    added.add_argument("run_id", metavar="RUN", help="id of the run")
    added.add_argument("--why", metavar="TEXT", help="a reason, which is kept with the redaction")
    added.add_argument("--wait-erased", action="store_true", help="return when the secrets' bytes are erased")
    added = commands.add(
        "completion", None, "print a script that completes commands, options and ids",
        f"bash and zsh: source <({PROG} completion bash); fish: {PROG} completion fish | source",
    )  # fmt: skip
    added.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    return parser


# --- the commands ------------------------------------------------------------------------------------


def _job(added: argparse.ArgumentParser, *, optional: bool = False) -> argparse.ArgumentParser:
    text = "id of the job (default: the newest)" if optional else "id of the job"
    added.add_argument("job_id", metavar="JOB", nargs="?" if optional else None, help=text)
    return added


def _paged(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    added.add_argument("--limit", type=at_least(1), metavar="N", help="at most N; all by default")
    added.add_argument(
        "--after",
        type=cursor,
        metavar="CURSOR",
        help="the next page: what the page before printed at its end",
    )
    return added


def _as_of(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    added.add_argument(
        "--as-of", type=as_of, metavar="WHEN",
        help="what it was at a position, or at a time: 15m, 2h, 1d (ago), or 2026-11-23T04:35",
    )  # fmt: skip
    return added


def _filtered(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    added.add_argument("--status", metavar="STATUS", help="only with this status")
    added.add_argument("--expert", metavar="KEY", help="only of this expert")
    since = "only those that began then or later: 15m, 2h, 1d (ago), or 2026-11-23T04:35"
    added.add_argument("--since", type=moment, metavar="TIME", help=since)
    added.add_argument("--until", type=moment, metavar="TIME", help="only those that began before")
    return added


def _add_listings(commands: _Commands) -> None:
    _filtered(_paged(commands.add(
        "jobs", listing.jobs, "list the jobs, newest first",
        "Each job of which anything is stored; tokens as the job says, else its last checkpoint.",
    )))  # fmt: skip
    _as_of(_job(commands.add("job", listing.job, "print a job")))
    added = _filtered(_paged(commands.add("runs", listing.all_runs, "list the runs, newest first")))
    added.add_argument("job_id", metavar="JOB", nargs="?", help="only runs of this job")
    _paged(commands.add("settings", listing.settings, "list the run settings, the one updated last first"))
    added = commands.add("checkpoints", listing.checkpoints, "list the checkpoints of a job by step")
    _as_of(_job(_paged(added)))
    added = _as_of(_job(commands.add("checkpoint", listing.checkpoint, "print a checkpoint")))
    added.add_argument("checkpoint_id", metavar="CHECKPOINT", help="id of the checkpoint")
    added = _as_of(_paged(_job(commands.add(
        "events", listing.events, "list the events of a run",
        "By step, or with --contents by time; with --follow in the order stored, first those that are there.",
    ), optional=True)))  # fmt: skip
    added.add_argument("run_id", metavar="RUN", nargs="?", help="id of the run; a job's only run by default")
    added.add_argument("--contents", action="store_true", help="whole events, not time, step and type only")
    added.add_argument("--max-step", type=at_least(0), metavar="N", help="only events up to this step")
    added.add_argument("--follow", action="store_true", help="go on with those stored from now on")
    added.add_argument(
        "--idle", type=seconds, metavar="S", help="with --follow: end after S seconds without an event"
    )


def _add_views(commands: _Commands) -> None:
    added = _job(commands.add(
        "log", log.log, "print what happened in a job, line by line",
        "The events of all its runs by time; the deltas of a stream are one line. --errors, --tools,"
        " --delegations and --type select lines, and add up; --run, --step and --filter narrow them.",
    ), optional=True)  # fmt: skip
    added.add_argument("--run", metavar="RUN", help="only this run")
    added.add_argument("--errors", action="store_true", help="errors, retries, tools that failed")
    added.add_argument("--tools", action="store_true", help="tool calls and their results")
    added.add_argument("--delegations", action="store_true", help="delegations and their returns")
    added.add_argument("--type", action="append", metavar="TYPE", help="this type; may be repeated")
    added.add_argument("--step", type=steps, metavar="STEP", help="these steps: 5, >5, <=5 or 1-10")
    added.add_argument("--filter", metavar="TEXT", help="lines with this text; case does not count")
    added.add_argument(
        "--context", type=at_least(0), default=0, metavar="N", help="N lines before and after each as well"
    )
    added.add_argument("--last", type=at_least(1), metavar="N", help="the last N lines of these")
    added.add_argument("--summary", action="store_true", help="count them instead")
    added.add_argument(
        "--verbose", action="store_true", help="each delta of a stream, and texts that are not cut"
    )

    _job(commands.add(
        "tree", overview.tree, "print the runs of a job and their delegations",
        "A run that goes on after its delegates has an arrow. Tokens are what each run used itself.",
    ), optional=True)  # fmt: skip
    _job(commands.add(
        "usage", overview.usage, "print what a job used, by run, expert and model",
        "In tokens. A run that goes on for others begins with their sum: it counts with what it used itself.",
    ), optional=True)  # fmt: skip
    added = commands.add(
        "diff", diff.diff, "print what changed from one checkpoint to another",
        "Status, step, usage and other fields, and the messages that were added, changed or removed.",
    )  # fmt: skip
    added.add_argument("old_checkpoint", metavar="CHECKPOINT", help="id of a checkpoint, or JOB/ID")
    added.add_argument("new_checkpoint", metavar="CHECKPOINT", help="id of the one to compare it with")
    added.add_argument("--job", metavar="JOB", help="the job of both (default: the newest that has them)")


def _add_inspect(commands: _Commands) -> None:
    added = commands.add(
        "inspect", inspecting.inspect, "show jobs and runs in the browser, live",
        "Serves a page and a read-only gateway (HTTP, JSON, server-sent events) on loopback, and prints the"
        " address with its token. Ends with Ctrl-C. It needs perstack-stored[inspect].",
    )  # fmt: skip
    added.add_argument("--open", action="store_true", help="open it in a browser")
    added.add_argument(
        "--port",
        type=port,
        metavar="PORT",
        help="port on loopback (default: 7180, or a free one); 0: a free one",
    )
    added.add_argument(
        "--token-file",
        metavar="FILE",
        help="read the token from there; without it, a new one is made",
    )
    added.add_argument(
        "--allow-host", action="append", metavar="HOST",
        help="a name of this host behind a reverse proxy; may be repeated",
    )  # fmt: skip


def _add_export(commands: _Commands) -> None:
    added = commands.add(
        "export", exporting.run, "send runs as traces to a receiver of OpenTelemetry (OTLP)",
        "Each run, step and tool call is a span, sent when it has ended. It begins with the first record,"
        f" then waits for new ones. Headers, as for authorization: {exporting.HEADERS_VARIABLE}.",
    )  # fmt: skip
    added.add_argument(
        "--otlp",
        type=checked_url,
        required=True,
        metavar="URL",
        help="address of the receiver, with or without /v1/traces",
    )
    added.add_argument(
        "--content", action="store_true", help="send prompts, texts, arguments and results, too"
    )
    added.add_argument(
        "--state",
        metavar="FILE",
        help="keep the progress there, and go on with it; without it, from the beginning",
    )
    added.add_argument(
        "--new", action="store_true", help="with no progress to go on with: only what is stored from now on"
    )
    added.add_argument("--once", action="store_true", help="end at the last record that is stored now")
    added.add_argument(
        "--service", default="perstack", metavar="NAME", help="service.name (default: perstack)"
    )


def _add_follow(added: argparse.ArgumentParser) -> None:
    start = added.add_mutually_exclusive_group()
    start.add_argument(
        "--after", type=at_least(0), default=0, metavar="POSITION", help="only records after this position"
    )
    start.add_argument("--new", action="store_true", help="only what is stored from now on")
    start.add_argument(
        "--last", type=at_least(1), metavar="N", help="first the last N records, at most 10,000"
    )
    start.add_argument(
        "--since", type=moment, metavar="TIME",
        help="first those since then: 15m, 2h, 1d (ago), or 2026-11-23T04:35",
    )  # fmt: skip
    added.add_argument(
        "--store", metavar="STORE", help="the history that POSITION belongs to; end if it is another one"
    )
    added.add_argument(
        "--epoch",
        metavar="EPOCH",
        help="epoch of the record at POSITION, as --json printed it; end if the history has another",
    )
    added.add_argument(
        "--job", metavar="ID", help="only what belongs to this job; a whole id, as it may come later"
    )
    added.add_argument("--run", metavar="ID", help="with --job: only what belongs to this run")
    added.add_argument(
        "--type", action="append", metavar="TYPE", help="only events of this type; may be repeated"
    )
    added.add_argument(
        "--name", metavar="NAME", help="begin where the cursor of this name stands, if there is one"
    )
    added.add_argument(
        "--commit", action="store_true", help="with --name: move the cursor to the last record printed"
    )
    added.add_argument("--limit", type=at_least(1), metavar="N", help="end after N records")
    added.add_argument("--idle", type=seconds, metavar="S", help="end after S seconds without a record")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What was given; ends the program with status 2 where it is no use of the command."""
    given, unknown = parser.parse_known_args(arguments, argparse.Namespace(**_COMMON))
    if unknown:
        command = commands_of(parser)[given.command]
        options = [name for action in command._actions for name in action.option_strings]
        hint = ids.did_you_mean(unknown[0].partition("=")[0], options)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if not given.timeout > 0:
        parser.error("--timeout must be more than 0")
    if given.command == "events":
        if given.follow and given.after is not None:
            parser.error("--after has no place beside --follow")
        if given.follow and given.as_of is not None:
            parser.error("--as-of has no place beside --follow")
        if given.idle is not None and not given.follow:
            parser.error("--idle has a meaning with --follow only")
    if given.command == "inspect" and given.port is not None and given.port > PORT_MAX:
        parser.error(f"--port must be at most {PORT_MAX}")
    if given.command == "follow" and given.run is not None and given.job is None:
        parser.error("--run needs --job")
    if given.command == "follow" and given.commit and given.name is None:
        parser.error("--commit needs --name")
    return given
