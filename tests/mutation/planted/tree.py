"""Bugs of the tree: what it writes, leaves out, removes and brings back."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "the tree writes what its slice deletes later",
        "tree/writer.py",
        "self.old_jobs.sort_out(wanted)",
        "self.old_jobs.sort_out(writes)",
    ),
    Bug(
        "a replayed deletion removes files of later records",
        "tree/deleted_files.py",
        "if last > position}",
        "if False}",
    ),
    Bug(
        "a deletion takes what stands in the place of the tree for an empty one",
        "tree/remover.py",
        "not_there = frozenset({errno.ENOENT})",
        "not_there = _NOT_THERE",
    ),
    Bug(
        "the tree's cursor is ahead",
        "tree/writer.py",
        "cursor = Cursor(position, clean, ",
        "cursor = Cursor(position + 1, clean, ",
    ),
    Bug(
        "the tree's cursor is clean while files are written",
        "tree/writer.py",
        "cursor = Cursor(position, clean, ",
        "cursor = Cursor(position, True, ",
    ),
    Bug(
        "a failed sync of the tree is tried again",
        "tree/file_writer.py",
        'return TreeUnsyncedError(f"syncing the tree failed: {error}")',
        "return error",
    ),
    Bug(
        "a replay of the tree trusts the page cache",
        "tree/file_writer.py",
        "            self._files.forget_cached(fd)\n",
        "",
    ),
    Bug(
        "a replay of the tree does not look at what is there",
        "tree/file_writer.py",
        "return self._files.read(fd, len(content), 0) == content",
        "return True",
    ),
    Bug(
        "a replay brings back older versions",
        "tree/writer.py",
        "                    self._replayed[write.folders, write.name] = write.position\n",
        "                    pass\n",
    ),
    Bug(
        "a file that can't be looked at counts as missing",
        "tree/file_writer.py",
        "            raise  # the file may exist, and be newer\n",
        "            return False\n",
    ),
    Bug(
        "a collision of names overwrites",
        "tree/write.py",
        'duplicate = "" if n == 1 else',
        'duplicate = "" if n else',
    ),
    Bug(
        "a file is replaced in two steps",
        "tree/file_writer.py",
        "            self._files.exchange(self._aside, name, source_dir=self._staging, target_dir=folder)\n",
        "            self._files.unlink(name, dir_fd=folder)\n"
        "            self._files.give_name(fd, name, dir_fd=folder)\n",
    ),
    Bug(
        "a file appears before it is written",
        "tree/file_writer.py",
        "            self._files.write(fd, [content], 0)\n            try:\n"
        "                self._files.give_name(fd, write.name, dir_fd=folder)\n",
        "            try:\n                self._files.give_name(fd, write.name, dir_fd=folder)\n"
        "                self._files.write(fd, [content], 0)\n",
    ),
    Bug(
        "a file is renamed before it is written",
        "tree/file_writer.py",
        "                self._files.write(fd, [content], 0)\n            finally:\n"
        "                self._files.close(fd)\n            self._rename_aside(folder, name)\n",
        "                self._rename_aside(folder, name)\n"
        "                self._files.write(fd, [content], 0)\n            finally:\n"
        "                self._files.close(fd)\n",
    ),
    Bug(
        "a tree on a file system of its own is not synced there",
        "tree/file_writer.py",
        "        self.ground, self._device = ground, device\n",
        "        self._device = device\n",
    ),
    Bug(
        "a change of what is left out counts one record too early",
        "tree/left_out.py",
        "if position > change.after:",
        "if position >= change.after:",
    ),
    Bug(
        "a change of what is left out counts from the beginning",
        "tree/left_out.py",
        "before.changed(max(cursor.position, last), types)",
        "before.changed(0, types)",
    ),
    Bug(
        "earlier changes of what is left out are forgotten",
        "tree/left_out.py",
        "before = [change for change in self.changes if change.after < after]",
        "before: list[Change] = []",
    ),
    Bug(
        "a lost record of what is left out goes unnoticed",
        "tree/left_out.py",
        "(data is not None and found is None) or cursor.leaves_out",
        "False",
    ),
    Bug(
        "a torn file stays, because it is left out now",
        "tree/writer.py",
        "if not write.is_left_out or write.position <= self.replay_until]",
        "if not write.is_left_out]",
    ),
    Bug(
        "a checkpoint that another run has stored since vanishes in a replay",
        "tree/deleted_files.py",
        "elif self._is_replaced(write):",
        "elif False:",
    ),
    Bug(
        "the record of what is left out goes by what was written, not by what is synced",
        "tree/left_out.py",
        "now = before.changed(max(cursor.position, last), types)",
        "now = before.changed(max(cursor.position + 2, last), types)",
    ),
    Bug(
        "a job that may run leaves the tree",
        "tree/old_jobs.py",
        "end is not None and end.has_ended and end",
        "end is not None and end",
    ),
    Bug(
        "a job leaves the tree one record too late",
        "tree/old_jobs.py",
        "end.last_position <= until",
        "end.last_position < until",
    ),
    Bug(
        "jobs leave the tree before the record says so",
        "tree/sweep.py",
        "            self._tree.take_left_out(now)\n\n    def _folders",
        "            self._tree.old_jobs.take(now)\n\n    def _folders",
    ),
    Bug(
        "jobs leave the tree beyond what is synced",
        "tree/sweep.py",
        "until = until if most is None else min(until, most)",
        "until = until if most is None else max(until, 0)",
    ),
    Bug(
        "a job that comes back has its new files only",
        "tree/writer.py",
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n",
        "",
    ),
    Bug(
        "an event without a file brings no old job back",
        "tree/record_writes.py",
        " or bool(self._records.left_out.jobs_until)\n",
        "\n",
    ),
    Bug(
        "of events as columns, each is the first of its name",
        "tree/record_writes.py",
        "            n = numbers.get(position, 1) if numbers else 1\n",
        "            n = 1\n",
    ),
    Bug(
        "of events as columns, those before the tree's position are written again",
        "tree/record_writes.py",
        "positions, payloads = events.positions[start:stop], events.payloads[start:stop]",
        "positions, payloads = events.positions[:stop], events.payloads[:stop]",
    ),
    Bug(
        "of events as columns, a type that was left out once always is",
        "tree/record_writes.py",
        "is_left_out = type in types and left_out.has_event(position, type)",
        "is_left_out = type in types",
    ),
    Bug(
        "of events as columns, one that is left out is no part of a replay",
        "tree/record_writes.py",
        "if is_left_out and not (keeps_left_out and self._may_matter(position, wanted)):",
        "if is_left_out:",
    ),
    Bug(
        "events are taken as columns beside a record that is passed over",
        "tree/record_writes.py",
        "if wanted.is_named or any(map(wanted.positions.__contains__, self._passed_over.records)):",
        "if wanted.is_named:",
    ),
    Bug(
        "nothing shows which events are taken as columns",
        "tree/record_writes.py",
        "        self._status.at(positions[0])\n",
        "",
    ),
    Bug(
        "a job that comes back counts as whole before it is",
        "tree/writer.py",
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n"
        "            self.old_jobs.is_whole(job)\n",
        "            self.old_jobs.is_whole(job)\n"
        "            self._write_older(job, self.old_jobs.left_out.jobs_until)\n",
    ),
    Bug(
        "a job that was whole stays so when others leave",
        "tree/old_jobs.py",
        "        self._whole.clear()\n\n    def is_out",
        "\n    def is_out",
    ),
    Bug(
        "a job that left the tree is out for good",
        "tree/old_jobs.py",
        "        return position == then or span < then // SPAN_POSITIONS\n",
        "        return True\n",
    ),
    Bug(
        "what is left of an event without a file stays torn when its job is written back",
        "tree/writer.py",
        "            if is_left_out and not self._writer.exists(write):\n",
        "            if is_left_out:\n",
    ),
    Bug(
        "a job is said to be written back before its files are",
        "tree/writer.py",
        "        self._write_older(job, self.position)\n",
        "",
    ),
)
