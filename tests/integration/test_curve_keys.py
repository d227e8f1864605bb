"""Files of keys and the list of clients: made for their owner alone, refused when a line is wrong."""

import os
import stat
from pathlib import Path

import pytest
import zmq

from perstack_stored.access import curve_keys
from perstack_stored.errors import ConfigError
from tests.helpers import commands
from tests.integration.curve import keygen


def test_keygen_makes_a_file_for_its_owner_alone_and_shows_no_secret(tmp_path: Path) -> None:
    """Whatever the umask is; and it overwrites nothing."""
    path = tmp_path / "k"
    before = os.umask(0)
    try:
        line = keygen(path, "--name", "agents@host")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    name, access, public = line.split()
    assert (name, access) == ("agents@host", "read-write")
    pair = curve_keys.load(str(path))
    assert pair.public.decode() == public
    assert pair.secret.decode() not in line
    assert pair.secret.decode() not in repr(pair)
    assert commands.run("keygen", str(path)).returncode == 2
    assert curve_keys.load(str(path)) == pair


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("", 0o600, "no CURVE key pair"),
        ('public-key = "short"\nsecret-key = "short"', 0o600, "no CURVE key pair"),
        (None, 0o644, "others may read"),
        (None, 0o602, "others may read"),
        ("other", 0o600, "no pair"),
        ("\xff\xfe", 0o600, "no key file"),
    ],
)
def test_a_key_file_that_is_wrong_is_refused(tmp_path: Path, text: str | None, mode: int, says: str) -> None:
    """Also one that others can read: the secret is none any more. No message has a key in it."""
    path = tmp_path / "k"
    pair = curve_keys.generate(str(path))
    if text == "other":
        path.write_text(path.read_text().replace(pair.public.decode(), zmq.curve_keypair()[0].decode()))
    elif text is not None:
        path.write_bytes(text.encode("latin-1"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=says) as caught:
        curve_keys.load(str(path))
    assert pair.secret.decode() not in str(caught.value)


def test_a_key_in_the_place_of_a_path_is_not_repeated(tmp_path: Path) -> None:
    secret = zmq.curve_keypair()[1].decode().replace("/", "x")
    for load in (curve_keys.load, curve_keys.load_clients):
        with pytest.raises(ConfigError) as caught:
            load(secret)
        assert secret not in str(caught.value)


KEY = zmq.curve_keypair()[0].decode()


@pytest.mark.parametrize(
    "line",
    [
        "name",
        f"name {KEY}",
        f"read-write {KEY} name",
        f"name write {KEY}",
        f"name read-write {KEY[:-1]}",
        f"name read-write {KEY}x",
        f"na/me read-write {KEY}",
        f"name read-write {KEY} more",
        f"a read-write {KEY}\nb read-only {KEY}",
    ],
    ids=range(9),
)
def test_a_list_with_one_wrong_line_is_no_list(tmp_path: Path, line: str) -> None:
    """It is not used up to that line: who was meant to be let in is not known."""
    path = tmp_path / "clients"
    path.write_text(f"good read-write {zmq.curve_keypair()[0].decode()}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line [23]"):
        curve_keys.load_clients(str(path))
