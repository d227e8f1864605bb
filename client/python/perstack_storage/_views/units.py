"""Times, durations, sizes and numbers as people read them. No I/O."""

from datetime import UTC, datetime

from perstack_storage._views.cells import cell

_SPAN_MS_MAX = 1e14
_NUMBER_MAX = 1e15
_TENTHS_UNTIL_MS, _TENTHS_UNTIL = 10_000, 100
_THOUSAND = 1000
_SPANS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def moment(ms: object) -> datetime | None:
    """A time in milliseconds since 1970 as local time with its zone; None where it is no time."""
    try:
        return datetime.fromtimestamp(float(ms) / 1000, UTC).astimezone()  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def when(ms: object) -> str:
    """A time in milliseconds since 1970, in local time with its zone: 2026-11-23 04:35:52.251+01:00."""
    found = moment(ms)
    return cell(ms) if found is None else found.isoformat(" ", "milliseconds")


def when_s(ms: object) -> str:
    """The same without parts of a second."""
    found = moment(ms)
    return cell(ms) if found is None else found.replace(microsecond=0).isoformat(" ")


def span_of(ms: float) -> str:
    """A duration in milliseconds: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min, 3 d 04 h."""
    if not ms >= 0 or ms > _SPAN_MS_MAX:
        return ""
    if ms < _TENTHS_UNTIL_MS:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    for size, unit, smaller_size, smaller in _SPANS:
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller_size:02d} {smaller}"
    return f"{seconds} s"


def size_of(count: int) -> str:
    """A number of bytes: 12 B, 3.9 KB, 1.2 MB."""
    size, unit = float(count), "B"
    for larger in ("KB", "MB", "GB"):
        if size < _THOUSAND:
            break
        size, unit = size / _THOUSAND, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= _TENTHS_UNTIL else f"{size:.1f} {unit}"


def number(value: object) -> str:
    """A number with its thousands apart; what is none as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return cell(value)
    return f"{value:,.0f}" if abs(value) < _NUMBER_MAX else cell(value)
