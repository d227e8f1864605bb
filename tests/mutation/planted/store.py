"""Bugs on the way of a store: answers, fences, cursors, the full disk."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "answered before the sync",
        "store/group_commit.py",
        "synced = self._journal.mark\n        while",
        "synced = self._journal.written\n        while",
    ),
    Bug(
        "a cursor is answered with the sync of an earlier batch",
        "store/group_commit.py",
        "self._pending[0].end <= synced",
        "self._pending[0].end.position <= synced.position",
    ),
    Bug(
        "a cursor goes back",
        "store/cursor_requests.py",
        "position < before.position and not request.force",
        "False",
    ),
    Bug(
        "a cursor counts before the disk had room for it",
        "store/commit.py",
        "done = self._plan_cursors(cursor_requests, cursors, replies)\n",
        "done = self._plan_cursors(cursor_requests, cursors, replies)\n        cursors.written()\n",
    ),
    Bug(
        "repeats alone are never answered",
        "store/group_commit.py",
        "if journal.mark == written:",
        "if False:",
    ),
    Bug(
        "numbers of stores that found the disk full stay taken",
        "store/commit.py",
        "plan.session.last = plan.last_before",
        "pass",
    ),
    Bug(
        "an atomic batch is stored in part",
        "store/commit.py",
        "                if request.atomic:\n                    del appends",
        "                if False:\n                    del appends",
    ),
    Bug(
        "a store goes on though another session took its job over",
        "store/fences.py",
        "if met <= expected.position:",
        "if True:",
    ),
    Bug(
        "the last writers miss what is written now",
        "store/commit.py",
        "                    self.fences.note(owners[i], key, self._planned)\n",
        "                    pass\n",
    ),
    Bug(
        "the last writers miss what is written while the history is read",
        "store/fences.py",
        "            self._waiting.append(_Noted(owner, session, position))\n",
        "            pass\n",
    ),
    Bug(
        "a store that was not written counts as a writer's",
        "store/commit.py",
        "        self.fences.forget()\n        for plan in reversed",
        "        for plan in reversed",
    ),
    Bug(
        "a settled store is called a conflict",
        "store/answers.py",
        "if seq > plan.session.forgotten else None",
        "if True else None",
    ),
    Bug(
        "a deletion that found the disk full guards",
        "store/commit.py",
        "        self.guards.take_back()\n",
        "",
    ),
    Bug(
        "the head of a segment repeats guards that are not written",
        "store/commit.py",
        "self.guards.plan(key",
        "self.guards.put(key",
    ),
    Bug(
        "a redaction is no deletion to reads that wait",
        "store/commit.py",
        "        self.deleted_to = position\n        deletion = deletions.decode(payload)\n        if",
        "        deletion = deletions.decode(payload)\n        self.deleted_to = max(self.deleted_to, "
        "0 if deletion.is_redaction else position)\n        if",
    ),
    Bug(
        "a copied deletion is no deletion to reads that wait",
        "store/group_commit.py",
        "self.committer.note_copied(batch, self._journal.write(batch, cursors))",
        "self._journal.write(batch, cursors)",
    ),
)
