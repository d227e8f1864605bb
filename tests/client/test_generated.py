"""What the synchronous client reads is written from what the asyncio client reads."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "client" / "python" / "unasync.py"


def test_the_synchronous_reads_are_those_of_the_asyncio_client() -> None:
    script = runpy.run_path(str(SCRIPT))
    written = script["synchronous"](script["SOURCE"].read_text(encoding="utf-8"))
    assert script["TARGET"].read_text(encoding="utf-8") == written, "run: python client/python/unasync.py"
