"""Bugs of the journal: its writer, its recovery, its sessions and segments."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "a segment begins without the cursors",
        "journal/segment_head.py",
        "(EntryType.CURSORS, sessions.cursors.snapshot())",
        '(EntryType.CURSORS, b"")',
    ),
    Bug(
        "a start does not read the cursors",
        "journal/recovery.py",
        "sessions.cursors.replay(data)",
        "pass",
    ),
    Bug(
        "a sync counts for what came while it ran",
        "journal/writer.py",
        "self._note_synced(*done)",
        "self._note_synced(self.written, done[1])",
    ),
    Bug(
        "a failed sync of the journal is tried again",
        "journal/writer.py",
        "            self._files.sync_data(self._fd)\n        except OSError as error:\n"
        "            raise write_failed(error) from error",
        "            self._files.sync_data(self._fd)\n        except OSError:\n"
        "            self._files.sync_data(self._fd)",
    ),
    Bug(
        "a repeat is stored again",
        "journal/session.py",
        "return min(max(0, expected - seq), count)",
        "return 0",
    ),
    Bug(
        "a gap is accepted",
        "journal/session.py",
        "if seq > expected and settled < seq - 1:",
        "if False:",
    ),
    Bug(
        "recovery forgets that an entry is atomic",
        "journal/recovery.py",
        "entry.session, flags=entry.flags",
        "entry.session, flags=0",
    ),
    Bug(
        "what is older than the history counts as nothing",
        "journal/last_writers.py",
        "            return self.floor\n",
        "            return 0\n",
    ),
    Bug(
        "a session's own stores count as another's",
        "journal/last_writers.py",
        "        return writer.other\n",
        "        return writer.position\n",
    ),
    Bug(
        "a deletion guard is forgotten at a restart",
        "journal/recovery.py",
        "sessions.guards.put((deletion.jobId",
        "(lambda *_: None)((deletion.jobId",
    ),
    Bug(
        "a segment begins without the deletion guards",
        "journal/segment_head.py",
        "(EntryType.GUARDS, sessions.guards_snapshot())",
        '(EntryType.GUARDS, b"")',
    ),
    Bug(
        "a leap of the clock makes everything old",
        "journal/clock.py",
        "if not self._aged_ms or now_ms - passed <= _LEAP_MS:",
        "if True:",
    ),
    Bug(
        "a segment begins without the sessions",
        "journal/segment_head.py",
        "data = sessions.snapshot()",
        'data = b""',
    ),
    Bug(
        "the snapshot of sessions has numbers that are not in the journal",
        "journal/sessions.py",
        "(key, one.written, one.used_ms, one.runs)",
        "(key, one.last, one.used_ms, one.runs)",
    ),
    Bug(
        "what recovery keeps is not written again",
        "journal/segment_beginning.py",
        "self._write_head(fd, header, found.kept_entries(header.salt))",
        'self._write_head(fd, header, b"")',
    ),
    Bug(
        "recovery trusts the page cache",
        "journal/recovery.py",
        "    if end < proven:\n",
        "    proven = max(proven, end)\n    if end < proven:\n",
    ),
    Bug(
        "a start goes on behind a torn tail",
        "journal/recovery.py",
        "goes_on = clean and not kept and not message and not torn and not segment",
        "goes_on = clean and not kept and not message and not segment",
    ),
    Bug(
        "the proven offset is ignored",
        "journal/recovery.py",
        "    if error.offset < proven:\n",
        "    if False:\n",
    ),
    Bug(
        "proofs behind a bad place are ignored",
        "journal/recovery.py",
        "if found.synced > error.offset:",
        "if False:",
    ),
    Bug(
        "the end that the next segment tells is ignored",
        "journal/chain.py",
        "return None if following is None else following.previous_end",
        "return None if following is None else self.open(number).size()",
    ),
    Bug(
        "time goes back with the clock",
        "journal/clock.py",
        "elif self._time_ms - now > CLOCK_STEP_MS:",
        "else:",
    ),
    Bug(
        "an entry says that it was synced itself",
        "journal/writer.py",
        "        synced = self._synced.offset\n",
        "        synced = self._offset\n",
    ),
    Bug(
        "a lost end of the journal is accepted",
        "journal/recovery.py",
        "    if known > found.position:\n",
        "    if False:\n",
    ),
    Bug(
        "the table of a packed segment is wrong",
        "journal/packing.py",
        "blocks.append(Block(offset, len(stored), crc32c(stored)))",
        "blocks.append(Block(offset + 1, len(stored), crc32c(stored)))",
    ),
    Bug(
        "a segment that was erased in keeps its salt",
        "journal/erasing.py",
        "return header._replace(salt=salt, flags",
        "return header._replace(flags",
    ),
    Bug(
        "a salt that was kept is not noticed",
        "journal/erasing.py",
        " or header.salt == source.header.salt",
        "",
    ),
    Bug(
        "copies that recovery left are not erased",
        "journal/erasing.py",
        "self.end = end_to_pack(file, number, end)",
        "self.end = end",
    ),
    Bug(
        "a reader keeps the old salt of a segment that was erased in",
        "journal/chain.py",
        "self.headers[number].salt if file.salt is None else file.salt",
        "self.headers[number].salt",
    ),
    Bug(
        "files with old bytes are used again while some must be erased",
        "journal/preallocation.py",
        "        self._spare = self._spares_allowed\n",
        "        self._spare = True\n",
    ),
    Bug(
        "a recycled file keeps its salt",
        "journal/segment_beginning.py",
        "while salt == entry_format.salt_of(head):\n                salt = secrets.randbits(32)\n",
        "salt = entry_format.salt_of(head)\n",
    ),
    Bug(
        "a file is recycled while somebody reads it",
        "journal/preallocation.py",
        "size >= self._segment_bytes and self._files.is_alone(fd)",
        "size >= self._segment_bytes",
    ),
    Bug(
        "a clean stop goes on where old bytes stand",
        "journal/recovery.py",
        "        goes_on &= size == end\n",
        "        goes_on &= True\n",
    ),
    Bug(
        "a message of the log is applied at the daemon's own time",
        "journal/clock.py",
        '        """The log\'s time in ms since 1970."""\n        return self._time_ms',
        '        """The log\'s time in ms since 1970."""\n        return time.time_ns() // 1_000_000',
    ),
    Bug(
        "a repeat makes a session of the log newer",
        "journal/replicated_sessions.py",
        "        if session is None:\n            outline",
        "        if key in self._sessions:\n            self._sessions.move_to_end(key)\n"
        "        if session is None:\n            outline",
    ),
    Bug(
        "half a message of the log is kept at a restart",
        "journal/recovery.py",
        "    if sessions.log.stream != NO_STREAM and entry.header.type",
        "    if not sessions.log.stream and entry.header.type",
    ),
    Bug(
        "a restart forgets who stored since its segment began",
        "journal/recovery.py",
        "        sessions.writers.replay(found, entry.data, places)",
        "        pass",
    ),
    Bug(
        "the head of a segment repeats who stored in a message that is not written",
        "journal/logged_writers.py",
        "        self._planned.append((owner, session, position))",
        "        (self._begun if self._writers is None else self._writers).note(owner, session, position)",
    ),
    Bug(
        "who stored in the same message of the log is not seen",
        "journal/logged_writers.py",
        "max(writers.met(owner, session), self._recent.met(owner, session))",
        "writers.met(owner, session)",
    ),
)
