"""Bugs of the serving process and its folders."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "the index gets a position that is not synced",
        "server/projections.py",
        "            self.index.send(mark)\n",
        "            self.index.send(self._journal.written)\n",
    ),
    Bug(
        "the tree goes on before the index knows all that may be there",
        "server/projections.py",
        "if self.index.place.position >= self._tree_from:",
        "if True:",
    ),
    Bug(
        "ready before the tree is whole",
        "server/daemon.py",
        "        server.await_tree(min(journal.mark.position, cursor.written_max))",
        "        pass",
    ),
    Bug(
        "a tree that has not come to where a crash left it counts as whole",
        "server/projections.py",
        "place.position >= awaited.position):",
        "place.position >= 0):",
    ),
    Bug(
        "a mirror ships what is not synced",
        "server/loop.py",
        "self._mirror.follow(self._journal.mark)",
        "self._mirror.follow(self._journal.written)",
    ),
    Bug(
        "a short write counts as a whole one",
        "datadir/filesystem.py",
        "            if done == sum(map(len, chunk)):",
        "            if done:",
    ),
    Bug(
        "a read that waits shows what was deleted before it came",
        "read/subscriptions.py",
        "self.after < indexed and self.request.position <= indexed",
        "self.after < indexed",
    ),
    Bug(
        "a worker that gets no processor is taken for one that hangs",
        "process/hang_detector.py",
        "self._waited += max(0.0, passed - (cpu - self._cpu))",
        "self._waited += 0.0",
    ),
    Bug(
        "a worker in an endless loop is taken for one that gets no processor",
        "process/hang_detector.py",
        "passed - (cpu - self._cpu)",
        "passed",
    ),
    Bug(
        "a log that can't be written ends the daemon",
        "observe/log_output.py",
        "        except OSError:\n            self._lost += 1\n",
        "        except EOFError:\n            self._lost += 1\n",
    ),
)
