"""How tests store runs."""

from perstack_storage import Client
from tests.helpers.replay import METHODS
from tests.inspector.runs import Call


def store(endpoint: str, calls: list[Call]) -> list[int]:
    """Store calls in order; returns their positions."""
    with Client(endpoint, timeout_s=90) as client, client.pipeline() as pipeline:
        for op, value in calls:
            getattr(pipeline, METHODS[op])(value)
    return [position for position in pipeline.positions if position is not None]
