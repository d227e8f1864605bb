"""The command `export`: runs as traces for a receiver of OTLP."""

import os

from perstack_storage._otlp.delivery import NotDelivered, Receiver, headers_of
from perstack_storage._otlp.program import Options, export
from perstack_storage._otlp.state import State
from perstack_storage._storectl.call import OK, REFUSED, USAGE, Call, complain
from perstack_storage._views.units import number

HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"


def run(call: Call) -> int:
    """Export until the end for now, or until it is stopped."""
    given = call.given
    try:
        receiver = Receiver(given.otlp, headers_of(os.environ.get(HEADERS_VARIABLE, "")), given.service)
        options = Options(given.content, given.once, given.new)
        done = export(call.client, receiver, State(given.state), options, complain)
    except ValueError as error:
        complain(str(error))
        return USAGE
    except (NotDelivered, OSError) as error:
        complain(str(error))
        return REFUSED
    call.out.line(
        f"{number(done.spans)} spans sent, {number(done.refused)} refused, up to position {done.position}"
    )
    return REFUSED if done.refused else OK
