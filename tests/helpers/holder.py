"""A client in a process of its own that asks for much and takes nothing: for the tests of shares."""

import json
import sys

from tests.helpers.raw_client import Raw


def main(endpoint: str, op: str, arguments: str, count: int, answers: int) -> None:
    """Send a request a number of times, wait for a number of answers, report it, and do nothing more."""
    with Raw(endpoint, sndhwm=0, rcvhwm=0) as raw:
        for _ in range(count):
            raw.send(op, json.loads(arguments))
        for _ in range(answers):
            raw.receive(60)
        sys.stdout.write("holds\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
