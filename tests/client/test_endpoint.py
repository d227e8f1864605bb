"""Client and daemon find each other by the same rules."""

import hashlib
import os
from pathlib import Path

import pytest

from perstack_storage import EndpointError, resolve_base, resolve_endpoint, socket_path_of


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("PERSTACK_STORED_BASE", "PERSTACK_STORAGE_PATH", "PERSTACK_STORED_ENDPOINT", "XDG_RUNTIME_DIR")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_base_is_the_argument_then_a_variable_then_perstack_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert resolve_base(None) == str(tmp_path / "perstack")
    monkeypatch.setenv("PERSTACK_STORAGE_PATH", "")
    assert resolve_base(None) == str(tmp_path / "perstack")
    monkeypatch.setenv("PERSTACK_STORAGE_PATH", "from/perstack")
    assert resolve_base(None) == str(tmp_path / "from/perstack")
    monkeypatch.setenv("PERSTACK_STORED_BASE", "")
    assert resolve_base(None) == str(tmp_path / "from/perstack")
    monkeypatch.setenv("PERSTACK_STORED_BASE", "from/variable")
    assert resolve_base(None) == str(tmp_path / "from/variable")
    assert resolve_base("argument") == str(tmp_path / "argument")
    assert resolve_base(Path("argument")) == str(tmp_path / "argument")


def test_the_base_has_its_symbolic_links_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_base("link") == str(tmp_path / "real")


def test_the_endpoint_is_the_argument_then_the_variable_then_the_socket_of_the_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resolve_endpoint(None, "/srv/p") == "ipc:///srv/p/.stored/stored.sock"
    monkeypatch.setenv("PERSTACK_STORED_ENDPOINT", "tcp://127.0.0.1:1")
    assert resolve_endpoint(None, "/srv/p") == "tcp://127.0.0.1:1"
    assert resolve_endpoint("tcp://127.0.0.1:2", "/srv/p") == "tcp://127.0.0.1:2"


@pytest.mark.parametrize(("length", "fits"), [(107, True), (108, False)])
def test_a_socket_path_may_have_107_bytes(length: int, fits: bool) -> None:
    base = "/" + "x" * (length - len("/" + "/.stored/stored.sock"))
    if fits:
        assert socket_path_of(base) == f"{base}/.stored/stored.sock"
    else:
        with pytest.raises(EndpointError, match="PERSTACK_STORED_ENDPOINT"):
            socket_path_of(base)


def test_bytes_are_counted_not_characters() -> None:
    with pytest.raises(EndpointError):
        socket_path_of("/" + "ü" * 50)


def test_a_long_base_has_its_socket_in_the_private_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    base = "/" + "ü" * 100
    digest = hashlib.sha256(base.encode()).hexdigest()[:16]
    assert socket_path_of(base) == f"/run/user/7/perstack-stored-{digest}.sock"


def test_a_runtime_folder_that_is_too_long_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/" + "y" * 100)
    with pytest.raises(EndpointError, match="and so is"):
        socket_path_of("/" + "x" * 100)


def test_a_base_that_is_not_utf8_is_taken() -> None:
    assert os.fsencode(socket_path_of(os.fsdecode(b"/srv/\xff"))) == b"/srv/\xff/.stored/stored.sock"
