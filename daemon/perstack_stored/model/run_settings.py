"""Run settings as they are read: with the time of the last store, and defaults for what is missing."""

from perstack_stored.model.edits import Edit
from perstack_stored.model.updated_at import span as updated_at_span

MISSING_REASONING_BUDGET = 1

MISSING_MAX_STEPS = 2


def setting_text(payload: bytes, updated_at: float, *, rewritten: bool) -> bytes:
    """A run setting as it counts now: the first one stored, with the time of the last store."""
    if not rewritten:
        return payload
    start, end = updated_at_span(payload)
    return payload[:start] + repr(updated_at).encode() + payload[end:]


def setting_as_sent(text: bytes, sent_at: str) -> bytes:
    """The setting as it was sent, from what `setting_text` made of it."""
    start, end = updated_at_span(text)
    return text[:start] + sent_at.encode() + text[end:]


def setting_edits(
    size: int, rewritten: bool, missing_defaults: int, span: tuple[int, int], body_end: int, updated_at: float
) -> list[Edit]:
    """What makes of a run setting as it was stored the one that is read.

    It has the time of the last store, and "low" and 100 stand in for what is missing, as in the reference.
    """
    edits = [(*span, repr(updated_at).encode())] if rewritten else []
    missing = (b',"reasoningBudget":"low"' if missing_defaults & MISSING_REASONING_BUDGET else b"") + (
        b',"maxSteps":100' if missing_defaults & MISSING_MAX_STEPS else b""
    )
    return [*edits, (body_end, size, missing + b"}")] if missing else edits
