"""A picture of series over days: one panel each, one below the other."""

from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 90
LEFT, TOP, GAP = 150, 30, 40


class Series(NamedTuple):
    """A figure over the days."""

    name: str
    values: list[float]


def picture(days: list[int], series: list[Series]) -> str:
    """An SVG; each panel begins at 0."""
    parts: list[str] = []
    for number, one in enumerate(series):
        _panel(parts, TOP + number * (HEIGHT + GAP), days, one)
    height = TOP + len(series) * (HEIGHT + GAP)
    parts.append(f'<text x="{LEFT + WIDTH + 14}" y="{height - GAP + 14}" fill="#666">day</text>')
    size = f'width="{LEFT + WIDTH + 70}" height="{height}" font-family="sans-serif" font-size="12"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{background}{"".join(parts)}</svg>\n'


def _panel(parts: list[str], y: int, days: list[int], series: Series) -> None:
    most = max(series.values) or 1.0
    points = [
        (LEFT + WIDTH * day / days[-1], y + HEIGHT * (1 - value / (most * 1.1)))
        for day, value in zip(days, series.values, strict=True)
    ]
    line = " ".join(f"{x:.1f},{top:.1f}" for x, top in points)
    parts.append(f'<text x="10" y="{y + HEIGHT / 2:.0f}" font-weight="bold">{escape(series.name)}</text>')
    top = y + HEIGHT * (1 - 1 / 1.1)
    parts.append(f'<line x1="{LEFT}" y1="{top:.1f}" x2="{LEFT + WIDTH}" y2="{top:.1f}" stroke="#e6e6e6"/>')
    parts.append(
        f'<text x="{LEFT - 6}" y="{top + 4:.1f}" fill="#666" text-anchor="end">{_short(most)}</text>'
    )
    parts.append(f'<text x="{LEFT - 6}" y="{y + HEIGHT}" fill="#666" text-anchor="end">0</text>')
    for day in range(0, days[-1] + 1, 30):
        x = LEFT + WIDTH * day / days[-1]
        parts.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + HEIGHT}" stroke="#e6e6e6"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + HEIGHT + 14}" fill="#666" text-anchor="middle">{day}</text>')
    parts.append(f'<line x1="{LEFT}" y1="{y + HEIGHT}" x2="{LEFT + WIDTH}" y2="{y + HEIGHT}" stroke="#999"/>')
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2a6f97" stroke-width="2"/>')
    x, last = points[-1]
    parts.append(f'<text x="{x + 6:.1f}" y="{last + 4:.1f}">{_short(series.values[-1])}</text>')


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
