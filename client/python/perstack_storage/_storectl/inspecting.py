"""The command `inspect`: the inspector in the browser, and its gateway."""

from perstack_storage import AsyncClient
from perstack_storage._storectl.call import OK, REFUSED, Call, complain

NEEDS = "inspect needs more than the client: install this package again with its extra 'inspect'"


def inspect(call: Call) -> int:
    """Serve the inspector until it is stopped."""
    try:
        from perstack_storage._inspect.program import NotStarted, Options, serve  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("perstack_storage"):
            raise
        complain(f"{NEEDS} ({error.name} is missing)")
        return REFUSED
    given = call.given
    call.client.hello()  # says what is wrong where no daemon answers
    call.client.close()

    def client() -> AsyncClient:
        return AsyncClient(given.endpoint, base_path=given.base_path, timeout_s=given.timeout)

    def say(line: str) -> None:
        call.out.line(line, flush=True)

    options = Options(given.port, given.token_file, given.allow_host or (), given.open)
    try:
        serve(client, options, say)
    except NotStarted as error:
        complain(str(error))
        return REFUSED
    return OK
