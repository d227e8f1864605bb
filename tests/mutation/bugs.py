"""Bugs that a hurried hand could make, each as a change of the daemon's text."""

from collections.abc import Iterator
from typing import NamedTuple

from tests.mutation.sites import PACKAGE, Mutant


class _Bug(NamedTuple):
    name: str
    file: str
    old: str
    new: str


_BUGS = (
    _Bug(
        "answered before the sync",
        "store/group_commit.py",
        "synced = self._journal.mark\n        while",
        "synced = self._journal.written\n        while",
    ),
    _Bug(
        "a cursor is answered with the sync of an earlier batch",
        "store/group_commit.py",
        "self._pending[0].end <= synced",
        "self._pending[0].end.position <= synced.position",
    ),
    _Bug(
        "a segment begins without the cursors",
        "journal/segment_head.py",
        "(EntryType.CURSORS, sessions.cursors.snapshot())",
        '(EntryType.CURSORS, b"")',
    ),
    _Bug(
        "a start does not read the cursors",
        "journal/recovery.py",
        "sessions.cursors.replay(data)",
        "pass",
    ),
    _Bug(
        "a cursor goes back",
        "store/cursor_requests.py",
        "position < before.position and not request.force",
        "False",
    ),
    _Bug(
        "a cursor counts before the disk had room for it",
        "store/commit.py",
        "done = self._plan_cursors(cursor_requests, cursors, replies)\n",
        "done = self._plan_cursors(cursor_requests, cursors, replies)\n        cursors.written()\n",
    ),
    _Bug(
        "a sync counts for what came while it ran",
        "journal/writer.py",
        "self._note_synced(*done)",
        "self._note_synced(self.written, done[1])",
    ),
    _Bug(
        "repeats alone are never answered",
        "store/group_commit.py",
        "if journal.mark == written:",
        "if False:",
    ),
    _Bug(
        "a failed sync of the journal is tried again",
        "journal/writer.py",
        "            self._files.sync_data(self._fd)\n        except OSError as error:\n"
        "            raise write_failed(error) from error",
        "            self._files.sync_data(self._fd)\n        except OSError:\n"
        "            self._files.sync_data(self._fd)",
    ),
    _Bug(
        "a repeat is stored again",
        "journal/session.py",
        "return min(max(0, expected - seq), count)",
        "return 0",
    ),
    _Bug(
        "a gap is accepted",
        "journal/session.py",
        "if seq > expected and settled < seq - 1:",
        "if False:",
    ),
    _Bug(
        "numbers of stores that found the disk full stay taken",
        "store/commit.py",
        "plan.session.last = plan.last_before",
        "pass",
    ),
    _Bug(
        "an atomic batch is stored in part",
        "store/commit.py",
        "                if request.atomic:\n                    del appends",
        "                if False:\n                    del appends",
    ),
    _Bug(
        "recovery forgets that an entry is atomic",
        "journal/recovery.py",
        "entry.session, flags=entry.flags",
        "entry.session, flags=0",
    ),
    _Bug(
        "a restore cuts an atomic batch in two",
        "offline/backup/restore.py",
        "is_atomic = entry.header.flags & entry_format.ATOMIC",
        "is_atomic = False",
    ),
    _Bug(
        "a store goes on though another session took its job over",
        "store/fences.py",
        "if met <= expected.position:",
        "if True:",
    ),
    _Bug(
        "the last writers miss what is written now",
        "store/commit.py",
        "                    self.fences.note(owners[i], key, self._planned)\n",
        "                    pass\n",
    ),
    _Bug(
        "the last writers miss what is written while the history is read",
        "store/fences.py",
        "            self._waiting.append(_Noted(owner, session, position))\n",
        "            pass\n",
    ),
    _Bug(
        "what is older than the history counts as nothing",
        "journal/last_writers.py",
        "            return self.floor\n",
        "            return 0\n",
    ),
    _Bug(
        "a session's own stores count as another's",
        "journal/last_writers.py",
        "        return writer.other\n",
        "        return writer.position\n",
    ),
    _Bug(
        "a store that was not written counts as a writer's",
        "store/commit.py",
        "        self.fences.forget()\n        for plan in reversed",
        "        for plan in reversed",
    ),
    _Bug(
        "a settled store is called a conflict",
        "store/answers.py",
        "if seq > plan.session.forgotten else None",
        "if True else None",
    ),
    _Bug(
        "a deletion guard is forgotten at a restart",
        "journal/recovery.py",
        "sessions.guards.put((deletion.jobId",
        "(lambda *_: None)((deletion.jobId",
    ),
    _Bug(
        "a segment begins without the deletion guards",
        "journal/segment_head.py",
        "(EntryType.GUARDS, sessions.guards_snapshot())",
        '(EntryType.GUARDS, b"")',
    ),
    _Bug(
        "the number of a deleted run is used again",
        "index/event_writer.py",
        "max(numbers) + 1",
        "numbers[0] + 1",
    ),
    _Bug(
        "a deletion removes what came after it",
        "index/deletions.py",
        "later > position and name",
        "name",
    ),
    _Bug(
        "a setting is read that was redacted",
        "index/deletions.py",
        "(is_setting or not of_settings)",
        "not of_settings",
    ),
    _Bug(
        "the setting of a redaction is shown with its secrets",
        "read/record_form.py",
        "frozenset({int(Kind.RUN_SETTING), int(Kind.DELETION)})",
        "frozenset({int(Kind.RUN_SETTING)})",
    ),
    _Bug(
        "the tree writes what its slice deletes later",
        "tree/writer.py",
        "self.old_jobs.sort_out(wanted)",
        "self.old_jobs.sort_out(writes)",
    ),
    _Bug(
        "a deletion that found the disk full guards",
        "store/commit.py",
        "        self.guards.take_back()\n",
        "",
    ),
    _Bug(
        "a replayed deletion removes files of later records",
        "tree/deleted_files.py",
        "if last > position}",
        "if False}",
    ),
    _Bug(
        "retention deletes a job that went on",
        "index/retention.py",
        "if last == one.last_position:",
        "if True:",
    ),
    _Bug(
        "retention takes the time of a clock that was behind for the age of what is before it",
        "index/retention.py",
        "execute(_BEGINNINGS).fetchall():",
        "execute(_BEGINNINGS).fetchall()[-1:]:",
    ),
    _Bug(
        "a leap of the clock makes everything old",
        "journal/clock.py",
        "if not self._aged_ms or now_ms - passed <= _LEAP_MS:",
        "if True:",
    ),
    _Bug(
        "a deletion takes what stands in the place of the tree for an empty one",
        "tree/remover.py",
        "not_there = frozenset({errno.ENOENT})",
        "not_there = _NOT_THERE",
    ),
    _Bug(
        "a segment begins without the sessions",
        "journal/segment_head.py",
        "data = sessions.snapshot()",
        'data = b""',
    ),
    _Bug(
        "the snapshot of sessions has numbers that are not in the journal",
        "journal/sessions.py",
        "(key, one.written, one.used_ms, one.runs)",
        "(key, one.last, one.used_ms, one.runs)",
    ),
    _Bug(
        "what recovery keeps is not written again",
        "journal/segment_beginning.py",
        "self._write_head(fd, header, found.kept_entries(header.salt))",
        'self._write_head(fd, header, b"")',
    ),
    _Bug(
        "recovery trusts the page cache",
        "journal/recovery.py",
        "    if end < proven:\n",
        "    proven = max(proven, end)\n    if end < proven:\n",
    ),
    _Bug(
        "a start goes on behind a torn tail",
        "journal/recovery.py",
        "goes_on = clean and not kept and not message and not torn and not segment",
        "goes_on = clean and not kept and not message and not segment",
    ),
    _Bug(
        "the proven offset is ignored",
        "journal/recovery.py",
        "    if error.offset < proven:\n",
        "    if False:\n",
    ),
    _Bug(
        "proofs behind a bad place are ignored",
        "journal/recovery.py",
        "if found.synced > error.offset:",
        "if False:",
    ),
    _Bug(
        "the end that the next segment tells is ignored",
        "journal/chain.py",
        "return None if following is None else following.previous_end",
        "return None if following is None else self.open(number).size()",
    ),
    _Bug(
        "time goes back with the clock",
        "journal/clock.py",
        "elif self._time_ms - now > CLOCK_STEP_MS:",
        "else:",
    ),
    _Bug(
        "an entry says that it was synced itself",
        "journal/writer.py",
        "        synced = self._synced.offset\n",
        "        synced = self._offset\n",
    ),
    _Bug(
        "a lost end of the journal is accepted",
        "journal/recovery.py",
        "    if known > found.position:\n",
        "    if False:\n",
    ),
    _Bug(
        "the index is told of what is not synced",
        "server/projections.py",
        "            self.index.send(mark)\n",
        "            self.index.send(self._journal.written)\n",
    ),
    _Bug(
        "the index goes on from a place that is void",
        "projection/index_projection.py",
        "return place if end is None or place.offset <= end else reader.seek(place.position, mark)",
        "return place",
    ),
    _Bug(
        "the tree is told before the index knows all that may be there",
        "server/projections.py",
        "if self.index.place.position >= self._tree_from:",
        "if True:",
    ),
    _Bug(
        "ready before the tree is whole",
        "server/daemon.py",
        "        server.await_tree(min(journal.mark.position, cursor.written_max))",
        "        pass",
    ),
    _Bug(
        "the tree's cursor is ahead",
        "tree/writer.py",
        "cursor = Cursor(position, clean, ",
        "cursor = Cursor(position + 1, clean, ",
    ),
    _Bug(
        "the tree's cursor is clean while files are written",
        "tree/writer.py",
        "cursor = Cursor(position, clean, ",
        "cursor = Cursor(position, True, ",
    ),
    _Bug(
        "a failed sync of the tree is tried again",
        "tree/file_writer.py",
        'return TreeUnsyncedError(f"syncing the tree failed: {error}")',
        "return error",
    ),
    _Bug(
        "a replay of the tree trusts the page cache",
        "tree/file_writer.py",
        "            self._files.forget_cached(fd)\n",
        "",
    ),
    _Bug(
        "a replay of the tree does not look at what is there",
        "tree/file_writer.py",
        "return self._files.read(fd, len(content), 0) == content",
        "return True",
    ),
    _Bug(
        "a replay brings back older versions",
        "tree/writer.py",
        "                    self._replayed[write.folders, write.name] = write.position\n",
        "                    pass\n",
    ),
    _Bug(
        "a file that can't be looked at counts as missing",
        "tree/file_writer.py",
        "            raise  # the file may exist, and be newer\n",
        "            return False\n",
    ),
    _Bug(
        "a collision of names overwrites",
        "tree/write.py",
        'duplicate = "" if n == 1 else',
        'duplicate = "" if n else',
    ),
    _Bug(
        "a file is replaced in two steps",
        "tree/file_writer.py",
        "            self._files.exchange(self._aside, name, source_dir=self._staging, target_dir=folder)\n",
        "            self._files.unlink(name, dir_fd=folder)\n"
        "            self._files.give_name(fd, name, dir_fd=folder)\n",
    ),
    _Bug(
        "a file appears before it is written",
        "tree/file_writer.py",
        "            self._files.write(fd, [content], 0)\n            try:\n"
        "                self._files.give_name(fd, write.name, dir_fd=folder)\n",
        "            try:\n                self._files.give_name(fd, write.name, dir_fd=folder)\n"
        "                self._files.write(fd, [content], 0)\n",
    ),
    _Bug(
        "a file is renamed before it is written",
        "tree/file_writer.py",
        "                self._files.write(fd, [content], 0)\n            finally:\n"
        "                self._files.close(fd)\n            self._rename_aside(folder, name)\n",
        "                self._rename_aside(folder, name)\n"
        "                self._files.write(fd, [content], 0)\n            finally:\n"
        "                self._files.close(fd)\n",
    ),
    _Bug(
        "a tree on a file system of its own is not synced there",
        "tree/file_writer.py",
        "        self.ground, self._device = ground, device\n",
        "        self._device = device\n",
    ),
    _Bug(
        "a change of what is left out counts one record too early",
        "tree/left_out.py",
        "if position > change.after:",
        "if position >= change.after:",
    ),
    _Bug(
        "a change of what is left out counts from the beginning",
        "tree/left_out.py",
        "before.changed(max(cursor.position, last), types)",
        "before.changed(0, types)",
    ),
    _Bug(
        "earlier changes of what is left out are forgotten",
        "tree/left_out.py",
        "before = [change for change in self.changes if change.after < after]",
        "before: list[Change] = []",
    ),
    _Bug(
        "a lost record of what is left out goes unnoticed",
        "tree/left_out.py",
        "(data is not None and found is None) or cursor.leaves_out",
        "False",
    ),
    _Bug(
        "a mirror ships what is not synced",
        "server/loop.py",
        "self._mirror.follow(self._journal.mark)",
        "self._mirror.follow(self._journal.written)",
    ),
    _Bug(
        "a piece that is there already is not compared",
        "mirror/shipper.py",
        " or file.read(len(piece.data), start) != piece.data",
        "",
    ),
    _Bug(
        "a piece is skipped where the bucket fails",
        "mirror/shipper.py",
        "        if not self._bucket.create(key, data):",
        "        self._start = piece.end\n        if not self._bucket.create(key, data):",
    ),
    _Bug(
        "a prefix takes the trees of two bases",
        "mirror/tree_shipper.py",
        "        self._claim()\n",
        "",
    ),
    _Bug(
        "a generation counts before it is whole",
        "mirror/generations.py",
        "(one for one in found if one.salt is not None)",
        "found",
    ),
    _Bug(
        "a damaged segment replaces the sound pieces in the bucket",
        "mirror/replacer.py",
        "                self._test(file, header)\n",
        "",
    ),
    _Bug(
        "a piece of a generation that is there already is not compared",
        "mirror/replacer.py",
        " and self._read(key) != ours",
        " and False",
    ),
    _Bug(
        "a generation of other bytes is gone on with",
        "mirror/replacer.py",
        " and file.read(len(piece.data), 0) == piece.data",
        "",
    ),
    _Bug(
        "what was erased stays in the bucket",
        "mirror/replacer.py",
        "        self._remove(keys)\n",
        "",
    ),
    _Bug(
        "a mirror ships the mark that a start writes over",
        "mirror/shipper.py",
        "return self._tested.tail if is_open and self._tested.offset >= limit else limit",
        "return limit",
    ),
    _Bug(
        "a restore takes a segment that lacks what recovery wrote again",
        "offline/backup/fetch.py",
        "            if self._lacks_records(self._last, header):\n                return\n",
        "",
    ),
    _Bug(
        "a torn file stays, because it is left out now",
        "tree/writer.py",
        "if not write.is_left_out or position <= self.replay_until:",
        "if not write.is_left_out:",
    ),
    _Bug(
        "the record of what is left out goes by what was written, not by what is synced",
        "tree/left_out.py",
        "now = before.changed(max(cursor.position, last), types)",
        "now = before.changed(max(cursor.position + 2, last), types)",
    ),
    _Bug(
        "a job that may run leaves the tree",
        "tree/old_jobs.py",
        "end is not None and end.has_ended and end",
        "end is not None and end",
    ),
    _Bug(
        "a job leaves the tree one record too late",
        "tree/old_jobs.py",
        "end.last_position <= until",
        "end.last_position < until",
    ),
    _Bug(
        "jobs leave the tree before the record says so",
        "tree/sweep.py",
        "            self._tree.take_left_out(now)\n\n    def _folders",
        "            self._tree.old_jobs.take(now)\n\n    def _folders",
    ),
    _Bug(
        "jobs leave the tree beyond what is synced",
        "tree/sweep.py",
        "until = until if most is None else min(until, most)",
        "until = until if most is None else max(until, 0)",
    ),
    _Bug(
        "a job that comes back has its new files only",
        "tree/writer.py",
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n",
        "",
    ),
    _Bug(
        "a job that comes back counts as whole before it is",
        "tree/writer.py",
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n"
        "            self.old_jobs.is_whole(job)\n",
        "            self.old_jobs.is_whole(job)\n"
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n",
    ),
    _Bug(
        "a job that was whole stays so when others leave",
        "tree/old_jobs.py",
        "        self._whole.clear()\n\n    def is_out",
        "\n    def is_out",
    ),
    _Bug(
        "a job is said to be written back before its files are",
        "tree/writer.py",
        "        self._write_older(job, self.position)\n",
        "",
    ),
    _Bug(
        "a packed segment is not compared with the plain one",
        "keeper/pack.py",
        "packing.compare(files, fd, source, end, pace.compared)",
        "pass",
    ),
    _Bug(
        "the table of a packed segment is wrong",
        "journal/packing.py",
        "blocks.append(Block(offset, len(stored), crc32c(stored)))",
        "blocks.append(Block(offset + 1, len(stored), crc32c(stored)))",
    ),
    _Bug(
        "a segment that was erased in is not compared with the old one",
        "keeper/erase.py",
        "            erasing.compare(files, fd, source, header, blanks, pace.compared)\n",
        "",
    ),
    _Bug(
        "the file of a segment that was erased in is not synced before it has its name",
        "keeper/erase.py",
        "            files.sync_data(fd)\n",
        "",
    ),
    _Bug(
        "the name of a segment that was erased in is not synced",
        "keeper/erase.py",
        "        files.sync(dir_fd)\n",
        "",
    ),
    _Bug(
        "a segment that was erased in keeps its salt",
        "journal/erasing.py",
        "return header._replace(salt=salt, flags",
        "return header._replace(flags",
    ),
    _Bug(
        "a salt that was kept is not noticed",
        "journal/erasing.py",
        " or header.salt == source.header.salt",
        "",
    ),
    _Bug(
        "another job's record is erased",
        "model/erasures.py",
        "            return None\n        at = _first(self._removed.get((job, None))",
        "            return Gap(removed=9)\n        at = _first(self._removed.get((job, None))",
    ),
    _Bug(
        "what is stored after a deletion is erased",
        "model/erasures.py",
        "    number = bisect_right(positions, after)\n",
        "    number = 0\n",
    ),
    _Bug(
        "an erased checkpoint brings back the one that it had replaced",
        "model/erasures.py",
        "return Gap(removed=at, op=OF_CHECKPOINT, jobId=job, id=checkpoint.id)",
        "return Gap(removed=at, jobId=job)",
    ),
    _Bug(
        "copies that recovery left are not erased",
        "journal/erasing.py",
        "self.end = end_to_pack(file, number, end)",
        "self.end = end",
    ),
    _Bug(
        "bytes of an older segment stay after the end",
        "keeper/erase.py",
        "        if not blanks and (file.is_packed or not source.has_left_overs()):\n",
        "        if not blanks:\n",
    ),
    _Bug(
        "events that repeat others are not erased",
        "index/event_writer.py",
        "            self.summaries.note_repeat(run.summary, where[0])\n",
        "            pass\n",
    ),
    _Bug(
        "versions that were replaced stay in the index after a deletion",
        "index/deletions.py",
        '    "DELETE FROM older WHERE job = ?",\n',
        "",
    ),
    _Bug(
        "a job that was replaced can't be read as of then",
        "index/writer.py",
        "        keep_job(self._database, job.id, where[0])\n",
        "",
    ),
    _Bug(
        "erased is said while SQLite's log holds what was deleted",
        "index/writer.py",
        "        if self._checkpoints.has_log:\n            return False\n",
        "",
    ),
    _Bug(
        "a reader goes on with the salt of before its segment was erased in",
        "journal/chain.py",
        "self.headers[number].salt if file.salt is None else file.salt",
        "self.headers[number].salt",
    ),
    _Bug(
        "files with old bytes are used again while some must be erased",
        "journal/preallocation.py",
        "        self._spare = self._spares_allowed\n",
        "        self._spare = True\n",
    ),
    _Bug(
        "entries that recovery kept are not packed",
        "keeper/pack.py",
        "end = packing.end_to_pack(source, number, end)",
        "end = end + 0",
    ),
    _Bug(
        "a recycled file keeps its salt",
        "journal/segment_beginning.py",
        "while salt == entry_format.salt_of(head):\n                salt = secrets.randbits(32)\n",
        "salt = entry_format.salt_of(head)\n",
    ),
    _Bug(
        "a file is recycled while somebody reads it",
        "journal/preallocation.py",
        "size >= self._segment_bytes and self._files.is_alone(fd)",
        "size >= self._segment_bytes",
    ),
    _Bug(
        "a clean stop goes on where old bytes stand",
        "journal/recovery.py",
        "        goes_on &= size == end\n",
        "        goes_on &= True\n",
    ),
    _Bug(
        "a short write counts as a whole one",
        "datadir/filesystem.py",
        "            if done == sum(map(len, chunk)):",
        "            if done:",
    ),
    _Bug(
        "a message of the log is applied at the daemon's own time",
        "journal/clock.py",
        '        """The log\'s time in ms since 1970."""\n        return self._time_ms',
        '        """The log\'s time in ms since 1970."""\n        return time.time_ns() // 1_000_000',
    ),
    _Bug(
        "a repeat makes a session of the log newer",
        "journal/replicated_sessions.py",
        "        if session is None:\n            outline",
        "        if key in self._sessions:\n            self._sessions.move_to_end(key)\n"
        "        if session is None:\n            outline",
    ),
    _Bug(
        "a gap in a session of the log is accepted",
        "replication/apply.py",
        "    items: list[tuple[int, bytes | bytearray]] = list(logged.items)",
        "    logged = logged._replace(settled=max(logged.settled, logged.seq - 1))\n"
        "    items: list[tuple[int, bytes | bytearray]] = list(logged.items)",
    ),
    _Bug(
        "half a message of the log is kept at a restart",
        "journal/recovery.py",
        "    if sessions.log.stream != NO_STREAM and entry.header.type",
        "    if not sessions.log.stream and entry.header.type",
    ),
    _Bug(
        "a restart forgets which numbers of the log were refused",
        "replication/apply.py",
        "log_place.encode(place, refused)",
        "log_place.encode(place)",
    ),
    _Bug(
        "the head of a segment repeats guards that are not written",
        "store/commit.py",
        "self.guards.plan(key",
        "self.guards.put(key",
    ),
    _Bug(
        "a restart forgets who stored since its segment began",
        "journal/recovery.py",
        "        sessions.writers.replay(found, entry.data, places)",
        "        pass",
    ),
    _Bug(
        "the head of a segment repeats who stored in a message that is not written",
        "journal/logged_writers.py",
        "        self._planned.append((owner, session, position))",
        "        (self._begun if self._writers is None else self._writers).note(owner, session, position)",
    ),
    _Bug(
        "who stored in the same message of the log is not seen",
        "journal/logged_writers.py",
        "max(writers.met(owner, session), self._recent.met(owner, session))",
        "writers.met(owner, session)",
    ),
    _Bug(
        "pieces of a message that broke off are kept for the next one",
        "replication/pieces.py",
        "self.dropped.append(self._pieces[0].sender)\n            self._clear()",
        "self.dropped.append(self._pieces[0].sender)",
    ),
    _Bug(
        "a hole in the log is skipped",
        "replication/nats_replicas.py",
        "            return found, True\n",
        "            expected = sequence\n",
    ),
)


def bugs() -> Iterator[Mutant]:
    """The daemon with each of the bugs in turn.

    Raises:
        LookupError: the daemon's text has changed, and the bug must be written again.
    """
    for bug in _BUGS:
        source = (PACKAGE / bug.file).read_text()
        if source.count(bug.old) != 1:
            raise LookupError(f"{bug.name}: {bug.file} holds its text {source.count(bug.old)} times")
        yield Mutant(bug.name, bug.file, source.replace(bug.old, bug.new))
