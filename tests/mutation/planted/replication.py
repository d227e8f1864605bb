"""Bugs of daemons that share a log."""

from tests.mutation.planted.bug import Bug

BUGS = (
    Bug(
        "a gap in a session of the log is accepted",
        "replication/apply.py",
        "    items: Any = logged.items",
        "    logged = logged._replace(settled=max(logged.settled, logged.seq - 1))\n"
        "    items: Any = logged.items",
    ),
    Bug(
        "a restart forgets which numbers of the log were refused",
        "replication/apply.py",
        "log_place.encode(place, refused)",
        "log_place.encode(place)",
    ),
    Bug(
        "a retry in the message of its first store finds no position",
        "replication/apply.py",
        "self.answers.to(self._as_written(plan), firsts)",
        "self.answers.to(plan, firsts)",
    ),
    Bug(
        "pieces of a message that broke off are kept for the next one",
        "replication/pieces.py",
        "self.dropped.append(self._pieces[0].sender)\n            self._clear()",
        "self.dropped.append(self._pieces[0].sender)",
    ),
    Bug(
        "a hole in the log is skipped",
        "replication/nats_replicas.py",
        "            return found, True\n",
        "            expected = sequence\n",
    ),
    Bug(
        "a message that the log has acknowledged and lost goes unnoticed",
        "replication/nats_stream.py",
        "self._next > self._acknowledged and",
        "",
    ),
    Bug(
        "a tick is a proof that a message was stored",
        "replication/nats_stream.py",
        "await replicas.end_before(self._next):",
        "False:",
    ),
)
