"""The check of layers finds each kind of import that it forbids."""

import pytest

from tests.layers import imports_of, main, violations

MODULES = frozenset(
    {
        "perstack_stored.journal", "perstack_stored.journal.writer", "perstack_stored.tree",
        "perstack_stored.read.queries", "perstack_stored.store.commit", "perstack_stored.server.loop",
        "perstack_storage", "perstack_storage.protocol", "perstack_storage._core.errors",
    }
)  # fmt: skip


def found(module: str, source: str) -> list[str]:
    return list(violations(imports_of(module, source, is_package=False), MODULES))


def test_the_source_has_no_violation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("journal.writer", "from perstack_stored.server.loop import Server", "journal imports server"),
        ("journal.writer", "from ..server import loop", "journal imports server"),
        ("journal.writer", "def f():\n    import perstack_stored.server.loop", "journal imports server"),
        ("store.commit", "from perstack_stored.read import queries", "store imports read"),
        ("model.values", "import os.path", "model does no I/O"),
        ("protocol.frames", "from threading import Thread", "protocol does no I/O"),
        ("tree", "from perstack_storage._core.errors import ErrorCode", "private to the client"),
        ("tree", "from perstack_storage._core import errors", "private to the client"),
        ("fresh.module", "import os", "has no layer"),
        ("server.loop", "from perstack_stored.fresh import module", "has no layer"),
    ],
)
def test_a_forbidden_import_is_named(module: str, source: str, message: str) -> None:
    (line,) = found(f"perstack_stored.{module}", source)
    assert line.startswith(f"perstack_stored.{module}:")
    assert message in line


def test_the_client_never_imports_the_daemon() -> None:
    assert found("perstack_storage._sync.client", "from perstack_stored.journal import writer")


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("_core.errors", "from perstack_storage._wire import zmtp", "_core imports _wire"),
        ("_sync.client", "from perstack_storage._async.client import X", "_sync imports _async"),
        ("_async.client", "from .._sync import client", "_async imports _sync"),
        ("_core.batch", "import threading", "_core does no I/O"),
    ],
)
def test_a_room_of_the_client_imports_from_those_below_it(module: str, source: str, message: str) -> None:
    (line,) = found(f"perstack_storage.{module}", source)
    assert message in line


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("server.loop", "from perstack_stored.journal.writer import JournalWriter"),
        ("journal.reader", "from .writer import JournalWriter"),
        ("server.loop", "from perstack_storage.protocol import ErrorCode"),
        ("server.loop", "from perstack_storage import Client"),
        ("journal.writer", "import os"),
    ],
)
def test_other_imports_are_fine(module: str, source: str) -> None:
    assert found(f"perstack_stored.{module}", source) == []
