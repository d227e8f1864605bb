"""Run settings as clients read them: with the time of the last store, and defaults for missing fields."""

from perstack_stored.model.edits import Edit
from perstack_stored.model.updated_at import span as updated_at_span

MISSING_REASONING_BUDGET = 1

MISSING_MAX_STEPS = 2


def setting_text(payload: bytes, updated_at: float, *, rewritten: bool) -> bytes:
    """A run setting as it is read: the first one stored, with the time of the last store."""
    if not rewritten:
        return payload
    start, end = updated_at_span(payload)
    return payload[:start] + repr(updated_at).encode() + payload[end:]


def setting_as_sent(text: bytes, sent_at: str) -> bytes:
    """The setting as it was sent, reconstructed from the result of `setting_text`."""
    start, end = updated_at_span(text)
    return text[:start] + sent_at.encode() + text[end:]


def setting_edits(
    size: int, rewritten: bool, missing_defaults: int, span: tuple[int, int], body_end: int, updated_at: float
) -> list[Edit]:
    """Edits that turn a stored run setting into the one that is read.

    It gets the time of the last store, and for missing fields the defaults "low" and 100 of the reference.
    """
    edits = [(*span, repr(updated_at).encode())] if rewritten else []
    missing = (b',"reasoningBudget":"low"' if missing_defaults & MISSING_REASONING_BUDGET else b"") + (
        b',"maxSteps":100' if missing_defaults & MISSING_MAX_STEPS else b""
    )
    return [*edits, (body_end, size, missing + b"}")] if missing else edits
