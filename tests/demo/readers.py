"""Two readers of what was stored: one uses the client, one reads the tree by `proto/tree.md` alone."""

import re
from pathlib import Path
from typing import Any

import orjson

from perstack_storage import Client
from tests.demo.compare import Item, Sections, events_section, item_of, run_item_of, setting_section

_EVENT_FILE = re.compile(r"event-(\d+)-(\d+)-([^.]+)(?:\.n(\d{4,}))?\.json")
_STRAY = "files in the tree"


def read_answers(client: Client, job: str, runs: list[str]) -> Sections:
    """What the client answers of a job; the values are put back into bytes."""
    stored = client.retrieve_job(job)
    sections = {
        f"job {job}": [] if stored is None else [item_of(stored)],
        f"checkpoints of {job}": list(map(item_of, client.get_checkpoints_by_job_id(job))),
    }
    for run in runs:
        sections[events_section(job, run)] = list(map(item_of, client.get_event_contents(job, run)))
    return sections


def read_listings(client: Client) -> Sections:
    """What the client answers of all jobs and all runs."""
    jobs, runs = client.get_all_jobs(), client.get_all_runs()
    return {"all jobs": list(map(item_of, jobs)), "all runs": list(map(run_item_of, runs))}


def jobs_in_tree(base: Path) -> list[str]:
    """Ids of the jobs that have a folder."""
    return sorted(path.name for path in (base / "jobs").iterdir())


def read_tree(base: Path, job: str) -> Sections:
    """What the tree holds of a job; misplaced files are a section of their own."""
    folder = base / "jobs" / job
    checkpoints = sorted((folder / "checkpoints").glob("*"))
    sections: Sections = {
        f"job {job}": [Item(job, path.read_bytes()) for path in folder.glob("job.json")],
        f"checkpoints of {job}": [
            Item(path.name.removesuffix(".json"), path.read_bytes()) for path in checkpoints
        ],
    }
    stray = [path for path in folder.glob("*") if path.name not in {"job.json", "checkpoints", "runs"}]
    for run in sorted((folder / "runs").glob("*")):
        events = []
        for path in run.iterdir():
            match = _EVENT_FILE.fullmatch(path.name)
            if path.name == "run-setting.json":
                item = Item(f"{job}/{run.name}", path.read_bytes())
                sections[setting_section(job, run.name)] = [item]
            elif match:
                timestamp, step, kind, n = match.groups()
                events.append(((int(timestamp), int(step), kind, int(n or 1)), path))
            else:
                stray.append(path)
        sections[events_section(job, run.name)] = _events(sorted(events), stray)
    if stray:
        sections[_STRAY] = [Item(str(path.relative_to(base)), b"") for path in stray]
    return sections


def _events(files: list[tuple[tuple[int, int, str, int], Path]], misnamed: list[Path]) -> list[Item]:
    """The events of a run by name of file, and the files whose names don't fit their content."""
    items = []
    before: tuple[int, int, str, int] = (0, 0, "", 0)
    for name, path in files:
        data = path.read_bytes()
        event = _parsed(data)
        twin_wanted = before[3] + 1 if name[:3] == before[:3] else 1
        if name != (int(event.get("timestamp", 0)), event.get("stepNumber"), event.get("type"), twin_wanted):
            misnamed.append(path)
        before = name
        items.append(Item(str(event.get("id", path.name)), data))
    return items


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
