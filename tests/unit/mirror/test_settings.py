"""The settings of a mirror: what names a place, and that no secret gets through."""

from pathlib import Path

import pytest

from perstack_stored.config.mirror_url import MirrorUrl, check_endpoint, parse_url
from perstack_stored.config.settings import Settings
from perstack_stored.errors import ConfigError
from perstack_stored.mirror import extra
from perstack_stored.mirror.credentials import CredentialsFile

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket", MirrorUrl("bucket", "")),
        ("s3://bucket/", MirrorUrl("bucket", "")),
        ("s3://my.bucket-1/a/b", MirrorUrl("my.bucket-1", "a/b/")),
        ("s3://bucket//a/", MirrorUrl("bucket", "a/")),
    ],
)
def test_a_place(text: str, place: MirrorUrl) -> None:
    assert parse_url(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket/a",
        "gs://bucket/a",
        "s3://",
        "s3://ab",
        "s3://Bucket/a",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket/./a",
        "s3://bucket/ä",
        "s3://bucket/" + "a" * 600,
        f"s3://KEY:{SECRET}@bucket/a",
        f"s3://bucket/a?X-Amz-Signature={SECRET}",
        f"s3://bucket/a#{SECRET}",
        f"s3://bucket/a%2f{SECRET}",
        f"https://KEY:{SECRET}@bucket.s3.amazonaws.com/a",
    ],
)
def test_no_place(text: str) -> None:
    """It is refused as a setting, too, and the message does not repeat it."""
    with pytest.raises(ConfigError) as caught:
        parse_url(text)
    assert SECRET not in str(caught.value)
    if text:
        with pytest.raises(ConfigError):
            Settings(mirror=text)


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("", {}),
        ("https://s3.example:9000", {}),
        ("http://127.0.0.1:9000", {}),
        ("http://[::1]:9000", {}),
        ("http://localhost:9000", {}),
        ("http://s3.example:9000", {"AWS_ALLOW_HTTP": "true"}),
    ],
)
def test_an_endpoint(text: str, environment: dict[str, str]) -> None:
    assert check_endpoint(text, environment) == text


@pytest.mark.parametrize(
    "text",
    [
        "s3.example",
        "ftp://s3.example",
        "https://",
        "https://s3.example:x",
        "https://s3.example/a",
        "http://s3.example:9000",
        f"https://KEY:{SECRET}@s3.example",
        f"https://s3.example?{SECRET}",
        f"https://[{SECRET}",
    ],
)
def test_no_endpoint(text: str) -> None:
    """Plain HTTP is for loopback, unless the environment allows it."""
    with pytest.raises(ConfigError) as caught:
        check_endpoint(text, {})
    assert SECRET not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type."""
    monkeypatch.setattr(extra, "_LIBRARY", "no_such_library")
    with pytest.raises(ConfigError, match=r"perstack-stored\[s3\].*pip.* install"):
        extra.require_library()


def test_credentials_in_a_file(tmp_path: Path) -> None:
    """Only the owner may read it, and no message has a secret."""
    path = tmp_path / "credentials"
    path.touch(0o600)
    path.write_text(
        f"[default]\naws_access_key_id = KEY\naws_secret_access_key = {SECRET}%\n[other]\nx = 1\n"
    )
    found = CredentialsFile(str(path))()
    assert (found["access_key_id"], found["secret_access_key"]) == ("KEY", f"{SECRET}%")
    assert "token" not in found
    path.write_text(path.read_text().replace("[other]", "aws_session_token = T\n[other]"))
    assert CredentialsFile(str(path))()["token"] == "T"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read"):
        CredentialsFile(str(path))()
    path.chmod(0o600)
    for text in (SECRET, f"[other]\naws_secret_access_key = {SECRET}", f"[default]\nx = {SECRET}\n{SECRET}"):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            CredentialsFile(str(path))()
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="can't read"):
        CredentialsFile(str(tmp_path / "none"))()
