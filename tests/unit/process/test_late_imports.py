"""No process of the daemon imports what it does not use: asyncio, the offline tools."""

import subprocess
import sys

import pytest

_BEGIN = """
import sys
from perstack_stored.process.late_asyncio import import_asyncio_late
import_asyncio_late()
"""


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("module", ["cli.main", "projection.worker", "keeper.worker", "store.value_checker"])
def test_the_modules_of_a_process_do_not_import_it(module: str) -> None:
    assert _run(f"import perstack_stored.{module}; print('asyncio.events' in sys.modules)") == "False\n"


def test_it_is_there_for_those_who_use_it() -> None:
    use = "import asyncio.queues; print(asyncio.run(asyncio.sleep(0, 'ran')), asyncio.__name__)"
    assert _run(use) == "ran asyncio\n"
    assert _run("import asyncio; print(asyncio.run(asyncio.sleep(0, 'ran')))") == "ran\n"
    assert _run("from asyncio import sleep; import asyncio; print(asyncio.sleep is sleep)") == "True\n"


def test_a_daemon_starts_without_the_offline_tools() -> None:
    """Each is imported with its command: a start is cheap, and the serving process is smaller."""
    loaded = "[name for name in sys.modules if name.startswith('perstack_stored.offline')]"
    assert _run(f"import perstack_stored.cli.main; print({loaded})") == "[]\n"
