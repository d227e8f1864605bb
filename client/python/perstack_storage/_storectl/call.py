"""What every command gets, and what it says: the call, exit statuses, sentences for a person."""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from perstack_storage import Client, Page
from perstack_storage._core.escape import escaped, shell_word
from perstack_storage._core.jsonio import dumps
from perstack_storage._storectl.output import Output

OK, REFUSED, USAGE, NO_DAEMON = 0, 1, 2, 3
PROG = "perstack-storectl"
PAGE_ITEMS = 500


class Call(NamedTuple):
    """What a command gets."""

    client: Client
    given: argparse.Namespace
    out: Output


Command = Callable[[Call], int]


class Missing(Exception):  # noqa: N818 - an answer to the person, not a fault
    """What was asked for does not exist, or its name fits several. Ends the command with status 1.

    Attributes:
        hints: lines that may follow the sentence, such as the names that fit.
    """

    def __init__(self, sentence: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.hints = hints


def pages(call: Call, fetch: Callable[[int, Any], Page[Any]]) -> Iterator[Any]:
    """Items page by page, up to --limit; says then how to go on."""
    left: int | None = call.given.limit
    after = call.given.after
    while left is None or left > 0:
        page = fetch(PAGE_ITEMS if left is None else min(left, PAGE_ITEMS), after)
        yield from page
        after = page.next
        if after is None:
            return
        if left is not None:
            left -= len(page)
    call.out.notes.append(f"there are more: --after {shell_word(escaped(dumps(after).decode()))}")


def complain(sentence: str) -> None:
    """A sentence for the person, beside the output."""
    sys.stderr.write(f"{PROG}: {escaped(sentence)}\n")
