"""Where settings come from, and what is said of those that are wrong."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.config.settings import ITEMS, Settings, key_of, variable_of
from perstack_stored.config.sources import CONFIG_VARIABLE, Config, Sources, describe, reloaded, sample
from perstack_stored.errors import ConfigError

SAMPLE = Path(__file__).parents[3] / "deploy/perstack-stored.toml"


def read(
    tmp_path: Path, text: str | None = None, flags: dict[str, Any] | None = None, **environment: str
) -> Config:
    path = None
    if text is not None:
        path = tmp_path / "stored.toml"
        path.write_text(text)
    return Sources(None if path is None else str(path), flags or {}, environment).read()


def refusal(tmp_path: Path, text: str | None = None, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, None, **environment)
    return str(caught.value)


def test_flags_go_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each value says where it comes from."""
    text = 'reads-max = 1\nread-seconds = 1\nparts-seconds = 1\nlog-level = "debug"\nfile-mode = "0600"\n'
    environment = {"PERSTACK_STORED_READ_SECONDS": "2", "PERSTACK_STORED_PARTS_SECONDS": "2"}
    found = read(tmp_path, text, {"parts_seconds": 3}, **environment)
    settings = found.settings
    assert (settings.reads_max, settings.read_seconds, settings.parts_seconds) == (1, 2, 3)
    assert (settings.log_level, settings.file_mode) == ("debug", 0o600)
    assert found.origins["reads_max"] == f"file {tmp_path}/stored.toml"
    assert found.origins["read_seconds"] == "environment PERSTACK_STORED_READ_SECONDS"
    assert found.origins["parts_seconds"] == "flag --parts-seconds"
    assert found.origins["follows_max"] == "default"


def test_the_base_is_found_where_perstack_has_it_if_nothing_else_names_it(tmp_path: Path) -> None:
    perstack: dict[str, Any] = {"PERSTACK_STORAGE_PATH": "/perstack"}
    for text, environment, base, origin in (
        (None, perstack, "/perstack", "environment PERSTACK_STORAGE_PATH"),
        (None, {**perstack, "PERSTACK_STORED_BASE": "/own"}, "/own", "environment PERSTACK_STORED_BASE"),
        ('base-path = "/file"', perstack, "/file", f"file {tmp_path}/stored.toml"),
    ):
        found = read(tmp_path, text, **environment)
        assert (found.base, found.origins["base_path"]) == (base, origin)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "stored.toml"
    path.write_text("reads-max = 7\n")
    assert Sources(None, {}, {CONFIG_VARIABLE: str(path)}).read().settings.reads_max == 7


def test_without_anything_all_is_default(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.settings == Settings()
    assert set(found.origins.values()) == {"default"}


def test_an_endpoint_of_the_environment_may_hold_spaces(tmp_path: Path) -> None:
    found = read(tmp_path, None, None, PERSTACK_STORED_ENDPOINT="ipc:///a folder/x.sock")
    assert found.settings.bind == ("ipc:///a folder/x.sock",)


def test_a_list_of_endpoints_is_for_clients_only(tmp_path: Path) -> None:
    """The setting and its source are named; a tool that serves nothing takes it, as a client does."""
    both = "ipc:///run/a,b.sock, tcp://b:7171"
    for text, flags, environment, source in (
        (None, None, {"PERSTACK_STORED_ENDPOINT": both}, "environment PERSTACK_STORED_ENDPOINT"),
        (None, {"bind": ("ipc:///x", both)}, {}, "flag --bind"),
        (f'bind = ["{both}"]', None, {}, f"file {tmp_path}/stored.toml"),
    ):
        found = read(tmp_path, text, flags, **environment)
        with pytest.raises(ConfigError, match="give --bind once for each") as caught:
            _ = found.endpoints
        assert str(caught.value).startswith(f"bind, from {source}: {both} is a list of daemons")
    own = ("ipc:///run/a,b.sock", "tcp://b:7171")
    assert read(tmp_path, None, {"bind": own}).endpoints == own


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("read-secnds = 5", "'read-secnds'; did you mean 'read-seconds'?"),
        ("read_seconds = 5", "'read_seconds'; did you mean 'read-seconds'?"),
        ("[limits]\nread-seconds = 5", "'limits'"),
        ("zzz = 5", "there is no setting 'zzz'"),
        ('read-seconds = "5"', "read-seconds must be an integer"),
        ("read-seconds = true", "read-seconds must be an integer"),
        ("read-seconds = 5.5", "read-seconds must be an integer"),
        ("read-seconds = 0", "read-seconds must be between 1 and"),
        ("file-mode = 640", "file-mode must be a string with an octal mode"),
        ('file-mode = "0888"', "file-mode must be a string with an octal mode"),
        ('file-mode = "7777"', "file-mode must be between 0400 and 0777"),
        ('log-level = "loud"', "log-level must be one of debug, info"),
        ('bind = "ipc:///x"', "bind must be a list of strings"),
        ("bind = [1]", "bind must be a list of strings"),
        (
            "half-frames-bytes-max = 2000000",
            "half-frames-bytes-max (2000000) must be at least frame-bytes-max",
        ),
        ("base-path = []", "base-path must be a string"),
        ("read-seconds = ", "not TOML"),
        ("read-seconds = 5\nread-seconds = 6", "not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    """With the file, and for a key that is close to one that exists, with that."""
    reason = refusal(tmp_path, text)
    assert says in reason
    assert str(tmp_path) in reason or "between" in reason or "at least" in reason


def test_types_of_events_are_those_of_perstack(tmp_path: Path) -> None:
    """A typing mistake would leave nothing out, unnoticed."""
    found = read(tmp_path, PERSTACK_STORED_TREE_LEAVE_OUT="streamReasoning,streamRunResult").settings
    assert found.tree_leave_out == ("streamReasoning", "streamRunResult")
    says = refusal(tmp_path, 'tree-leave-out = ["startRun", "streamReasonin"]')
    assert says == (
        "tree-leave-out: word 2 of 2 is no type of event that Perstack has; did you mean streamReasoning?"
    )
    assert "it can be startRun, " in refusal(tmp_path, PERSTACK_STORED_TREE_LEAVE_OUT="all")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        Sources(str(tmp_path / "nothing.toml"), {}, {}).read()


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "stored.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"stored\.toml"):
        Sources(str(path), {}, {}).read()


@pytest.mark.parametrize("value", ["soon", "1e3", "", " "])
def test_what_is_wrong_in_the_environment_is_named(tmp_path: Path, value: str) -> None:
    """An empty variable counts as none."""
    if value:
        assert "PERSTACK_STORED_READ_SECONDS" in refusal(tmp_path, None, PERSTACK_STORED_READ_SECONDS=value)
    else:
        assert read(tmp_path, None, None, PERSTACK_STORED_READ_SECONDS=value).settings == Settings()


def test_what_is_printed_is_a_settings_file_with_the_same_values(tmp_path: Path) -> None:
    """Also where values hold quotes, backslashes and control characters."""
    flags = {
        "reads_max": 9,
        "file_mode": 0o600,
        "bind": ('ipc:///"a"\\b\n', "tcp://127.0.0.1:1"),
        "log_level": "debug",
    }
    found = read(tmp_path, None, flags)
    again = read(tmp_path, describe(found))
    assert again.settings == found.settings
    assert "# flag --reads-max" in describe(found)


def test_the_sample_is_the_one_that_is_deployed() -> None:
    """`perstack-stored config --sample > deploy/perstack-stored.toml` writes it."""
    assert SAMPLE.read_text() == sample()


def test_the_sample_holds_every_setting_at_its_default(tmp_path: Path) -> None:
    """Nothing is in force of it as it is, and with all of it uncommented nothing changes."""
    assert tomllib.loads(SAMPLE.read_text()) == {}
    uncommented = re.sub(r"(?m)^#(?=[a-z-]+ = )", "", SAMPLE.read_text())
    assert set(tomllib.loads(uncommented)) == {key_of(item) for item in ITEMS.values()}
    assert read(tmp_path, uncommented).settings == Settings()


def test_names_of_keys_and_variables_are_unique() -> None:
    assert len({variable_of(item) for item in ITEMS.values()}) == len(ITEMS)


def test_a_reload_takes_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    now = read(tmp_path, "read-seconds = 5\n")
    wanted = read(tmp_path, 'reads-max = 3\nsegment-bytes = 2097152\nlog-level = "debug"\n')
    config, taken, left = reloaded(now, wanted)
    assert taken == ["log-level", "reads-max"]
    assert left == ["read-seconds", "segment-bytes"]
    assert (config.settings.reads_max, config.settings.read_seconds) == (3, 5)
    assert config.settings.segment_bytes == Settings().segment_bytes
    assert reloaded(config, wanted)[1] == []


@pytest.mark.parametrize(
    "name", [name for name, item in ITEMS.items() if item.metadata["kind"] in {"word", "words"}]
)
def test_text_that_no_path_can_hold_is_refused_by_the_setting_s_name(tmp_path: Path, name: str) -> None:
    """A NUL of the file, bytes that are not UTF-8 of a flag or the environment; they are not repeated."""
    item = ITEMS[name]
    many = item.metadata["kind"] == "words"
    text = '["x", "/a\\u0000b"]' if many else '"/a\\u0000b"'
    assert f"{key_of(item)} must not have a NUL" in refusal(tmp_path, f"{key_of(item)} = {text}\n")
    assert f"{key_of(item)} must be UTF-8" in refusal(tmp_path, **{variable_of(item): "/a\udcffb"})
    odd = ("/a\udcffb",) if many else "/a\udcffb"
    with pytest.raises(ConfigError, match=f"{key_of(item)} must be UTF-8") as caught:
        read(tmp_path, None, {name: odd})
    assert str(caught.value).isascii()


def test_a_base_is_refused_whose_path_comes_out_as_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory may have bytes that are not UTF-8, or be gone."""
    odd = tmp_path / "inv\udcff"
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(ConfigError, match="the path of the base must be UTF-8"):
        _ = read(tmp_path).base
    odd.rmdir()
    with pytest.raises(ConfigError, match="the working directory"):
        _ = read(tmp_path).base
    with pytest.raises(ConfigError, match="settings file"):
        Sources("stored.toml", {}, {}).read()
