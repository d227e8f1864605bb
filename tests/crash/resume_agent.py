"""A program that goes on with a job: its commands and answers are lines.

`resume` reads the job, and says `ready`. `store N` stores event N for it, and says `stored POSITION` or
`taken`.
"""

import sys
from typing import Any

from perstack_storage import Client, JobTakenOver, ResumedJob

JOB, RUN = "resumed", "r"


def event(n: int, who: str) -> dict[str, Any]:
    """The event of a round, by a program."""
    return {
        "type": "round", "id": f"{who}-{n}", "expertKey": "e", "timestamp": n, "jobId": JOB, "runId": RUN,
        "stepNumber": 0, "n": n, "who": who,
    }  # fmt: skip


def main(endpoint: str, who: str) -> None:
    """Serve commands until the input ends."""
    with Client(endpoint, timeout_s=60) as client:
        job: ResumedJob | None = None
        for line in sys.stdin:
            command, *words = line.split()
            if command == "resume" or job is None:
                job = client.resume(JOB)
                answer = "ready"
            else:
                try:
                    answer = f"stored {job.store_event(event(int(words[0]), who))}"
                except JobTakenOver:
                    answer = "taken"
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
