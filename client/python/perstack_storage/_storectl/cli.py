"""The command `perstack-storectl`: what is stored, for people and scripts."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from perstack_storage import (
    Client,
    DaemonUnavailable,
    EndpointError,
    OutcomeUnknown,
    StorageError,
    __version__,
)
from perstack_storage._core.escape import escaped
from perstack_storage._core.jsonio import loads
from perstack_storage._storectl import commands, completion
from perstack_storage._storectl.commands import (
    KINDS,
    NO_DAEMON,
    OK,
    PROG,
    REFUSED,
    USAGE,
    Call,
    Command,
    complain,
)
from perstack_storage._storectl.output import Output
from perstack_storage._wire.endpoint import BASE_VARIABLE, ENDPOINT_VARIABLE

INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell names the signals
TIMEOUT_DEFAULT_S = 10.0
_COMMON = {
    "endpoint": None,
    "base_path": None,
    "timeout": TIMEOUT_DEFAULT_S,
    "json": False,
    "show_secrets": False,
    "no_pager": False,
}
_EPILOG = f"""\
The daemon is found by --endpoint, else {ENDPOINT_VARIABLE}, else by the base: --base-path, else
{BASE_VARIABLE}, else ./perstack. Options may stand before or after the command.

exit status:
  0  done
  1  not found, or refused
  2  wrong usage
  3  no daemon answered
"""


# --- the parser --------------------------------------------------------------------------------------


def _completion_script(parser: argparse.ArgumentParser) -> int:
    sys.stdout.write(completion.script(parser))
    return OK


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return value

    number.__name__ = f"integer from {least} on"
    return number


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


_seconds.__name__ = "number of seconds"


def _cursor(text: str) -> Any:
    value = loads(text.encode(errors="surrogateescape"))
    if not isinstance(value, list):
        raise ValueError(text)  # noqa: TRY004 - what argparse takes for a wrong value
    return value


_cursor.__name__ = "cursor"


def _common() -> argparse.ArgumentParser:
    """Options of every command; without defaults, or those of a command would undo what stands before it."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("common options")
    group.add_argument("--endpoint", metavar="ENDPOINT", help="of the daemon, such as ipc:///run/stored.sock")
    group.add_argument("--base-path", metavar="DIR", help="the base of the daemon")
    group.add_argument(
        "--timeout", type=_seconds, metavar="S", help=f"wait so long (default: {TIMEOUT_DEFAULT_S:g})"
    )
    group.add_argument("--json", action="store_true", help="print JSON, one value a line")
    group.add_argument(
        "--show-secrets", action="store_true", help="don't hide keys, tokens, headers and env in run settings"
    )
    group.add_argument("--no-pager", action="store_true", help="never print through $PAGER")
    return common


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments, which may be the names of files of others."""

    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))


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
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Command | None, text: str, more: str = "") -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            name, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
            allow_abbrev=False,
        )  # fmt: skip
        added.set_defaults(handler=run)
        return added

    def paged(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--limit", type=_from(1), metavar="N", help="at most N; all by default")
        added.add_argument(
            "--after", type=_cursor, metavar="CURSOR", help="go on there; printed where --limit has cut"
        )
        return added

    command("ping", commands.ping, "ask the daemon whether it answers")
    command("stats", commands.stats, "print the daemon's counters and gauges", "See daemon/docs/stats.md.")
    paged(command("jobs", commands.jobs, "list the jobs, newest first"))
    command("job", commands.job, "print a job").add_argument("job_id", metavar="ID", help="of the job")
    paged(command("runs", commands.runs, "list the run settings, the one updated last first"))
    added = paged(command("checkpoints", commands.checkpoints, "list the checkpoints of a job by step"))
    added.add_argument("job_id", metavar="JOB", help="id of the job")
    added = command("checkpoint", commands.checkpoint, "print a checkpoint")
    added.add_argument("job_id", metavar="JOB", help="id of the job")
    added.add_argument("checkpoint_id", metavar="ID", help="of the checkpoint")
    _add_events(paged(command(
        "events", commands.events, "list the events of a run",
        "By step, or with --contents by time; with --follow in the order stored, first those that are there.",
    )))  # fmt: skip
    added = command(
        "put", commands.put, "store what comes in on standard input",
        "One JSON object, or one in each line. The positions are printed when all is on disk.",
    )  # fmt: skip
    added.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    _add_follow(command(
        "follow", commands.follow, "print every record as it is stored",
        "Ends with Ctrl-C, or as --limit and --idle say.",
    ))  # fmt: skip
    added = command("completion", None, "print a script that completes commands and options",
                    f"bash: source <({PROG} completion bash)")  # fmt: skip
    added.add_argument("shell", choices=("bash", "zsh"), help="the same script serves both")
    return parser


def _add_events(events: argparse.ArgumentParser) -> None:
    events.add_argument("job_id", metavar="JOB", help="id of the job")
    events.add_argument("run_id", metavar="RUN", help="id of the run")
    events.add_argument("--contents", action="store_true", help="whole events, not time, step and type only")
    events.add_argument("--max-step", type=_from(0), metavar="N", help="only events up to this step")
    events.add_argument("--follow", action="store_true", help="go on with those stored from now on")
    events.add_argument(
        "--idle", type=_seconds, metavar="S", help="with --follow: end when nothing came for so long"
    )


def _add_follow(follow: argparse.ArgumentParser) -> None:
    follow.add_argument(
        "--after", type=_from(0), default=0, metavar="POSITION", help="only records after this position"
    )
    follow.add_argument(
        "--store", metavar="STORE", help="the history that POSITION belongs to; end if it is another one"
    )
    follow.add_argument(
        "--epoch", metavar="EPOCH", help="of the record at POSITION, as --json printed it; the same"
    )
    follow.add_argument("--job", metavar="ID", help="only what belongs to this job")
    follow.add_argument("--run", metavar="ID", help="with --job: only what belongs to this run")
    follow.add_argument("--limit", type=_from(1), metavar="N", help="end after N records")
    follow.add_argument("--idle", type=_seconds, metavar="S", help="end when nothing came for so long")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    given = parser.parse_args(arguments, argparse.Namespace(**_COMMON))
    if not given.timeout > 0:
        parser.error("--timeout must be more than 0")
    if given.command == "events":
        if given.follow and given.after is not None:
            parser.error("--after has no place beside --follow")
        if given.idle is not None and not given.follow:
            parser.error("--idle has a meaning with --follow only")
    if given.command == "follow" and given.run is not None and given.job is None:
        parser.error("--run needs --job")
    return given


# --- running -----------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser()
    given = _parse(parser, arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if given.handler is None:
            return _completion_script(parser)
        return _run(given)
    except BrokenPipeError:
        # Nobody reads: what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(given: argparse.Namespace) -> int:
    follows = given.command == "follow" or getattr(given, "follow", False)
    status = OK
    try:
        with (
            Output(as_json=given.json, paged=not (given.no_pager or follows)) as out,
            Client(given.endpoint, base_path=given.base_path, timeout_s=given.timeout) as client,
        ):
            status = given.handler(Call(client, given, out))
        for note in out.notes:
            complain(note)
        return status
    except (DaemonUnavailable, OutcomeUnknown) as error:
        complain(str(error))
        return NO_DAEMON
    except EndpointError as error:
        complain(str(error))
        return USAGE
    except StorageError as error:
        complain(str(error))
        return REFUSED
