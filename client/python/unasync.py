"""Writes the reads of the synchronous client from those of the asyncio client. Run it after a change.

The two differ in nothing but `async` and `await`. A test compares the file with what this writes.
"""

import re
from pathlib import Path

PACKAGE = Path(__file__).parent / "perstack_storage"
SOURCE, TARGET = PACKAGE / "_async" / "reads.py", PACKAGE / "_sync" / "reads.py"
NOTE = "# Written by client/python/unasync.py from _async/reads.py: change that one.\n"
REPLACEMENTS = (
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\bAsync(Iterator|Connection|ResumedJob|Client)\b", r"\1"),
    (r"\b_async\b", "_sync"),
    (r"for (\w+) in (.+):\n +yield \1\n", r"yield from \2\n"),
    (r"\basyncio client\b", "synchronous client"),
)


def synchronous(source: str) -> str:
    """Returns the synchronous module for the source of an asynchronous one."""
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return NOTE + source


if __name__ == "__main__":
    TARGET.write_text(synchronous(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
