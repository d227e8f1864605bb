"""The settings file with real processes: `config`, the daemon, and SIGHUP."""

import json
import os
import signal
from pathlib import Path

from tests.helpers import commands
from tests.helpers.daemon import eventually, running_daemon
from tests.helpers.raw_client import Raw, event


def test_config_prints_what_is_in_force_and_from_where(tmp_path: Path) -> None:
    """As a settings file, or as JSON; base and endpoint as they come out."""
    path = tmp_path / "stored.toml"
    path.write_text(f'base-path = "{tmp_path}/base"\nreads-max = 11\n')
    arguments = ("config", "--config", str(path), "--parts-seconds", "5")
    done = commands.run(*arguments, environment={"PERSTACK_STORED_READ_SECONDS": "7"})
    assert done.returncode == 0
    lines = {line.split(" = ")[0]: line for line in done.stdout.splitlines()}
    assert lines["reads-max"].split() == ["reads-max", "=", "11", "#", "file", str(path)]
    assert lines["read-seconds"].endswith("# environment PERSTACK_STORED_READ_SECONDS")
    assert lines["parts-seconds"].endswith("# flag --parts-seconds")
    assert f'["ipc://{tmp_path}/base/.stored/stored.sock"]' in lines["bind"]
    values = json.loads(commands.run(*arguments, "--json").stdout)
    assert values["reads-max"] == {"value": 11, "text": "11", "from": f"file {path}"}
    assert values["socket-mode"]["text"] == '"0660"'


def test_an_unknown_key_ends_every_command(tmp_path: Path) -> None:
    """A status that is not 0, and a sentence with the key; of exec, 125."""
    path = tmp_path / "stored.toml"
    path.write_text("reads_max = 11\n")
    for command, status in (("serve", 78), ("config", 2), ("check", 2), ("exec", 125)):
        rest = ("--", "true") if command == "exec" else ()
        done = commands.run(command, "--config", str(path), *rest)
        assert done.returncode == status
        assert "'reads_max'; did you mean 'reads-max'?" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_daemon_and_the_offline_tools_find_the_base_in_the_file(tmp_path: Path) -> None:
    base = tmp_path / "base"
    path = tmp_path / "stored.toml"
    path.write_text(f'base-path = "{base}"\nfile-mode = "0600"\n')
    with running_daemon(base, "--config", str(path)) as daemon, Raw(daemon.endpoint) as raw:
        raw.store("storeEvent", event())
        daemon.stop()
    (file,) = base.glob("jobs/*/runs/*/event-*")
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    assert commands.run("rebuild", "--config", str(path)).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    done = commands.run("check", environment={"PERSTACK_STORED_CONFIG": str(path)})
    assert (done.returncode, done.stdout.split(";")[0]) == (0, "clean")


def test_sighup_takes_up_what_can_be_taken_up(tmp_path: Path) -> None:
    """The log names what changed and what needs a restart; a file that is wrong changes nothing."""
    path = tmp_path / "stored.toml"
    path.write_text("")
    with running_daemon(tmp_path / "base", "--config", str(path)) as daemon, Raw(daemon.endpoint) as raw:
        assert daemon.process is not None

        def reload(text: str, name: str) -> dict[str, object]:
            before = len(daemon.events(name))
            path.write_text(text)
            os.kill(daemon.pid, signal.SIGHUP)
            eventually(lambda: len(daemon.events(name)) > before, f"the log says {name}")
            return daemon.events(name)[-1]

        said = reload("segment-bytes = 2097152\nreads-max = 1\nfollows-max = 1\n", "reloaded")
        assert (said["changed"], said["needs_restart"]) == (["reads-max"], ["follows-max", "segment-bytes"])
        said = reload("reads_max = 5\n", "reload_failed")
        assert "'reads_max'" in str(said["reason"])
        said = reload('log-level = "debug"\n', "reloaded")
        assert said["changed"] == ["log-level", "reads-max"]
        reload('log-level = "error"\n', "reloaded")
        assert raw.store("storeEvent", event()) == 1
        assert daemon.stop() == 0
        assert daemon.events("stopped") == []
