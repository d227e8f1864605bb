"""The module-level functions, mostly in processes of their own, as directory and environment count."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perstack_storage
from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.datadir import checkpoint, event, job, setting

NAMES = """
    createInitialJob storeJob retrieveJob getAllJobs getJobDir getJobsDir defaultStoreCheckpoint
    defaultRetrieveCheckpoint getCheckpointsByJobId getCheckpointDir getCheckpointPath defaultStoreEvent
    getEventsByRun getEventContents storeRunSetting getAllRuns defaultGetRunDir createDefaultFileSystem
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Perstack would make its `perstack/`."""
    return tmp_path_factory.mktemp("parent")


@pytest.fixture(scope="module")
def daemon(parent: Path) -> Iterator[RunningDaemon]:
    with running_daemon(parent / "perstack") as running:
        yield running


def python(code: str, cwd: Path, *arguments: str, **variables: str) -> Any:
    """Run a program; returns what it prints as JSON. Nothing tells it where the daemon is but its folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERSTACK_STORED_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=cwd,
        env={**clean, **variables},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout) if done.stdout else None


def values(**given: object) -> str:
    return json.dumps(given)


# The lines of "Usage" in the reference's README, one by one.
USAGE = """
from perstack_storage import (
    create_initial_job,
    store_job,
    retrieve_job,
    get_all_jobs,
    get_job_dir,
    get_jobs_dir,
    default_store_checkpoint,
    default_retrieve_checkpoint,
    get_checkpoints_by_job_id,
    get_checkpoint_dir,
    get_checkpoint_path,
    default_store_event,
    get_events_by_run,
    get_event_contents,
    store_run_setting,
    get_all_runs,
    default_get_run_dir,
)

# Create and store a job
job = create_initial_job("job-123", "my-expert", 50)
store_job(job)

# Retrieve a job
retrieved = retrieve_job("job-123")

# Get all jobs
jobs = get_all_jobs()
"""


def test_the_usage_section_of_the_reference_runs_line_by_line(daemon: RunningDaemon, parent: Path) -> None:
    """In the base's parent, with nothing set up."""
    job, retrieved, jobs = python(
        f"{USAGE}\nimport json\nprint(json.dumps([job, retrieved, jobs]))", cwd=parent
    )
    assert retrieved == job
    assert job in jobs
    assert job.pop("startedAt") > 1_700_000_000_000
    assert job == {
        "id": "job-123",
        "status": "running",
        "coordinatorExpertKey": "my-expert",
        "totalSteps": 0,
        "maxSteps": 50,
        "usage": dict.fromkeys(
            ["inputTokens", "outputTokens", "reasoningTokens", "totalTokens", "cachedInputTokens"], 0
        ),
    }


def test_each_name_of_the_reference_is_there_in_snake_case() -> None:
    for name in NAMES.split():
        ours = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        assert ours in perstack_storage.__all__
        assert callable(getattr(perstack_storage, ours))


def test_a_job_without_max_steps_has_no_such_field() -> None:
    assert "maxSteps" not in perstack_storage.create_initial_job("j", "@me/a@1.0.0")


def test_what_is_stored_is_read_back_by_the_other_functions(daemon: RunningDaemon, parent: Path) -> None:
    """Checkpoints, events and settings; and a client of another process sees them."""
    found = python(
        """
        import json, sys
        from perstack_storage import *
        given = json.loads(sys.argv[1])
        default_store_checkpoint(given["checkpoint"])
        for event in given["events"]:
            default_store_event(event)
        store_run_setting(given["setting"])
        try:
            default_retrieve_checkpoint("fj", "none")
        except CheckpointNotFound as error:
            missing = str(error)
        print(json.dumps([
            default_retrieve_checkpoint("fj", "cp-1"), get_checkpoints_by_job_id("fj"),
            get_events_by_run("fj", "fr"), get_event_contents("fj", "fr", 1), get_event_contents("fj", "fr"),
            [run["jobId"] for run in get_all_runs() if run["jobId"] == "fj"],
            retrieve_job("unknown"), missing,
        ]))
        """,
        parent,
        values(
            checkpoint=checkpoint(jobId="fj"),
            events=[event(jobId="fj", runId="fr", id=f"e{n}", stepNumber=n) for n in (2, 1)],
            setting=setting(jobId="fj", runId="fr"),
        ),
    )
    assert found[0] == checkpoint(jobId="fj")
    assert found[1] == [found[0]]
    assert [item["stepNumber"] for item in found[2]] == [1, 2]
    assert [item["id"] for item in found[3]] == ["e1"]
    assert [item["id"] for item in found[4]] == ["e2", "e1"]
    assert found[5:] == [["fj"], None, "checkpoint not found: none"]
    with Client(base_path=daemon.base) as client:
        assert client.retrieve_checkpoint("fj", "cp-1") == found[0]


PATHS = """
import json, os, sys
from perstack_storage import *
def paths():
    return [get_jobs_dir(), get_job_dir("j"), get_checkpoint_dir("j"), get_checkpoint_path("j", "c"),
            default_get_run_dir("j", "r")]
before = paths()
os.chdir("/")
assert paths() == before
store_job(create_initial_job("from elsewhere", "me"))
print(json.dumps(before))
"""
BELOW_THE_BASE = ["jobs", "jobs/j", "jobs/j/checkpoints", "jobs/j/checkpoints/c.json", "jobs/j/runs/r"]


@pytest.mark.parametrize("way", ["directory", "base", "endpoint"])
def test_paths_are_those_of_the_base_from_any_directory(
    daemon: RunningDaemon, parent: Path, tmp_path: Path, way: str
) -> None:
    """However the daemon was found; where only its endpoint is known, it tells the base."""
    variables = {
        "directory": {},
        "base": {"PERSTACK_STORED_BASE": str(daemon.base)},
        "endpoint": {"PERSTACK_STORED_ENDPOINT": daemon.endpoint},
    }[way]
    found = python(PATHS, parent if way == "directory" else tmp_path, **variables)
    assert found == [str(daemon.base / path) for path in BELOW_THE_BASE]


def test_paths_need_no_daemon_where_the_base_is_known(tmp_path: Path) -> None:
    found = python("import json, perstack_storage as s; print(json.dumps(s.get_jobs_dir()))", tmp_path)
    assert found == str(tmp_path / "perstack/jobs")


@pytest.mark.parametrize("id", ["../../x", "..", ".", "", "a/b", "a\\b", "a\0", "x" * 201])
def test_no_path_leads_out_of_the_base(id: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 200 bytes"):
        perstack_storage.get_job_dir(id)
    with pytest.raises(ValueError, match="checkpoint_id"):
        perstack_storage.get_checkpoint_path("j", id)
    with pytest.raises(ValueError, match="run_id"):
        perstack_storage.default_get_run_dir("j", id)


def test_the_default_file_system_means_the_daemon(daemon: RunningDaemon, parent: Path) -> None:
    """Given or not, with the default folder or not: the setting is journalled, and checked."""
    positions, refused = python(
        """
        import json, sys
        from perstack_storage import *
        given = json.loads(sys.argv[1])
        ways = [(), (create_default_file_system(),), (None, default_get_run_dir),
                (create_default_file_system(), default_get_run_dir)]
        positions = [store_run_setting(dict(given, runId=f"r{n}"), *way) for n, way in enumerate(ways)]
        try:
            store_run_setting(dict(given, runId="../x"), *ways[3])
        except Refused as error:
            refused = error.field
        print(json.dumps([positions, refused]))
        """,
        parent,
        json.dumps(setting(jobId="default-fs")),
    )
    assert all(isinstance(position, int) for position in positions)
    assert refused == "runId"
    with Client(base_path=daemon.base) as client:
        runs = [run["runId"] for run in client.get_all_runs() if run["jobId"] == "default-fs"]
    assert sorted(runs) == ["r0", "r1", "r2", "r3"]


class DictFileSystem:
    """Foreign: files in a dictionary."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.folders: list[str] = []

    def exists(self, path: str) -> bool:
        return path in self.files

    def mkdir(self, path: str) -> None:
        self.folders.append(path)

    def read_file(self, path: str) -> str:
        return self.files[path]

    def write_file(self, path: str, text: str) -> None:
        self.files[path] = text


@pytest.fixture
def own_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The default of this process is a base that nobody serves."""
    monkeypatch.setenv("PERSTACK_STORED_BASE", str(tmp_path / "nobody"))
    perstack_storage.close_default_client()
    yield tmp_path / "nobody"
    perstack_storage.close_default_client()


def test_a_foreign_file_system_is_written_through(own_default: Path) -> None:
    """No daemon is asked; of a setting that is there only `updatedAt` changes, to now."""
    fs = DictFileSystem()
    first = setting(extra={"big": 2**70, "lone": "\ud800"}, updatedAt=1)
    assert perstack_storage.store_run_setting(first, fs) is None
    run_dir = f"{own_default}/jobs/job-1/runs/run-1"
    path = f"{run_dir}/run-setting.json"
    assert fs.folders == [run_dir]
    assert json.loads(fs.files[path]) == first
    assert perstack_storage.store_run_setting(setting(model="other"), fs) is None
    second = json.loads(fs.files[path])
    assert second.pop("updatedAt") > 1_700_000_000_000
    assert second == {name: value for name, value in first.items() if name != "updatedAt"}


def test_a_foreign_folder_is_written_whole_and_not_for_everybody(own_default: Path, tmp_path: Path) -> None:
    """Also where the run's folder is there already, at which the reference fails."""

    def run_dir(job_id: str, run_id: str) -> str:
        return f"{tmp_path}/mine/{job_id}-{run_id}"

    (tmp_path / "mine/job-1-run-2").mkdir(parents=True)
    for run in ("run-1", "run-2"):
        assert perstack_storage.store_run_setting(setting(runId=run), None, run_dir) is None
        path = tmp_path / f"mine/job-1-{run}/run-setting.json"
        assert json.loads(path.read_bytes()) == setting(runId=run)
        assert path.stat().st_mode & 0o777 == 0o640
        inode = path.stat().st_ino
        perstack_storage.store_run_setting(setting(runId=run), get_run_dir=run_dir)
        assert path.stat().st_ino != inode  # replaced, never rewritten
        assert os.listdir(path.parent) == ["run-setting.json"]


def test_threads_and_forked_children_use_the_same_functions(daemon: RunningDaemon, parent: Path) -> None:
    """A child forked while another thread makes the client is not left with a lock that nobody gives back."""
    found = python(
        """
        import json, os, threading
        from perstack_storage import *
        def store(name):
            for n in range(20):
                store_job(create_initial_job(f"{name}-{n}", "me"))
        threads = [threading.Thread(target=store, args=(f"t{k}",)) for k in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for k in range(4):
            pid = os.fork()
            if not pid:
                store(f"c{k}")
                os._exit(0)
            children.append(pid)
        for thread in threads:
            thread.join()
        ended = [os.waitpid(pid, 0)[1] for pid in children]
        print(json.dumps([ended, sorted(job["id"] for job in get_all_jobs() if job["id"][2:3] == "-")]))
        """,
        parent,
        PYTHONWARNINGS="ignore",  # newer Pythons warn of forks beside threads
    )
    assert found[0] == [0, 0, 0, 0]
    assert found[1] == sorted(f"{kind}{k}-{n}" for kind in "tc" for k in range(4) for n in range(20))


def test_the_default_is_looked_for_again_after_it_was_closed(
    daemon: RunningDaemon, own_default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a change of the environment changes nothing."""
    assert perstack_storage.get_jobs_dir() == f"{own_default}/jobs"
    monkeypatch.setenv("PERSTACK_STORED_BASE", str(daemon.base))
    assert perstack_storage.get_jobs_dir() == f"{own_default}/jobs"
    perstack_storage.close_default_client()
    assert perstack_storage.get_jobs_dir() == f"{daemon.base}/jobs"
    assert perstack_storage.store_job(job(id="after")) > 0
