"""The targets, as ratios of paired rounds."""

from typing import Any, NamedTuple

from tests.bench.figures import Estimate, estimate, ratios
from tests.bench.results import Results


class Target(NamedTuple):
    """A line of the table: what was found, and whether it is met."""

    text: str
    wanted: str
    found: Estimate
    met: bool

    def asdict(self) -> dict[str, Any]:
        """For JSON."""
        return {"text": self.text, "wanted": self.wanted, "found": list(self.found), "met": self.met}


# work, figure of ours, contender, its figure, the least (or most) ratio
WORK = (
    ("32 x 1", "rate", "direct", "rate", ">=", 1.6),
    ("32 x 1", "rate", "direct-timed", "rate", ">=", 1.6),
    ("32 x 1", "rate", "direct-sync", "rate", ">=", 3.0),
    ("32 x 1", "rate", "sqlite", "rate", ">=", 1.0),
    ("32 x 1", "rate", "redis", "rate", ">=", 1.0),
    ("32 x 1", "rate", "valkey", "rate", ">=", 1.0),
    ("32 x 1", "rate", "postgres", "rate", ">=", 1.4),
    ("32 x 1", "rate", "nats", "rate", ">=", 1.0),
    ("8 x 64", "rate", "direct", "rate", ">=", 3.5),
    ("8 x 64", "rate", "direct-timed", "rate", ">=", 3.5),
    ("8 x 64", "rate", "direct-sync", "rate", ">=", 7.0),
    ("8 x 64", "rate", "sqlite", "rate", ">=", 1.1),
    ("8 x 64", "rate", "redis", "rate", ">=", 1.1),
    ("8 x 64", "rate", "valkey", "rate", ">=", 1.1),
    ("8 x 64", "rate", "postgres", "rate", ">=", 2.0),
    ("8 x 64", "rate", "nats", "rate", ">=", 1.0),
    ("8 x 64", "rate", "limit-sync", "rate", ">=", 0.6),
    ("1 x 1", "p50", "direct-timed", "p50", "<=", 1.0),
    ("32 x 1 at 2,000/s", "p99", "redis", "p99", "<=", 1.0),
    ("32 x 1 at 2,000/s", "p99", "valkey", "p99", "<=", 1.0),
    ("sustained", "complete", "direct", "rate", ">=", 1.0),
    ("sustained", "complete", "files", "rate", ">=", 0.85),
)
# part, ours, theirs, the most ratio; without theirs the most of ours
SAMPLES = (
    ("replay 1", "perstack s", "direct s", 1 / 3),
    ("replay 16", "perstack s", "direct s", 1 / 3),
    ("replay 1", "perstack events lost", None, 0.0),
    ("replay 16", "perstack events lost", None, 0.0),
    ("reads", "getEventsByRun client warm", "getEventsByRun direct warm", 0.35),
    ("reads", "getEventContents client warm", "getEventContents direct warm", 0.5),
    ("reads", "getAllJobs client warm", "getAllJobs direct warm", 0.3),
    ("reads", "getAllRuns client warm", "getAllRuns direct warm", 0.15),
    ("reads", "store p99 beside reads", "store p99 alone", 3.0),
    ("scale", "1,000,000 PSS MiB", None, 120.0),
    ("start 1,000,000", "start after a clean stop s", None, 1.0),
    ("start 1,000,000", "start after kill -9 s", None, 0.5),
    ("start 5,000,000", "start after kill -9 s", None, 0.5),
    ("start 5,000,000", "start right behind 20,000 s", None, 0.5),
    ("scale", "10,000,000 PSS MiB", None, 120.0),
    ("scale", "10,000,000 p99 ms", "1,000,000 p99 ms", 1.1),
    ("start 10,000,000", "start after kill -9 s", None, 1.0),
)


def judged(results: Results) -> list[Target]:
    """The targets for which there are figures."""
    found = []
    for work, figure, contender, theirs, sign, bound in WORK:
        each = ratios(results.of(work, "perstack", figure), results.of(work, contender, theirs))
        if each:
            known = estimate(each)
            met = known.median >= bound if sign == ">=" else known.median <= bound
            text = f"{work}: {figure} against {contender}"
            found.append(Target(text, f"{sign} {bound:.2g}x", known, met))
    for part, ours, other, bound in SAMPLES:
        samples = results.samples.get(part, {})
        if ours in samples and (other is None or other in samples):
            each = samples[ours] if other is None else ratios(samples[ours], samples[other])
            known = estimate(each)
            unit = "" if other is None else "x"
            against = "" if other is None else f" against {other}"
            found.append(
                Target(f"{part}: {ours}{against}", f"<= {bound:.2g}{unit}", known, known.median <= bound)
            )
    return found + grown(results)


def grown(results: Results) -> list[Target]:
    """From 10,000 to 1,000,000 events: no loss that the interval shows."""
    samples = results.samples.get("scale", {})
    found = []
    for figure, sign in (
        ("rate", 1),
        ("p99 ms", -1),
        ("one in flight rate", 1),
        ("one in flight p99 ms", -1),
    ):
        small, large = samples.get(f"10,000 {figure}"), samples.get(f"1,000,000 {figure}")
        if small and large:
            known = estimate(ratios(large, small))
            met = known.high >= 1 if sign > 0 else known.low <= 1
            found.append(Target(f"scale: {figure}, 1,000,000 against 10,000", "no loss", known, met))
    return found
