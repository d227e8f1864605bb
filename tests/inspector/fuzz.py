"""Requests that schemathesis makes from the gateway's OpenAPI document: right ones, wrong ones, edges.

    python -m tests.inspector.fuzz SCHEMATHESIS [--requests 10000] [--minutes 30] [--seed N]

SCHEMATHESIS is its program; `make inspect-fuzz` installs it. Exits with status 1 if an answer is not as the
document says, if the gateway fails, or where fewer requests were made.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.helpers.daemon import running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.inspector.test_fuzz import fill

HERE = Path(__file__).parent
FEW = 3
"""Operations of which there are few requests to make: they take no parameters, or one."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"
)
# What is wrong may be refused as too large, or name nothing.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 410, 413]
"""


def _command(program: str, inspector: Inspector, given: argparse.Namespace, config: Path) -> list[str]:
    operations = len(inspector.get("/api/openapi.json")["paths"]) - 1 - FEW
    command = [
        str(Path(program).absolute()), "--config-file", str(config), "run",
        f"http://127.0.0.1:{inspector.port}/api/openapi.json",
        "--header", f"Authorization: Bearer {inspector.token}",
        "--exclude-path", "/api/stream",  # it does not end
        "--phases", "coverage,fuzzing", "--checks", CHECKS,
        "--max-examples", str(math.ceil(given.requests / operations)),
        "--workers", "4", "--generation-database", "none", "--request-timeout", "60",
        "--continue-on-failure", "--no-color", "--warnings", "off",
    ]  # fmt: skip
    return command if given.seed is None else [*command, "--seed", str(given.seed)]


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def _counts(path: Path) -> tuple[int, dict[str, Any]]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return sum(number for name, number in found.items() if name.startswith("status")), found


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        running_daemon(Path(temporary) / "base") as daemon,
        running_inspector(daemon) as inspector,
    ):
        fill(daemon)
        config, counts = Path(temporary) / "config.toml", Path(temporary) / "counts.json"
        config.write_text(CONFIG)
        environment = {
            **os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "fuzz_hooks",
            "FUZZ_COUNTS": str(counts),
        }  # fmt: skip
        started = time.monotonic()
        command = _command(given.program, inspector, given, config)
        try:
            status = subprocess.run(
                command, check=False, env=environment, cwd=temporary, timeout=given.minutes * 60
            ).returncode
        except subprocess.TimeoutExpired:
            print(f"it was not through after {given.minutes:g} minutes")
            status = 1
        memory = _memory_mb(inspector.process.pid)
        is_alive = inspector.ask("/api/hello").status == 200
        number, found = _counts(counts)
    print(f"{number:,} requests in {time.monotonic() - started:.0f} s, gateway {memory:.0f} MB")
    print(", ".join(f"{name}: {count:,}" for name, count in sorted(found.items())))
    return 0 if status == 0 and is_alive and number >= given.requests else 1


if __name__ == "__main__":
    sys.exit(main())
