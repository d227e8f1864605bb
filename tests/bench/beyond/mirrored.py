"""A mirror beside 2,000 events a second: how far it is behind, and what stores feel of it."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

from perstack_storage import Client
from tests.bench.load import Load, percentile
from tests.helpers.daemon import RunningDaemon
from tests.helpers.s3 import ENVIRONMENT, S3Server, s3_server
from tests.mirror.bases import url_of
from tests.mirror.seaweed import program, seaweed

from .report import Figures
from .world import LIMIT_SECONDS, Plan, ending, settle, work

PART = "mirror"
_AGENTS, _RATE = 8, 250.0
_LOOK_SECONDS = 0.2


class Lag(threading.Thread):
    """Looks how old the oldest record is that is not in the bucket."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self.stopping = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with Client(self._endpoint, timeout_s=LIMIT_SECONDS) as client:
            while not self.stopping.wait(_LOOK_SECONDS):
                self.seconds.append(client.stats()["mirror"]["lagSeconds"])


def measure(root: Path, figures: Figures, plan: Plan) -> None:
    """Take rounds of a daemon with a mirror and of one without, in turn."""
    root.mkdir()
    with ExitStack() as stack:
        weed = program()
        s3: S3Server = stack.enter_context(s3_server(root) if weed is None else seaweed(weed, root))
        figures.head["S3 server"] = "moto" if weed is None else "SeaweedFS"
        flags = ("--mirror", url_of("bench"), "--mirror-endpoint", s3.url)
        daemons = {
            "with": RunningDaemon(root / "with", *flags, environment=ENVIRONMENT),
            "without": RunningDaemon(root / "without"),
        }
        for daemon in daemons.values():
            stack.enter_context(ending(daemon)).start()
        load = Load(_AGENTS, 1, plan.seconds, _RATE)
        for n in range(plan.rounds):
            if plan.is_over:
                figures.left_out.append(f"{PART}: round {n + 1} and later ones, time was up")
                break
            p99 = {}
            for name in list(daemons)[:: 1 if n % 2 == 0 else -1]:
                endpoint = daemons[name].endpoint
                lag = Lag(daemons["with"].endpoint)
                if name == "with":
                    lag.start()
                worked = work([endpoint], load, _AGENTS * n)
                p99[name] = percentile(worked.latencies_ms, 0.99)
                figures.add(PART, f"store's p99 {name} it, ms", p99[name])
                if name == "with":
                    time.sleep(_LOOK_SECONDS)
                    lag.stopping.set()
                    lag.join()
                    figures.add(PART, "lag at 2,000 events/s, s", max(lag.seconds))
                    rate = worked.count / (worked.end - worked.begin)
                    figures.add(PART, "events/s beside it", rate)
                settle([endpoint])
            figures.add(PART, "p99 beside it against without", p99["with"] / p99["without"])
        if errors := daemons["with"].events("mirror_waits"):
            figures.left_out.append(f"{PART}: it had to wait {len(errors)} times: {errors[0]['reason']}")
