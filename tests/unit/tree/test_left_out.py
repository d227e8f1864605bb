"""Event types without a file: each change of the setting counts from a position, whatever happens."""

import contextlib
import os

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.datadir.layout import DataDir
from perstack_stored.index.event_reader import events_of_run
from perstack_stored.model.kinds import Kind
from perstack_stored.offline.check.check import check
from perstack_stored.offline.findings import Report
from perstack_stored.tree import left_out
from perstack_stored.tree.cursor import CURSOR_NAME, save_cursor
from perstack_stored.tree.left_out import FILE_NAME, Change, LeftOut
from tests.helpers.datadir import Base, Died, SimulatedDisk, event, job

FILES = FileSystem()


def changes(left: LeftOut) -> list[tuple[int, list[str]]]:
    return [(change.after, sorted(change.types)) for change in left.changes]


# --- the rule --------------------------------------------------------------------------------------


def test_a_change_counts_for_what_comes_after_its_position() -> None:
    left = LeftOut().changed(10, ["a"]).changed(20, ["a", "b"]).changed(30, [])
    asked = {position: {type for type in "abc" if left.has_event(position, type)} for position in
             (1, 10, 11, 20, 21, 30, 31)}  # fmt: skip
    assert asked == {
        1: set(), 10: set(), 11: {"a"}, 20: {"a"}, 21: {"a", "b"}, 30: {"a", "b"}, 31: set()
    }  # fmt: skip
    assert left.now == frozenset()
    assert left.ever == {"a", "b"}


def test_changes_at_one_position_leave_the_last_one() -> None:
    """And a change that changes nothing leaves none."""
    left = LeftOut().changed(10, ["a"])
    assert changes(left.changed(10, ["b"])) == [(10, ["b"])]
    assert changes(left.changed(10, [])) == []
    assert changes(left.changed(20, ["a"])) == [(10, ["a"])]
    assert changes(left.changed(20, ["b"]).changed(10, ["c"])) == [(10, ["c"])]


# --- the record ------------------------------------------------------------------------------------


def load(base: Base) -> left_out.Loaded:
    return left_out.load(FILES, base.stored_dir, base.journal.store)


def grow(base: Base, *types: str, files: FileSystem | None = None, clean: bool = True) -> None:
    """Bring the tree up to the end, by a process with this setting."""
    left_out.take_setting(files or FILES, base.stored_dir, base.journal.store, types)
    tree = base.open_tree(files)
    base.grow(tree)
    tree.sync(clean=clean)
    tree.close()


def store(base: Base, *types: str) -> list[str]:
    """Store an event of each type; the names of their files."""
    names = []
    for type in types:
        position = base.journal.mark.position + 1
        base.store((Kind.EVENT, event(id=f"e{position}", type=type, timestamp=position)))
        names.append(f"event-{position}-0-{type}.json")
    return names


def names(base: Base) -> set[str]:
    return {os.path.basename(path) for path in base.files()}


def findings(base: Base) -> tuple[list[str], dict[str, int]]:
    """What `check` finds in the tree, and what it compared."""
    found: list[str] = []
    report = Report(lambda finding: found.append(finding.name))
    check(DataDir(str(base.path), FILES, base.folders), report)
    return [name for name in found if name.startswith("tree_")], report.compared


def test_files_are_as_the_setting_was_when_their_record_came(base: Base) -> None:
    """Changed thrice; `check` agrees at each point, and so does a tree that is written again."""
    wanted = set()
    for setting in ((), ("a", "b"), ("b",), ()):
        wanted |= {name for name in store(base, "a", "b", "c") if name.split("-")[3][0] not in setting}
        grow(base, *setting)
        assert names(base) == wanted
        assert findings(base)[0] == []
    assert changes(load(base).left_out) == [(3, ["a", "b"]), (6, ["b"]), (9, [])]
    assert findings(base)[1]["left_out"] == 3
    for path in base.files():
        os.unlink(base.path / path)
    os.unlink(base.path / ".stored" / CURSOR_NAME)
    grow(base)
    assert names(base) == wanted
    assert findings(base)[0] == []


def test_a_change_while_the_tree_lags_counts_from_the_tree(base: Base) -> None:
    """What was stored before, and has no file yet, is taken by the new setting."""
    store(base, "a")
    grow(base)
    late = store(base, "a", "c")
    grow(base, "a")
    assert late[0] not in names(base)
    assert late[1] in names(base)
    assert findings(base)[0] == []


def test_a_missing_file_that_is_not_left_out_is_still_found(base: Base) -> None:
    first = store(base, "a", "c")
    grow(base)
    store(base, "a", "c")
    grow(base, "a")
    run = base.path / "jobs/job-1/runs/run-1"
    os.unlink(run / first[0])
    assert findings(base)[0] == ["tree_missing_file"]


def test_a_file_that_is_left_out_and_there_must_hold_what_was_stored(base: Base) -> None:
    """It is there where the setting changed while a stop was unclean; `check` compares it."""
    store(base, "a")
    grow(base)
    second = store(base, "a")
    grow(base, "a")
    path = base.path / "jobs/job-1/runs/run-1" / second[0]
    path.write_bytes(b"{}")
    assert findings(base)[0] == ["tree_wrong_content"]
    path.unlink()
    assert findings(base)[0] == []


def test_a_torn_file_that_is_left_out_since_is_put_right(base: Base) -> None:
    """A power cut may tear what was written after the cursor, and then the setting changes."""
    store(base, "a")
    grow(base)
    torn, whole = store(base, "a", "c")
    path = base.path / "jobs/job-1/runs/run-1" / torn
    path.write_bytes(bytes(10))
    cursor = load(base).cursor
    save_cursor(FILES, base.stored_dir, base.journal.store, cursor._replace(clean=False))
    grow(base, "a")
    assert whole in names(base)
    assert findings(base)[0] == []
    assert path.read_bytes() == base.reader.payload(*address_of(base, 2))


def address_of(base: Base, position: int) -> tuple[int, int, int]:
    """Segment, offset and length of an event's value."""
    (run,) = base.database.execute("SELECT id FROM run").fetchone()
    found = next(one for one in events_of_run(base.database, run) if one.position == position)
    return found.segment, found.offset, found.length


def test_jobs_checkpoints_and_settings_always_have_their_file(base: Base) -> None:
    base.store((Kind.JOB, job()))
    store(base, "a")
    grow(base, "a")
    assert names(base) == {"job.json"}


@pytest.mark.parametrize("lose", ["unlink", "flip"])
def test_a_lost_record_has_the_tree_written_again(base: Base, lose: str) -> None:
    """By the setting of then, from the first position on: nothing is missing that should be there."""
    stored = store(base, "a", "c")
    grow(base, "a")
    stored += store(base, "a", "c")
    grow(base, "a")
    path = base.path / ".stored" / FILE_NAME
    if lose == "unlink":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    assert load(base).cursor.lost
    assert findings(base)[0] == ["tree_left_out_damage", "tree_behind"]
    grow(base)
    assert names(base) == set(stored)
    assert findings(base)[0] == []
    assert not load(base).is_damaged


def test_the_cursor_is_gone_before_a_lost_record_is_replaced(base: Base) -> None:
    """On disk: beside a valid record it would count again, and files would be missing for ever."""
    calls: list[str] = []

    class Recorder(FileSystem):
        def unlink(self, name: str, *, dir_fd: int) -> None:
            calls.append(name)
            super().unlink(name, dir_fd=dir_fd)

        def sync(self, fd: int) -> None:
            calls.append("sync")
            super().sync(fd)

        def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
            calls.append(target)
            super().rename(source, target, source_dir=source_dir, target_dir=target_dir)

    store(base, "a")
    grow(base, "a")
    (base.path / ".stored" / FILE_NAME).unlink()
    left_out.take_setting(Recorder(), base.stored_dir, base.journal.store, ["a"])
    assert calls == [CURSOR_NAME, "sync", f"{FILE_NAME}.new", FILE_NAME, "sync"]
    assert load(base).cursor.lost


def test_every_changed_byte_of_the_record_is_noticed(base: Base) -> None:
    store(base, "a")
    grow(base, "a")
    path = base.path / ".stored" / FILE_NAME
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert load(base).is_damaged, at
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert load(base).is_damaged, length


def test_a_record_of_another_journal_does_not_count(base: Base) -> None:
    left_out.save(FILES, base.stored_dir, b"another journal!", LeftOut().changed(0, ["a"]))
    stored = store(base, "a")
    assert not load(base).is_damaged
    grow(base)
    assert names(base) == set(stored)


def test_a_crash_at_any_call_of_a_change_loses_neither_setting_nor_file(base: Base) -> None:
    """After it, another setting still finds the tree as one of both left it."""
    store(base, "a", "c")
    grow(base, "a")
    store(base, "a", "c")
    before = {path.name: path.read_bytes() for path in (base.path / ".stored").glob("tree.*")}
    for dies_at in range(0, 1_000, 2):
        died = False
        try:
            grow(base, "c", files=SimulatedDisk(dies_at=dies_at), clean=False)
        except Died:
            died = True
        assert findings(base)[0] in ([], ["tree_behind"])
        grow(base)
        assert findings(base)[0] == []
        assert {"event-2-0-c.json"} <= names(base)
        if not died:
            break
        for name, data in before.items():
            (base.path / ".stored" / name).write_bytes(data)
        for name in ("event-3-0-a.json", "event-4-0-c.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(base.path / "jobs/job-1/runs/run-1" / name)
    else:
        raise AssertionError("it never comes to an end")


def test_the_cursor_knows_that_there_is_a_record(base: Base) -> None:
    """Else a tree with a lost record would be taken for one that has all files."""
    store(base, "a")
    grow(base)
    assert not load(base).cursor.leaves_out
    assert not (base.path / ".stored" / FILE_NAME).exists()
    store(base, "a")
    grow(base, "a")
    assert load(base).cursor.leaves_out
    assert load(base).left_out.changes == (Change(1, frozenset({"a"})),)
