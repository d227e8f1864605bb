"""`make release`: this checkout has one version everywhere, and what must not be released is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perstack_storage import __version__
from tests.docs.pages import ROOT

FILES = (
    "client/python/perstack_storage/_version.py",
    "client/typescript/package.json",
    "client/typescript/package-lock.json",
    "CHANGELOG.md",
    "deploy/release.py",
)
NAMED = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with what the check reads, all committed."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *NAMED, *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a commit")


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "deploy/release.py"), *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_this_checkout_has_one_version_everywhere(checkout: Path) -> None:
    """Python, npm and its lock, and the changelog."""
    done = release(checkout, "check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", FILES[:4])
def test_a_version_that_differs_is_named(checkout: Path, file: str) -> None:
    replace(checkout / file, __version__, "7.7.7")
    commit(checkout)
    done = release(checkout, "check")
    assert done.returncode == 1
    assert "version" in done.stderr or "heading" in done.stderr


def test_the_lock_of_npm_is_looked_at_in_both_places(checkout: Path) -> None:
    path = checkout / "client/typescript/package-lock.json"
    lock = json.loads(path.read_text())
    lock["packages"][""]["version"] = "7.7.7"
    path.write_text(json.dumps(lock))
    commit(checkout)
    assert "package-lock.json, packages has version 7.7.7" in release(checkout, "check").stderr


def test_changes_that_are_not_committed_and_a_tag_elsewhere_are_named(checkout: Path) -> None:
    (checkout / "new.txt").write_text("")
    assert "not committed: ?? new.txt" in release(checkout, "check").stderr
    git(checkout, "tag", f"v{__version__}")
    commit(checkout)
    assert "is another commit: raise the version" in release(checkout, "check").stderr
    git(checkout, "tag", "--force", f"v{__version__}")
    assert release(checkout, "check").returncode == 0


def test_the_sums_are_those_of_the_files_and_the_next_steps_are_said(checkout: Path, tmp_path: Path) -> None:
    """A version without a date is built, and not to be tagged yet."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "b.whl").write_bytes(b"b")
    (folder / "a.deb").write_bytes(b"a")
    (folder / "SHA256SUMS").write_text("of an earlier build\n")
    text = (checkout / "CHANGELOG.md").read_text()
    for date, says in (("Unreleased", "has no date yet"), ("2026-01-31", f"git tag --sign v{__version__}")):
        lines = [
            f"## [{__version__}] - {date}" if line.startswith(f"## [{__version__}]") else line
            for line in text.splitlines()
        ]
        (checkout / "CHANGELOG.md").write_text("\n".join(lines))
        done = release(checkout, "sums", str(folder))
        assert (done.returncode, done.stderr) == (0, "")
        assert says in done.stdout
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "a.deb: OK\nb.whl: OK\n")
