"""Verdicts in a file, a JSON line for each, so that a run that was cut off goes on."""

import json
import os
from pathlib import Path

from tests.mutation.runner import Verdict


class Results:
    """A file of verdicts. The last verdict on a bug counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        os.truncate(path, len(whole))  # of a line that a kill cut off: its bug is planted again
        found = [Verdict(**json.loads(line)) for line in whole.splitlines()]
        self.known = {verdict.name: verdict for verdict in found}

    def add(self, verdict: Verdict) -> None:
        """Write one down."""
        self.known[verdict.name] = verdict
        with self._path.open("a") as file:
            file.write(json.dumps(verdict._asdict()) + "\n")
