"""Wheel and sdist in bare systems, as a new user has them: installed, served, stored, read back.

`make test-release` runs it on what is in dist/. It needs root, mmdebstrap and the package index.
"""

import time
from pathlib import Path

import pytest

from perstack_storage import __version__
from tests.docs.pages import ROOT
from tests.packaging.roots import SYSTEMS, System, figure, lower

DIST = ROOT / "dist"
FIRST_EVENT = Path(__file__).with_name("first_event.py")
FIRST_EVENT_SECONDS = 60.0
WHEEL = f"perstack_stored-{__version__}-py3-none-any.whl"
SDIST = f"perstack_stored-{__version__}.tar.gz"
INSTALL = "python3 -m venv /opt/v && /opt/v/bin/pip install --quiet '/root/{file}[daemon]'"
USE = """
cd /srv
export PERSTACK_STORED_ENDPOINT=ipc:///srv/perstack/.stored/stored.sock  # a named one is waited for
/opt/v/bin/perstack-stored serve &
/opt/v/bin/python /root/first_event.py
/opt/v/bin/perstack-storectl events job-1 run-1
kill $!
wait $!
/opt/v/bin/perstack-stored check
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", [WHEEL, SDIST])
@pytest.mark.parametrize("suite", SYSTEMS)
def test_it_installs_and_stores_its_first_event(suite: str, file: str, tmp_path: Path) -> None:
    """Within a minute from nothing; the daemon then stops clean."""
    system = System(lower(suite), tmp_path)
    system.put(DIST / file, f"/root/{file}")
    system.put(FIRST_EVENT, "/root/first_event.py")
    began = time.monotonic()
    system.run(INSTALL.format(file=file))
    said = system.run(USE)
    seconds = time.monotonic() - began
    figure(f"{suite}, {system.run('python3 -V')}, {file}: {seconds:.1f} s to the end of the first use")
    assert "startRun" in said, said
    assert "clean" in said.splitlines()[-1], said
    assert seconds <= FIRST_EVENT_SECONDS


def test_the_client_alone_says_what_the_daemon_needs(tmp_path: Path) -> None:
    """Without the extra, the client works, and the daemon's command names what is missing."""
    system = System(lower("bookworm"), tmp_path)
    system.put(DIST / WHEEL, f"/root/{WHEEL}")
    system.run(f"python3 -m venv /opt/v && /opt/v/bin/pip install --quiet /root/{WHEEL}")
    assert "Client" in system.run("/opt/v/bin/python -c 'import perstack_storage as p; print(p.Client)'")
    assert "with its extra 'daemon'" in system.run("/opt/v/bin/perstack-stored serve", status=1)
