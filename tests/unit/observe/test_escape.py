"""The escaper: nothing that a terminal acts on comes through, and JSON and shell words keep their value."""

import io
import json
import subprocess

import pytest
import structlog

from perstack_storage._core.errors import DaemonUnavailable
from perstack_storage._core.escape import escaped, escaped_lines, shell_word
from perstack_stored.cli.main import main
from perstack_stored.observe import log
from perstack_stored.observe.systemd import _line
from tests.hostile.texts import HOSTILE, acted_on


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_that_is_acted_on_comes_through(text: str) -> None:
    """In one line; twice is as once; JSON stays the same value."""
    assert acted_on(escaped(text)) == []
    assert "\n" not in escaped(text)
    assert escaped(escaped(text)) == escaped(text)
    assert escaped_lines(f"one\n{text}") == f"one\n{escaped_lines(text)}"
    raw = json.dumps({text: text}, ensure_ascii=False)
    assert json.loads(escaped(raw)) == {text: text}


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("", "plain", "Grüße", "日本語", "👩 🚀 ❤\ufe0f", "e\u0301", "@acme/writer@1.0.0"):
        assert escaped(text) == text


@pytest.mark.parametrize("text", [*HOSTILE.values(), "", "a b", "-n", "*", "~"])
def test_a_word_for_a_shell_is_that_word(text: str) -> None:
    """As bash reads it; and what is shown of it is harmless."""
    word = shell_word(text)
    assert acted_on(word) == []
    assert "\n" not in word
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert said == _bytes_of(text)


def _bytes_of(text: str) -> bytes:
    return b"".join(
        char.encode(errors="surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass")
        for char in text
    )


def test_the_command_that_an_error_names_is_quoted() -> None:
    """A base with anything in its path can be pasted."""
    error = DaemonUnavailable("ipc:///x", 1, "/a b/$(touch owned)")
    assert str(error).endswith("perstack-stored serve --base-path '/a b/$(touch owned)'")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_line_of_the_log_for_people_holds_nothing_that_is_acted_on(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, lists of them, names in exceptions: one line each, but for the lines of a traceback."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    before = structlog.get_config()
    try:
        log.configure(json=False, level="info")
        logger = structlog.get_logger()
        logger.warning("name", path=text, paths=[text], error=OSError(2, text))
        assert stderr.getvalue().count("\n") == 1
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed")
    finally:
        structlog.configure(**before)
    assert acted_on(stderr.getvalue()) == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_status_for_the_service_manager_is_one_harmless_line(text: str) -> None:
    """It can be sent whatever it holds."""
    line = _line(f"failed: {text}")
    assert acted_on(line) == []
    assert "\n" not in line
    line.encode()


@pytest.mark.parametrize("arguments", [["{}"], ["check", "{}"], ["serve", "--{}"], ["dump", "--after", "{}"]])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_wrong_arguments_are_named_without_what_is_acted_on(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([argument.format(text) for argument in arguments])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert acted_on(error) == []
    assert "\nfake" not in error


def test_help_is_still_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.count("\n") > 10
