"""Tables for the terminal and for Markdown, and the picture."""

import math
from html import escape

from tests.bench.figures import estimate, short
from tests.bench.results import Results
from tests.bench.targets import Target

BAR = 300
ROW = 18


def text_of(results: Results, targets: list[Target]) -> str:
    """All tables, as Markdown that reads well in a terminal too."""
    lines = [*(f"- {key}: {value}" for key, value in results.head.items() if isinstance(value, str)), ""]
    lines += ["| contender | version | synced before the answer |", "|---|---|---|"]
    for name, (version, sync) in results.head["contenders"].items():
        lines.append(f"| {name} | {version} | {sync} |")
    for work, by_contender in results.rounds.items():
        lines += ["", f"**{work} in flight**, {len(next(iter(by_contender.values())))} rounds", ""]
        lines += ["| contender | events/s [95 %] | tree complete/s | p50 ms | p99 ms | p99.9 ms |"]
        lines += ["|---|---|---|---|---|---|"]
        for name in by_contender:
            cells = [str(estimate(results.of(work, name, "rate")))]
            figures = ("complete", "p50", "p99", "p99.9")
            cells += [short(estimate(results.of(work, name, figure)).median) for figure in figures]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for part, samples in results.samples.items():
        lines += ["", f"**{part}**", "", "| | median [95 %] |", "|---|---|"]
        lines += [f"| {name} | {estimate(values)} |" for name, values in samples.items()]
    lines += ["", "**Targets**", "", "| | wanted | found [95 %] | |", "|---|---|---|---|"]
    for t in targets:
        lines.append(f"| {t.text} | {t.wanted} | {t.found} | {'met' if t.met else '**missed**'} |")
    if results.left_out:
        lines += ["", "Left out, or wrong:", "", *(f"- {line}" for line in results.left_out)]
    return "\n".join(lines) + "\n"


def picture(results: Results) -> str:
    """An SVG: for each work throughput at the left, p99 at the right."""
    parts: list[str] = []
    y = 30
    for work, by_contender in results.rounds.items():
        rates = {name: estimate(results.of(work, name, "rate")).median for name in by_contender}
        tails = {name: estimate(results.of(work, name, "p99")).median for name in by_contender}
        known = [tail for tail in tails.values() if not math.isnan(tail)]
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(work)} in flight</text>')
        for name in by_contender:
            y += ROW
            color = "#2a6f97" if name.startswith("perstack") else "#b0b0b0"
            parts.append(f'<text x="10" y="{y}">{escape(name)}</text>')
            bar(parts, 140, y, rates[name] / max(rates.values()), color, f"{short(rates[name])}/s")
            if not math.isnan(tails[name]):
                bar(parts, 540, y, tails[name] / max(known), color, f"{short(tails[name])} ms")
        y += 2 * ROW
    size = f'width="940" height="{y}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    title = '<rect width="100%" height="100%" fill="white"/><text x="140" y="14">events/s, median</text>'
    return f'{head}{title}<text x="540" y="14">p99, median</text>{"".join(parts)}</svg>\n'


def bar(parts: list[str], x: int, y: int, share: float, color: str, label: str) -> None:
    """A bar and its value."""
    width = max(1.0, share * BAR)
    parts.append(f'<rect x="{x}" y="{y - 10}" width="{width:.1f}" height="12" fill="{color}"/>')
    parts.append(f'<text x="{x + width + 4:.1f}" y="{y}">{label}</text>')
