"""`rebuild` when its process dies at one record: the rest is made, and the record is named."""

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from perstack_stored.config.settings import Settings
from perstack_stored.datadir.layout import INDEX_NAME
from perstack_stored.errors import ConfigError, StartFailedError
from perstack_stored.index.event_batch import EventGroup
from perstack_stored.index.event_writer import EventWriter
from perstack_stored.index.writer import IndexWriter
from perstack_stored.offline.locked import locked_datadir
from perstack_stored.offline.rebuild import Rebuilt, rebuild
from perstack_stored.offline.rebuild_child import in_child
from perstack_stored.tree.file_writer import FileWriter
from perstack_stored.tree.write import Write
from tests.helpers.daemon import files_of
from tests.offline.bases import Checked, make_base, one_of_each

POSITION = 3


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    make_base(base, one_of_each())
    return base


def rebuilt(base: Path, *, index_too: bool = True, retries: bool = False) -> Rebuilt:
    with locked_datadir(str(base), "rebuild", reads_only=False) as held:
        return rebuild(held, Settings(), index_too=index_too, tree_too=True, retries=retries, do=in_child)


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The process is killed when it writes the file of one record, as the kernel does for want of memory."""
    put = FileWriter.write

    def killed(self: FileWriter, write: Write, *, replay: bool) -> None:
        if write.position == POSITION:
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, write, replay=replay)

    monkeypatch.setattr(FileWriter, "write", killed)
    return monkeypatch


def path_of(base: Path, position: int) -> Path:
    """The file of a record, by the list of those that are passed over."""
    (record,) = json.loads((base / ".stored/tree.blocked").read_bytes())["records"]
    assert record["position"] == position
    return base / str(record["file"])


def test_a_record_that_kills_the_rebuild_twice_is_passed_over_and_named(
    base: Path, deadly: pytest.MonkeyPatch
) -> None:
    """All else is as it should be; asked to try it again, the next one does."""
    before = files_of(base)
    for path in before:
        (base / path).unlink()
    done = rebuilt(base)
    assert [one.position for one in done.passed_over] == [POSITION]
    missing = path_of(base, POSITION)
    assert not missing.exists()
    assert files_of(base) == {path: data for path, data in before.items() if base / path != missing}
    assert Checked(base).names == {"tree_blocked"}

    again = rebuilt(base, retries=True)
    assert [one.position for one in again.passed_over] == [POSITION]

    deadly.undo()
    assert [one.position for one in rebuilt(base).passed_over] == [POSITION]
    assert rebuilt(base, retries=True).passed_over == []
    assert files_of(base) == before
    assert Checked(base).status == 0


def test_an_index_that_can_t_take_up_a_record_stays_as_it_was(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would miss what was acknowledged: so the record is named, and nothing is thrown away."""
    index_record = IndexWriter._index_record

    def killed(
        self: IndexWriter, kind: int, flags: int, payload: memoryview, time_ms: int, where: tuple[int, ...]
    ) -> None:
        if where[0] == POSITION:
            os.kill(os.getpid(), signal.SIGKILL)
        index_record(self, kind, flags, payload, time_ms, where)  # type: ignore[arg-type]

    add = EventWriter.add

    def killed_in_batch(self: EventWriter, segment: int, groups: Iterable[EventGroup]) -> None:
        groups = list(groups)
        if any(POSITION in group.events.positions for group in groups):
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, segment, groups)

    monkeypatch.setattr(IndexWriter, "_index_record", killed)
    monkeypatch.setattr(EventWriter, "add", killed_in_batch)
    path = base / ".stored" / INDEX_NAME
    before = path.read_bytes()
    with pytest.raises(StartFailedError, match=f"again and again at record {POSITION}$"):
        rebuilt(base)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert Checked(base).status == 0


def test_an_error_of_the_child_is_raised_as_it_was(base: Path) -> None:
    """With its kind and its sentence."""
    (base / ".stored" / INDEX_NAME).unlink()
    with pytest.raises(ConfigError, match="there is no index to write the tree by; rebuild both"):
        rebuilt(base, index_too=False)
