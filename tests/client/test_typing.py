"""What type checkers say of a program that uses the client: mypy, as strict as it can be, and pyright."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.systemd.debian import need

PYRIGHT = ROOT / "client/typescript/node_modules/pyright/index.js"  # an npm package; it is locked there

# A line that ends with "# refused" has an error, and no other has one but where the two differ: pyright takes
# an empty dict for one of Any, and of a dict that was made of another one it keeps the types of the values.
PROGRAM = """
import json
from collections.abc import Mapping
from typing import Any
from perstack_storage import (
    AsyncClient, CheckpointFields, Client, EventFields, Job, JobFields, JsonObject,
    RunEvent, StreamReasoningEvent, default_store_event,
)

def literals(client: Client) -> None:
    client.store_event({"type": 3})  # refused
    client.store_event({"type": "startRun"})  # refused
    client.store_event({})  # mypy: refused
    client.store_event([])  # refused
    client.store_event("startRun")  # refused
    client.store_event({"type": "own", "id": "e", REST})
    client.store_event({"type": "own", "id": 7, REST})  # refused
    client.store_event({"type": "streamReasoning", "delta": "a", "id": "e", REST})
    client.store_event({"type": "streamReasoning", "delta": 7, "id": "e", REST})  # refused
    client.store_job({"id": "j"})  # refused
    client.store_checkpoint({"id": "c", "jobId": "j"})  # refused
    client.store_run_setting({"jobId": "j"})  # refused
    client.store_event_nowait({"type": 3})  # refused
    default_store_event({"type": 3})  # refused
    with client.pipeline() as pipeline:
        pipeline.store_event({"type": 3})  # refused
        pipeline.store_job({"id": 1})  # refused
    with client.atomic() as batch:
        batch.store_event({"type": 3})  # refused

def statuses(client: Client, job: JobFields, checkpoint: CheckpointFields, text: str) -> None:
    job["status"] = checkpoint["status"] = text
    client.store_job(job)
    client.store_checkpoint(checkpoint)
    found = client.retrieve_job("j")
    if found is not None:
        if found["status"] == "completed":
            client.store_job(found)
        found["status"] = "stoppedByError"
        found["status"] = "stopped"  # refused
    for stored in client.get_checkpoints_by_job_id("j"):
        stored["status"] = "running"  # refused

def counters(client: Client) -> None:
    stats = client.stats()
    lag: int | None = stats["index"]["lagRecords"]
    late: int = stats["index"]["lagRecords"]  # refused
    total: int = sum(stats["stored"].values()) + stats["deletions"]["pending"]
    stats["undefined"]  # refused
    for cursor in client.cursors():
        behind: int = cursor["lag"]

async def in_asyncio(client: AsyncClient, event: RunEvent) -> None:
    await client.store_event({"type": 3})  # refused
    await client.store_event(event)

def from_json(client: Client, text: str, mapping: Mapping[str, Any], objects: dict[str, object]) -> None:
    value: dict[str, Any] = json.loads(text)
    client.store_event(value)
    client.store_event(json.loads(text))
    client.store_event(mapping)
    client.store_event({**value, "id": "another"})  # pyright: refused
    client.store_event(value | {"id": "another"})  # pyright: refused
    client.store_event(dict(value, id="another"))
    client.store_job(value)
    client.store_checkpoint(value)
    client.store_run_setting(value)
    client.store_event(objects)  # refused
    given: JsonObject = value
    client.store_event(given)
    for record in client.read_all():
        client.store_event(record["value"])

def read_and_stored_again(client: Client, job: Job, fields: EventFields) -> None:
    for event in client.get_event_contents("j", "r"):
        client.store_event(event)
        if event["type"] == "streamReasoning":
            delta: str = event["delta"]
            streamed: StreamReasoningEvent = event
        elif event["type"] == "completeRun":
            total: float = event["usage"]["totalTokens"]
            event["delta"]  # refused
    found = client.retrieve_job("j")
    if found is not None:
        client.store_job(found)
        client.store_event(found)  # refused
    client.store_event(fields)
    client.store_job(job)
    for checkpoint in client.get_checkpoints_by_job_id("j"):
        client.store_checkpoint(checkpoint)
"""
REST = '"timestamp": 1, "stepNumber": 0, "expertKey": "k", "jobId": "j", "runId": "r"'


def errors(file: Path) -> set[int]:
    """Lines with an error."""
    words = ["--strict", "--no-error-summary", "--cache-dir", str(file.parent / "cache"), str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "/dev/null", "--follow-imports", "silent", *words],
        cwd=file.parent, env={"MYPYPATH": str(ROOT / "client/python")}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return {int(number) for number in re.findall(rf"^{file.name}:(\d+): error", done.stdout, re.MULTILINE)}


def pyright_errors(folder: Path) -> dict[str, set[int]]:
    """Lines with an error, by the name of the file."""
    settings = {"extraPaths": [str(ROOT / "client/python")], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        ["node", PYRIGHT, "--outputjson", "--pythonpath", sys.executable, "--project", folder],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: dict[str, set[int]] = {}
    for said in json.loads(done.stdout)["generalDiagnostics"]:
        assert said["severity"] == "error", said
        found.setdefault(Path(said["file"]).name, set()).add(said["range"]["start"]["line"] + 1)
    return found


def refused(marks: tuple[str, ...]) -> set[int]:
    """Lines of the program with one of these marks at their end."""
    return {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith(marks)}


def write(folder: Path) -> list[Path]:
    """Write the program, and the first examples of two pages."""
    files = [folder / "program.py", folder / "example0.py", folder / "example1.py"]
    files[0].write_text(PROGRAM.replace("REST", REST))
    for file, page in zip(files[1:], ("README.md", "client/python/README.md"), strict=True):
        example = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        assert example is not None
        file.write_text(example[1])
    return files


def test_wrong_values_are_refused_and_right_ones_are_not(tmp_path: Path) -> None:
    program, *examples = write(tmp_path)
    expected = refused(("  # refused", "  # mypy: refused"))
    found = errors(program)
    assert len(expected) > 15
    assert {PROGRAM.splitlines()[number - 1] for number in found ^ expected} == set()
    for example in examples:
        assert errors(example) == set(), example.read_text()


def test_pyright_refuses_wrong_values_and_passes_the_examples(tmp_path: Path) -> None:
    need(PYRIGHT.is_file() and shutil.which("node") is not None, "install node and npm, then: make check")
    write(tmp_path)
    found = pyright_errors(tmp_path)
    expected = refused(("  # refused", "  # pyright: refused"))
    lines = PROGRAM.splitlines()
    assert {lines[number - 1] for number in found.pop("program.py", set()) ^ expected} == set()
    assert found == {}


def test_at_run_time_the_names_are_there_and_nothing_more_is_imported() -> None:
    """An event's base is a TypedDict, as it was: programs may call it, or derive from it."""
    program = (
        "import sys\n"
        "from perstack_storage import Client, Job, RunEvent, Refused\n"
        "assert not {'perstack_storage._core.events', 'perstack_storage._core.inputs'} & set(sys.modules)\n"
        "assert RunEvent(type='a', id='e')['type'] == 'a'\n"
        "class Own(RunEvent): n: int\n"
        "from perstack_storage import EventFields, JsonObject, StreamReasoningEvent, Step\n"
        "from perstack_storage import *\n"
        "assert StreamReasoningEvent(delta='a') == {'delta': 'a'}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
