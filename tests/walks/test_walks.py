"""Newcomers' walks: what they type from the README and its pages works, and shows what the walk says.

The programs are installed as the README says it, and run in a home folder of their own. Each command of the
README must be in a walk: who changes one changes the walk too.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.helpers.daemon import captured_run
from tests.import_tree.trees import store
from tests.systemd.debian import need
from tests.walks.terminal import Terminal
from tests.walks.transcript import INTERRUPT, MAIN, Saved, Typed, commands, filled, is_shown, read_walk

FOLDER = Path(__file__).parent
# The first one installs; then several newcomers walk at a time.
WALKS = ("install", "python", "node", "operator", "look")
SECONDS = 1200
# What no walk types, and which test does.
ELSEWHERE = {
    "make install": "tests/systemd/test_install.py",
    "make deb && apt install ./dist/*.deb": "tests/packaging/try_deb.py",
    "make image && podman load --input dist/*.oci.tar": "tests/packaging/try_image.py",
    "make demo": "tests/integration/test_demo.py",
    "make test-fast": "Makefile",
}
# Commands of perstack-storectl that are for others than those who look.
OF_OTHERS = {"export": "tests/client/test_export.py", "redact": "tests/client/test_storectl_delete.py"}
_WAITING_SECONDS = 240


def walk_through(name: str, home: Path) -> Iterator[str]:
    """Type a walk; yield what was not as it says."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "TERM": "xterm", "PAGER": "cat",
        "LANG": "C.UTF-8", "TZ": "UTC",
        # Where packages come from is this machine's concern.
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "npm_config_"))},
    }  # fmt: skip
    kept = {"CHECKOUT": str(ROOT), "HOME": str(home)}
    folder = home if name == "install" else home / name
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        terminals: dict[str, Terminal] = {}
        for step in read_walk(FOLDER / f"{name}.md"):
            if isinstance(step, Saved):
                (folder / step.name).write_text(step.text)
                continue
            if step.terminal not in terminals:
                terminals[step.terminal] = stack.enter_context(Terminal(folder, environment))
                if name != "install":
                    _type(terminals[step.terminal], Typed(MAIN, ". ~/stored/bin/activate"), kept)
            fault = _type(terminals[step.terminal], step, kept)
            if fault:
                yield f"{name}: {fault}"


def _type(terminal: Terminal, step: Typed, kept: dict[str, str]) -> str:
    """Type a command; returns what differs."""
    if step.command == INTERRUPT:
        terminal.interrupt()
    else:
        terminal.type(filled(step.command, kept))
    status: int | None = None
    if step.stays:
        for _ in range(_WAITING_SECONDS):
            if is_shown(step.output, terminal.lines(), kept):
                return ""
            terminal.wait_lines()
    else:
        status = terminal.wait_prompt()
        if status == step.status and is_shown(step.output, terminal.lines(), kept):
            return ""
    shown = "\n".join(terminal.lines())
    expected = "\n".join(step.output)
    said = f"$ {step.command}\n--- the walk says, with status {step.status}:\n{expected}"
    return f"{said}\n--- shown, {status}:\n{shown}"


@pytest.fixture
def home() -> Iterator[Path]:
    """The newcomer's folder. Its path is short: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        yield Path(folder)


@pytest.mark.long
@pytest.mark.timeout(SECONDS)
def test_the_walks_show_what_they_say(home: Path) -> None:
    need(shutil.which("npm") is not None, "install nodejs and npm")
    for op, value in captured_run("b"):  # with three delegates; as Perstack writes it
        store(home / "look/perstack", op, value)
    first, *others = WALKS
    faults = list(walk_through(first, home))
    with ThreadPoolExecutor(len(others)) as pool:
        for found in pool.map(lambda name: list(walk_through(name, home)), others):
            faults += found
    assert not faults, "\n\n".join(faults)


def typed() -> list[str]:
    """Commands of all walks."""
    return [command for name in WALKS for command in commands(read_walk(FOLDER / f"{name}.md"))]


def blocks_of_commands(page: str) -> list[str]:
    """Lines of a page's indented blocks, without comments."""
    lines = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL).splitlines()
    return [re.sub(r"\s+#.*", "", line.strip()) for line in lines if line.startswith("    ")]


def named(page: str, program: str) -> set[str]:
    """What follows the program's name in a page's tables; the first cell names it once for its row."""
    found: set[str] = set()
    for line in (ROOT / page).read_text().splitlines():
        words = re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("|") else []
        if words and words[0].startswith(f"{program} "):
            words[0] = words[0].removeprefix(f"{program} ")
            found.update(word.split()[0] for word in words)
    return found


def test_every_command_of_the_readme_is_typed() -> None:
    """As it stands there; a word in capitals is the reader's own, such as YOUR_PROJECT."""
    lines = set(blocks_of_commands("README.md"))
    walked = typed()
    for line in lines - ELSEWHERE.keys():
        pattern = re.sub(r"[A-Z]{3,}(_[A-Z]+)*", r"\\S+", re.escape(line))
        assert any(re.fullmatch(pattern, command) for command in walked), line
    assert ELSEWHERE.keys() <= lines
    assert all((ROOT / file).exists() for file in ELSEWHERE.values())
    for program in ("perstack-stored", "perstack-storectl"):
        subcommands = named("README.md", program)
        assert len(subcommands) >= 4
        for word in subcommands:
            assert any(re.search(rf"{program} {word}\b", command) for command in walked), f"{program} {word}"


def test_the_programs_of_the_pages_are_saved_as_they_stand_there() -> None:
    saved = {
        step.text
        for name in WALKS
        for step in read_walk(FOLDER / f"{name}.md")
        if isinstance(step, Saved)
    }  # fmt: skip
    for page, language in (("README.md", "python"), ("client/python/README.md", "python"),
                           ("client/typescript/README.md", "js")):  # fmt: skip
        found = re.search(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        assert found is not None
        assert found[1] in saved, page


def test_a_person_who_looks_sees_what_the_client_s_page_promises() -> None:
    """Each command of the page's section about perstack-storectl."""
    page = (ROOT / "client/python/README.md").read_text().split("## perstack-storectl")[1]
    words = set(re.findall(r"^    perstack-storectl (\S+)", page, re.MULTILINE))
    assert len(words) > 5
    assert all((ROOT / file).exists() for file in OF_OTHERS.values())
    for word in words - OF_OTHERS.keys():
        assert any(f"perstack-storectl {word}" in command for command in typed()), word


def test_a_walk_that_says_something_else_fails(tmp_path: Path) -> None:
    """Or each of these tests would pass for ever."""
    kept = {"HOME": str(tmp_path)}
    with Terminal(tmp_path, {"PATH": "/usr/bin:/bin"}) as terminal:
        assert not _type(terminal, Typed(MAIN, "echo one; echo two", ["one", "{word}"]), kept)
        assert not _type(terminal, Typed(MAIN, "pwd", ["{HOME}"]), kept)
        assert not _type(terminal, Typed(MAIN, "seq 9; false", ["1", "...", "9"], 1), kept)
        assert _type(terminal, Typed(MAIN, "echo one", ["two"]), kept)
        assert _type(terminal, Typed(MAIN, "echo one; false", ["one"]), kept)
        assert _type(terminal, Typed(MAIN, "seq 3", ["1", "2"]), kept)
        assert not _type(terminal, Typed(MAIN, "echo 17", ["{NUMBER}"]), kept)
        assert _type(terminal, Typed(MAIN, "echo 18", ["{NUMBER}"]), kept)
        # ^C before the shell has started the command would be lost.
        waits = Typed(MAIN, "sh -c 'echo waits; exec sleep 600'", ["waits"], stays=True)
        assert not _type(terminal, waits, kept)
        assert not _type(terminal, Typed(MAIN, INTERRUPT, [], 130), kept)
