"""Colours of a terminal: the named styles, and lines of pieces that each have one. No I/O."""

from collections.abc import Iterable, Mapping

from perstack_storage._core.escape import escaped
from perstack_storage._views.cells import Span, fitted, width_of

NO_COLOR = "NO_COLOR"
CHOICES = ("auto", "always", "never")
_CODES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
RUN_STYLES = ("cyan", "yellow", "magenta", "blue", "green")
"""By turns, so that a reader sees which lines belong together."""
_STATUS_STYLES = {
    "completed": "green",
    "running": "cyan",
    "proceeding": "cyan",
    "init": "dim",
    "stoppedByDelegate": "magenta",
    "stoppedByError": "red",
    "stoppedByMaxSteps": "yellow",
    "stoppedByExceededMaxSteps": "yellow",
    "stoppedByInteractiveTool": "yellow",
}


def wanted(choice: str, environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether colours are used: as --color says, else on a terminal unless NO_COLOR is set to anything."""
    if choice != "auto":
        return choice == "always"
    return terminal and not environment.get(NO_COLOR) and environment.get("TERM") != "dumb"


def of_status(status: object) -> str:
    """The style of a status of a job or checkpoint."""
    return _STATUS_STYLES.get(status, "") if isinstance(status, str) else ""


def rendered(spans: Iterable[Span], width: int | None, *, coloured: bool) -> str:
    """One line; with `width`, cut to it. Only the codes of the styles are sent to a terminal unescaped."""
    pieces: list[Span] = [Span(escaped(text), style) for text, style in spans]
    if width is not None:
        pieces = _cut(pieces, width)
    while pieces and not pieces[-1].text.rstrip():
        pieces.pop()
    if pieces:
        pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
    if not coloured:
        return "".join(text for text, _ in pieces)
    return "".join(
        f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and text.strip() else text for text, style in pieces
    )


def _cut(pieces: list[Span], width: int) -> list[Span]:
    kept: list[Span] = []
    room = width
    for number, (text, style) in enumerate(pieces):
        taken = width_of(text)
        rest = any(later.text.strip() for later in pieces[number + 1 :])
        if taken > room or (taken == room and rest):
            if room > 0:
                kept.append(Span(fitted(text + "…", room), style))
            return kept
        kept.append(Span(text, style))
        room -= taken
    return kept
