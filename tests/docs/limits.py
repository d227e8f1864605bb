"""Writes the tables of daemon/docs/limits.md from the code: python -m tests.docs.limits."""

from typing import Any

from perstack_stored.config.mirror_url import PREFIX_CHARS_MAX
from perstack_stored.config.settings import ITEMS, Item, key_of, reloads
from perstack_stored.journal.cursors import CURSORS_MAX
from perstack_stored.journal.deletion_guards import GUARDS_MAX
from perstack_stored.journal.last_writers import KEYS_MAX
from perstack_stored.journal.logged_writers import LOGGED_KEYS_MAX
from perstack_stored.mirror.follower import READY_BYTES_MAX
from perstack_stored.mirror.pieces import PIECE_BYTES
from perstack_stored.model.deletions import DELETION_BYTES_MAX, REDACTION_BYTES_MAX, WHY_CHARS_MAX
from perstack_stored.model.json_text import LAYOUT_BYTES_MAX
from perstack_stored.model.names import ID_BYTES_MAX, TYPE_BYTES_MAX
from perstack_stored.model.nesting import NESTING_MAX
from perstack_stored.protocol.frames import ARGUMENTS_BYTES_MAX, HEADER_BYTES_MAX
from perstack_stored.protocol.limits import (
    AT_LEAST_SECONDS,
    CURSORS_LISTED_MAX,
    CURSORS_SHOWN_MAX,
    DELETIONS_MAX,
    READ_ALL_RECORDS_MAX,
)
from perstack_stored.protocol.multipart import VALUES_MAX
from perstack_stored.read.summary_queries import SEARCHED_MAX
from perstack_stored.read.waiting import AHEAD_MAX
from perstack_stored.replication.nats_admin import MESSAGE_BYTES_LEAST
from perstack_stored.replication.pieces import PIECES_MAX
from perstack_stored.store.fences import HISTORY_BYTES
from perstack_stored.tree.sweep import UNLINKS_PER_SECOND, WRITTEN_BACK_MAX
from tests.docs.pages import ROOT

PAGE = ROOT / "daemon/docs/limits.md"
BEGIN, END = "<!-- from the code: make docs -->\n", "<!-- end -->\n"
CELL_MAX = 80
NO_LIMIT = 1 << 40  # of a number that has no other
NO_BOUNDS = {"tree_nice"}
FIXED = (
    ("bytes of an id, in UTF-8", ID_BYTES_MAX),
    ("bytes of an event's type", TYPE_BYTES_MAX),
    ("levels of objects and arrays in a value", NESTING_MAX),
    ("bytes of a request's header", HEADER_BYTES_MAX),
    ("bytes of a read's arguments", ARGUMENTS_BYTES_MAX),
    ("records in an answer to `readAll`", READ_ALL_RECORDS_MAX),
    ("jobs or runs that a page with `contains` looks at", SEARCHED_MAX),
    ("reads that wait for the position of their `atLeast`", AHEAD_MAX),
    ("seconds for which a read without `timeoutMs` waits for it", AT_LEAST_SECONDS),
    ("deletions in an answer to `deletions`", DELETIONS_MAX),
    ("bytes of a deletion", DELETION_BYTES_MAX),
    ("bytes of a redaction", REDACTION_BYTES_MAX),
    ("characters of a deletion's reason", WHY_CHARS_MAX),
    ("deletions that late stores are guarded against", GUARDS_MAX),
    ("named cursors", CURSORS_MAX),
    ("cursors in an answer to `cursors`", CURSORS_LISTED_MAX),
    ("cursors whose lag is in `stats` and metrics", CURSORS_SHOWN_MAX),
    ("values that are coming in parts at a time", VALUES_MAX),
    ("jobs and runs whose last writer is known", KEYS_MAX),
    ("the same in a replicated journal", LOGGED_KEYS_MAX),
    ("bytes of the journal that tell the last writers after a start, at least", HISTORY_BYTES),
    ("bytes of the journal in a piece of a mirror", PIECE_BYTES),
    ("bytes of entries that a copy fetches ahead", READY_BYTES_MAX),
    ("characters of a mirror's prefix", PREFIX_CHARS_MAX),
    ("pieces of a message of a replicated log, of 1 MiB", PIECES_MAX),
    ("bytes of `max_payload` of servers of a replicated log, at least", MESSAGE_BYTES_LEAST),
    ("files of old jobs that leave the tree in a second", UNLINKS_PER_SECOND),
    ("jobs that stay in the tree because they were written back", WRITTEN_BACK_MAX),
    ("bytes of a `job.json` with line breaks; a larger one is one line", LAYOUT_BYTES_MAX),
)


def tables() -> str:
    """Both tables as they have to stand on the page."""
    rows = ["| setting | default | least | most | reload | meaning |", "|---|--:|--:|--:|---|---|"]
    notes = []
    for name, item in ITEMS.items():
        if item.metadata["kind"] == "integer" and name not in NO_BOUNDS:
            text, note = _meaning(item.metadata["help"])
            default: Any = item.default
            least, most = item.metadata["least"], item.metadata["most"]
            figures = " | ".join(_size(number, name) for number in (default, least, most))
            rows.append(f"| `{key_of(item)}` | {figures} | {'yes' if reloads(item) else 'no'} | {text} |")
            notes += [_note(item, note)] if note else []
    fixed = ["| fixed limit | |", "|---|--:|", *(f"| {text} | {_size(most, text)} |" for text, most in FIXED)]
    return "\n".join([*rows, "", *notes, *([""] if notes else []), *fixed, ""])


def with_tables(page: str) -> str:
    """The page with the tables of the code in their place."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


def _meaning(text: str) -> tuple[str, str]:
    if len(text) <= CELL_MAX:
        return text, ""
    head, _, tail = text.rpartition("; ")
    return head, tail


def _note(item: Item, text: str) -> str:
    return f"- `{key_of(item)}`: {text}."


def _size(number: int, name: str) -> str:
    if number == NO_LIMIT:
        return "-"
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if "bytes" in name and number >= 1 << power and number % (1 << power) == 0:
            return f"{number >> power} {unit}"
    return f"{number:,}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
