"""The contenders, by name."""

from tests.bench.contenders.base import Contender
from tests.bench.contenders.direct import Direct, DirectTimed, Files
from tests.bench.contenders.limits import Limit
from tests.bench.contenders.perstack import Perstack, PerstackNoFiles
from tests.bench.contenders.servers import Nats, Postgres, Redis, Valkey
from tests.bench.contenders.sqlite import Sqlite

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Perstack("perstack", "perstack"),
        Perstack("perstack-asyncio", "perstack-asyncio"),
        Perstack("perstack-node", None),
        PerstackNoFiles(),
        Direct("direct", "plain"),
        Direct("direct-sync", "sync"),
        DirectTimed("direct-timed", "plain"),
        Sqlite(),
        Redis(),
        Valkey(),
        Postgres(),
        Nats(),
        Limit("limit-sync", sync=True),
        Limit("limit-echo", sync=False),
        Files("files", 1),
        Files("files-2", 2),
    )
}
