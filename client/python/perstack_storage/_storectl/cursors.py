"""The command that lists the named cursors which the daemon keeps, or deletes one."""

from collections.abc import Iterator
from typing import Any

from perstack_storage import Client, NamedCursor
from perstack_storage._core.escape import escaped
from perstack_storage._storectl import ids
from perstack_storage._storectl.call import OK, Call, Missing
from perstack_storage._storectl.tables import Column
from perstack_storage._views.units import number, span_of

_COLUMNS = (
    Column("cursor", lambda v: v["name"]),
    Column("position", lambda v: v["position"], right=True),
    Column("lag", lambda v: number(v["lag"]), right=True),
    Column("set before", lambda v: span_of(v["idleSeconds"] * 1000), right=True),
)


def cursors(call: Call) -> int:
    """All named cursors, or the end of one."""
    client, given, out = call.client, call.given, call.out
    if given.delete is None:
        out.listing(_COLUMNS, _all(client))
        return OK
    names = [cursor["name"] for cursor in _all(client)]
    if given.delete not in names:
        raise Missing(f"cursor not found: {given.delete}{ids.did_you_mean(given.delete, names)}")
    client.delete_cursor(given.delete)
    if out.as_json:
        out.details({"deleted": given.delete})
    else:
        out.line(f"deleted cursor {escaped(given.delete)}: its subscriber begins again")
    return OK


def _all(client: Client) -> Iterator[NamedCursor]:
    after: Any = None
    while True:
        page = client.cursors(after=after)
        yield from page
        after = page.next
        if after is None:
            return
