"""The command `perstack-storectl`: what is stored, for people and scripts."""

import argparse
import os
import sys
from collections.abc import Sequence

from perstack_storage import Client, DaemonUnavailable, EndpointError, OutcomeUnknown, StorageError
from perstack_storage._core.escape import escaped
from perstack_storage._storectl import complete, completion
from perstack_storage._storectl.arguments import make_parser, parse
from perstack_storage._storectl.call import NO_DAEMON, OK, REFUSED, USAGE, Call, Missing, complain
from perstack_storage._storectl.output import Output

INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell names the signals


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser()
    if arguments[:1] == [complete.HIDDEN]:
        complete.print_offered(parser, arguments[1:], sys.stdout.write)
        return OK
    given = parse(parser, arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if given.handler is None:
            sys.stdout.write(completion.script(parser, given.shell))
            return OK
        return _run(given)
    except BrokenPipeError:
        # Nobody reads: what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(given: argparse.Namespace) -> int:
    follows = given.command in {"delete", "follow", "inspect"} or getattr(given, "follow", False)
    status = OK
    try:
        with (
            Output(as_json=given.json, paged=not (given.no_pager or follows), color=given.color) as out,
            Client(given.endpoint, base_path=given.base_path, timeout_s=given.timeout) as client,
        ):
            status = given.handler(Call(client, given, out))
        for note in out.notes:
            complain(note)
        return status
    except Missing as missing:
        complain(str(missing))
        for hint in missing.hints:
            sys.stderr.write(f"{escaped(hint)}\n")
        return REFUSED
    except (DaemonUnavailable, OutcomeUnknown) as error:
        complain(str(error))
        return NO_DAEMON
    except EndpointError as error:
        complain(str(error))
        return USAGE
    except StorageError as error:
        complain(str(error))
        return REFUSED
