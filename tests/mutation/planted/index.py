"""Bugs of the index: its writer, what is deleted, what is asked of it."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "the number of a deleted run is used again",
        "index/event_writer.py",
        "max(numbers) + 1",
        "numbers[0] + 1",
    ),
    Bug(
        "a deletion removes what came after it",
        "index/deletions.py",
        "later > position and name",
        "name",
    ),
    Bug(
        "a setting is read that was redacted",
        "index/deletions.py",
        "(is_setting or not of_settings)",
        "not of_settings",
    ),
    Bug(
        "the setting of a redaction is shown with its secrets",
        "read/record_form.py",
        "frozenset({int(Kind.RUN_SETTING), int(Kind.DELETION)})",
        "frozenset({int(Kind.RUN_SETTING)})",
    ),
    Bug(
        "retention deletes a job that has ended before it is old",
        "index/retention.py",
        'return "age" if last <= self._upto[state] else ""',
        'return "age" if state != "running" else ""',
    ),
    Bug(
        "retention deletes a job that somebody stores to",
        "server/retention.py",
        "if not group_commit.committer.is_quiet(one.job):",
        "if False:",
    ),
    Bug(
        "retention deletes a job that went on",
        "index/retention.py",
        "if last == one.last_position:",
        "if True:",
    ),
    Bug(
        "retention takes the time of a clock that was behind for the age of what is before it",
        "index/retention.py",
        "execute(_BEGINNINGS).fetchall():",
        "execute(_BEGINNINGS).fetchall()[-1:]:",
    ),
    Bug(
        "the index goes on from a place that is void",
        "projection/index_projection.py",
        "return place if end is None or place.offset <= end else reader.seek(place.position, mark)",
        "return place",
    ),
    Bug(
        "events that repeat others are not erased",
        "index/event_writer.py",
        "            self.summaries.note_repeat(run.summary, where[0])\n",
        "            pass\n",
    ),
    Bug(
        "versions that were replaced stay in the index after a deletion",
        "index/deletions.py",
        '    "DELETE FROM older WHERE job = ?",\n',
        "",
    ),
    Bug(
        "a job that was replaced can't be read as of then",
        "index/writer.py",
        "        keep_job(self._database, job.id, where[0])\n",
        "",
    ),
    Bug(
        "erased is said while SQLite's log holds what was deleted",
        "index/writer.py",
        "        if self._checkpoints.has_log:\n            return False\n",
        "",
    ),
    Bug(
        "a deletion that comes during a read takes a part of its job",
        "index/deletions.py",
        "if position >= self._newest and job not in self._of_job:",
        "if position >= self._newest:",
    ),
)
