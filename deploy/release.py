"""Checks that this checkout may be released, and says how to go on once it is built. For `make release`.

python deploy/release.py check           what is wrong, and status 1
python deploy/release.py sums FOLDER     writes FOLDER/SHA256SUMS, and says how to tag
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUMS = "SHA256SUMS"
_VERSION = re.compile(r'^__version__ = "([0-9]+\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?)"$', re.MULTILINE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def version_of(root: Path) -> str:
    """The version, from the one place that the build reads; empty if it is none."""
    found = _VERSION.search((root / "client/python/perstack_storage/_version.py").read_text())
    return found[1] if found else ""


def changelog_date(root: Path, version: str) -> str | None:
    """What stands behind the heading of a version in the changelog; None if it has no heading."""
    pattern = rf"^## \[{re.escape(version)}\](?: - (.+))?$"
    found = re.search(pattern, (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    return (found[1] or "") if found else None


def problems(root: Path) -> list[str]:
    """Say what keeps a checkout from being released."""
    version = version_of(root)
    if not version:
        return ["_version.py names no version such as 1.2.3 or 1.2.3rc1"]
    found = []
    package = json.loads((root / "client/typescript/package.json").read_text())
    lock = json.loads((root / "client/typescript/package-lock.json").read_text())
    others = {
        "package.json": package["version"],
        "package-lock.json": lock["version"],
        "package-lock.json, packages": lock["packages"][""]["version"],
    }
    npm = re.sub(r"(a|b|rc)([0-9]+)$", r"-\1.\2", version)
    found += [f"{name} has version {other}, not {npm}" for name, other in others.items() if other != npm]
    if changelog_date(root, version) is None:
        found.append(f"CHANGELOG.md has no heading '## [{version}] - DATE'")
    changed = _git(root, "status", "--porcelain")
    if changed:
        found.append("there are changes that are not committed: " + changed.splitlines()[0].strip())
    tagged = _git(root, "tag", "--list", f"v{version}")
    if tagged and _git(root, "rev-list", "-n", "1", tagged) != _git(root, "rev-parse", "HEAD"):
        found.append(f"{tagged} is another commit: raise the version")
    return found


def write_sums(folder: Path) -> list[str]:
    """Write the checksums of a folder's files as `sha256sum --check` reads them. Return the lines."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    (folder / SUMS).write_text("".join(f"{line}\n" for line in lines))
    return lines


def next_steps(root: Path) -> str:
    """Say what a person does after the build."""
    version = version_of(root)
    if not _DATE.fullmatch(changelog_date(root, version) or ""):
        return (
            f"{version} has no date yet. To release it: write the date into its heading in CHANGELOG.md,"
            " commit, and run make release again."
        )
    commit = _git(root, "rev-parse", "--short", "HEAD")
    return (
        "To release it:\n"
        "    make test-release                       # as root: installs and uses all of it\n"
        f'    git tag --sign v{version} --message "perstack-stored {version}" {commit}\n'
        f"    git push origin v{version}\n"
        f"and publish what is in dist/, {SUMS} with it."
    )


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def main(words: list[str]) -> int:
    """Run a command. Returns the exit status."""
    match words:
        case ["check"]:
            found = problems(ROOT)
            for problem in found:
                sys.stderr.write(f"make release: {problem}\n")
            return 1 if found else 0
        case ["sums", folder]:
            lines = write_sums(Path(folder))
            sys.stdout.write("".join(f"{line}\n" for line in [*lines, next_steps(ROOT)]))
            return 0
    sys.stderr.write(f"{__doc__}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
