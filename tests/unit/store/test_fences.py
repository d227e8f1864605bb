"""Stores that expect that nobody else has stored for their job, over retries, kills and restarts."""

import errno
from pathlib import Path
from random import Random
from typing import Any

import pytest

from perstack_stored.errors import Refusal
from perstack_stored.journal.entry_format import NO_SESSION, Record
from perstack_stored.journal.last_writers import Expectation, LastWriters
from perstack_stored.journal.writer import Append
from perstack_stored.model import gaps
from perstack_stored.model.gaps import Gap
from perstack_stored.model.kinds import Kind
from perstack_stored.model.owners import NO_RUN, Owner
from perstack_stored.store import fences
from perstack_stored.store.requests import StoreRequest
from perstack_stored.store.value_checker import check_all
from tests.helpers.daemon import eventually
from tests.helpers.datadir import SESSION_A, SESSION_B, FailingFiles, JournalFolder, dumps, event, job
from tests.unit.store.committing import BAD, Daemon, error, request

JOB: Owner = ("job-1", NO_RUN)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    made = Daemon(JournalFolder(tmp_path / "journal"))
    ready(made)
    return made


def ready(daemon: Daemon) -> None:
    """Have the fences know the history, as the first store that expects something does."""
    daemon.stores.fences.begin()
    eventually(lambda: is_ready(daemon), "the end of the history is read")


def is_ready(daemon: Daemon) -> bool:
    try:
        daemon.stores.fences.prepare()
    except Refusal:
        return False
    return True


def e(n: object, job_id: str = "job-1", run: str = "run-1") -> bytes:
    return dumps(event(id=str(n), jobId=job_id, runId=run))


def expecting(position: int, *values: bytes, owner: Owner = JOB, **more: Any) -> StoreRequest:
    """A store of events that expects a state."""
    return request(*values, **more)._replace(expect=Expectation(owner, position))


def met(answer: dict[str, Any]) -> int:
    """The position that a conflict tells."""
    assert error(answer) == "CONFLICT"
    assert answer["error"]["retryable"] is False
    assert answer["error"]["field"] == "expect"
    return int(answer["error"]["position"])


# --- the state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_last_writers_are_those_of_a_list_of_all_records(seed: int) -> None:
    """For each owner and session the position of the last store by another, unless it is below the floor."""
    random = Random(seed)
    keys_max = random.choice([3, 5, 1000])
    writers = LastWriters(0, keys_max)
    stored: list[tuple[Owner, bytes]] = []
    sessions = [NO_SESSION, SESSION_A, SESSION_B, b"c" * 16]
    for position in range(1, 200):
        run = random.choice([NO_RUN, "r1", "r2"])
        owner = (random.choice("abc"), run)
        session = random.choice(sessions)
        stored.append((owner, session))
        writers.note(owner, session, position)
        asked = (random.choice("abcd"), random.choice([NO_RUN, "r1"]))
        asking = random.choice(sessions)
        others = [
            n
            for n, ((job_id, run), session) in enumerate(stored, 1)
            if job_id == asked[0]
            and asked[1] in {NO_RUN, run}
            and (session != asking or asking == NO_SESSION)
        ]
        last = max(others, default=0)
        found = writers.met(asked, asking)
        assert found == last or last < found <= writers.floor
        assert len(writers) <= keys_max
        if keys_max == 1000:
            assert writers.floor == 0


# --- commits ---------------------------------------------------------------------------------------


def test_a_store_of_another_session_after_the_position_is_a_conflict(daemon: Daemon) -> None:
    """Its number is used, nothing of it is stored, and the session goes on once it has read again."""
    daemon.send(request(e(1), seq=1))
    daemon.send(request(e(2), key=SESSION_B, seq=1))
    (answer,) = daemon.send(expecting(1, e(3), seq=2))
    assert met(answer) == 2
    assert daemon.stores.answers.refused == {"CONFLICT": 1}
    assert daemon.send(expecting(2, e(4), seq=3))[0]["position"] == 3
    assert daemon.stored() == [e(1), e(2), e(4)]


def test_the_session_s_own_stores_are_no_conflict(daemon: Daemon) -> None:
    """So un-awaited stores and pipelines work: the position that a client holds may be an older one."""
    daemon.send(request(e(1), key=SESSION_B, seq=1))
    for seq in range(1, 6):
        assert daemon.send(expecting(1, e(f"a{seq}"), seq=seq))[0]["position"] == seq + 1


def test_the_first_of_two_in_one_commit_wins(daemon: Daemon) -> None:
    """What is written together is looked at in its order."""
    answers = daemon.send(
        expecting(0, e(1), id=1, seq=1),
        expecting(0, e(2), id=2, key=SESSION_B, seq=1),
        expecting(0, e(3), id=3, seq=2),
        expecting(1, e(4), id=4, key=SESSION_B, seq=2),
    )
    assert [answer.get("position") for answer in answers[::2]] == [1, 2]
    assert [met(answer) for answer in answers[1::2]] == [1, 2]


def test_a_repeat_is_recognised_before(daemon: Daemon) -> None:
    """The answer to a retry never becomes a conflict. What was a conflict stays one, also after a kill."""
    stored, refused = expecting(0, e(1), seq=1), expecting(0, e(2), key=SESSION_B, seq=1, id=2)
    first = daemon.send(stored, refused)
    for _ in range(3):
        again = daemon.send(stored, refused)
        assert again[0] == first[0]
        assert met(again[1]) >= 1
        daemon.start()
        ready(daemon)
    assert daemon.stored() == [e(1)]


def test_what_was_settled_is_old_and_no_conflict(daemon: Daemon) -> None:
    """It may have been stored: a conflict would say that it was not. After a refusal it is certain."""
    daemon.send(expecting(0, e(1), seq=1))
    daemon.send(request(e(2), key=SESSION_B, seq=1))
    assert met(daemon.send(expecting(1, e(3), seq=2, settled=1))[0]) == 2
    daemon.send(request(e(4), seq=3, settled=1))
    assert error(daemon.send(expecting(0, e(1), seq=1))[0]) == "SEQUENCE_OLD"
    for _ in range(2):
        assert met(daemon.send(expecting(1, e(3), seq=2, settled=1))[0]) == 2
        daemon.start()
        ready(daemon)
    assert daemon.send(request(e(5), seq=4, settled=3))[0]["position"] == 4
    assert error(daemon.send(expecting(1, e(3), seq=2, settled=1))[0]) == "SEQUENCE_OLD"


def test_a_run_is_fenced_by_itself(daemon: Daemon) -> None:
    """What is stored for another run, or for the job, is no conflict then; for the job it is."""
    daemon.send(request(e(1, run="run-2"), key=SESSION_B, seq=1))
    daemon.send(request(dumps(job(id="job-1")), key=SESSION_B, seq=2, kind=Kind.JOB))
    assert daemon.send(expecting(0, e(2), owner=("job-1", "run-1"), seq=1))[0]["position"] == 3
    assert met(daemon.send(expecting(0, e(3), seq=2))[0]) == 2
    assert daemon.send(expecting(0, e(3), owner=("job-2", NO_RUN), seq=3))[0]["position"] == 4


def test_stores_without_a_session_are_those_of_others(daemon: Daemon) -> None:
    """A one-shot program may expect a state too; its own earlier store counts against it."""
    assert daemon.send(expecting(0, e(1), key=None))[0]["position"] == 1
    assert met(daemon.send(expecting(0, e(2), key=None))[0]) == 1
    assert daemon.send(expecting(1, e(2), key=None))[0]["position"] == 2
    assert met(daemon.send(expecting(1, e(3), seq=1))[0]) == 2


def test_a_batch_is_refused_item_by_item_and_an_atomic_one_whole(daemon: Daemon) -> None:
    """What is wrong with a value comes first: so a retry has the same answer, whatever others store later."""
    daemon.send(request(e(1), key=SESSION_B, seq=1))
    for _ in range(2):
        (answer,) = daemon.send(expecting(0, e(2), BAD, e(3), seq=1))
        assert [result["code"] for result in answer["results"]] == ["CONFLICT", "BAD_VALUE", "CONFLICT"]
        (answer,) = daemon.send(expecting(0, e(2), e(3), seq=4)._replace(atomic=True))
        assert met(answer) == 1
        assert "item" not in answer["error"]
        (answer,) = daemon.send(expecting(0, e(2), BAD, seq=6)._replace(atomic=True))
        assert answer["error"]["item"] == 1
    assert daemon.stored() == [e(1)]


def test_a_batch_that_is_partly_a_repeat_conflicts_in_the_rest(daemon: Daemon) -> None:
    """The positions of what was stored before are answered."""
    daemon.send(request(e(1), seq=1))
    daemon.send(request(e(2), key=SESSION_B, seq=1))
    (answer,) = daemon.send(expecting(0, e(1), e(3), seq=1))
    assert answer["results"][0] == 1
    assert answer["results"][1]["code"] == "CONFLICT"


def test_a_position_after_the_end_is_of_another_history(daemon: Daemon) -> None:
    """As of a base that was put back from an older copy."""
    daemon.send(request(e(1), seq=1))
    assert met(daemon.send(expecting(2, e(2), seq=2))[0]) == 1


def test_values_that_were_checked_elsewhere_are_fenced_too(daemon: Daemon) -> None:
    """Their owner comes from the process that checked them."""
    other = request(e(1), key=SESSION_B, seq=1)
    daemon.send(other._replace(**check_all(other.items)._asdict()))
    mine = expecting(0, e(2), seq=1)
    assert met(daemon.send(mine._replace(**check_all(mine.items)._asdict()))[0]) == 1


def test_while_the_history_is_read_stores_are_busy_and_take_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one is read in a thread. What others store meanwhile counts."""
    monkeypatch.setattr(fences, "AT_ONCE_BYTES", 0)
    daemon = Daemon(JournalFolder(tmp_path / "journal"))
    daemon.send(request(e(1), key=SESSION_B, seq=1))
    (answer,) = daemon.send(expecting(1, e(2), seq=1))
    assert error(answer) == "BUSY"
    assert answer["error"]["retryAfterMs"] > 0
    daemon.stores.fences.begin()
    daemon.send(request(e(3), key=SESSION_B, seq=2))
    ready(daemon)
    assert met(daemon.send(expecting(1, e(2), seq=1))[0]) == 2


def test_a_full_disk_leaves_no_writer_that_did_not_write(tmp_path: Path) -> None:
    """The state is made again: a store that was not written is no conflict."""
    files = FailingFiles()
    daemon = Daemon(JournalFolder(tmp_path / "j"), files, segment_bytes=4096)
    ready(daemon)
    files.errors = {"allocate": errno.ENOSPC, "create": errno.ENOSPC}
    large = dumps(event(id="2", text="x" * 5000))
    assert error(daemon.send(request(large, key=SESSION_B, seq=1))[0]) == "STORAGE_FULL"
    files.errors = {}
    assert error(daemon.send(expecting(0, e(1), seq=1))[0]) == "BUSY"
    ready(daemon)
    assert daemon.send(expecting(0, e(1), seq=1))[0]["position"] == 1


# --- the history -----------------------------------------------------------------------------------


def test_what_is_older_than_the_history_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start some segments are read: a position before them is refused, one within them is exact."""
    monkeypatch.setattr(fences, "HISTORY_BYTES", 4096)
    daemon = Daemon(JournalFolder(tmp_path / "journal"), segment_bytes=4096)
    for seq in range(1, 101):
        daemon.send(request(e(seq, f"job-{seq % 7}"), seq=seq, settled=seq - 1))
    daemon.send(request(e(101, "quiet"), seq=101, settled=100))
    daemon.start()
    ready(daemon)
    assert len(daemon.folder.segments()) > 4
    (old,) = daemon.send(expecting(1, e(102, "quiet"), owner=("never", NO_RUN), key=SESSION_B, seq=1))
    assert 50 < met(old) < 101
    fresh = expecting(100, e(103), owner=("never", NO_RUN), key=SESSION_B, seq=2)
    assert daemon.send(fresh)[0]["position"] == 102
    taken = expecting(100, e(104), owner=("quiet", NO_RUN), key=SESSION_B, seq=3)
    assert met(daemon.send(taken)[0]) == 101


def test_a_lost_record_of_a_known_job_is_that_job_s(tmp_path: Path) -> None:
    """One of which nothing is known may be of any job: what came before it is not relied on."""
    daemon = Daemon(JournalFolder(tmp_path / "journal"))
    daemon.send(request(e(1, "other"), seq=1))
    lost = gaps.encode(Gap(op="storeEvent", jobId="job-1", runId="run-1"))
    daemon.journal.append([Append(NO_SESSION, 0, [Record(Kind.GAP, 0, lost)])])
    ready(daemon)
    assert met(daemon.send(expecting(1, e(2), seq=2))[0]) == 2
    assert daemon.send(expecting(1, e(3), owner=("other", NO_RUN), seq=3))[0]["position"] == 3
    daemon.journal.append([Append(NO_SESSION, 0, [Record(Kind.GAP, 0, b"")])])
    daemon.start()
    ready(daemon)
    assert met(daemon.send(expecting(3, e(4), owner=("other", NO_RUN), seq=4))[0]) == 4


def test_a_history_that_can_t_be_read_makes_every_position_too_old(daemon: Daemon) -> None:
    """Damage of the journal is named where it is read; a fence does not guess."""
    daemon.send(request(e(1), seq=1))
    daemon.stores.fences.forget()
    path = daemon.folder.segments()[-1]
    data = bytearray(path.read_bytes())
    data[data.index(b"run-1")] ^= 1
    path.write_bytes(bytes(data))
    ready(daemon)
    assert met(daemon.send(expecting(0, e(2), seq=2))[0]) == 1


@pytest.mark.parametrize("seed", range(10))
def test_exactly_one_of_two_goes_on_over_kills(tmp_path: Path, seed: int) -> None:
    """Each resumes where the other left off, and sends again what it heard nothing of: one chain results."""
    random = Random(seed)
    daemon = Daemon(JournalFolder(tmp_path / "journal"), segment_bytes=1 << 13)
    ready(daemon)
    seqs = {SESSION_A: 1, SESSION_B: 1}
    held = {SESSION_A: 0, SESSION_B: 0}
    chain: list[bytes] = []  # who stored
    for turn in range(150):
        key = random.choice([SESSION_A, SESSION_B])
        if random.random() < 0.3:
            held[key] = len(chain)  # it resumes: reads
        store = expecting(held[key], e(turn), key=key, seq=seqs[key], settled=seqs[key] - 1)
        answers = daemon.send(store)
        if random.random() < 0.2:
            daemon.start()
            ready(daemon)
            answers = daemon.send(store)
        seqs[key] += 1
        is_owner = all(who == key for who in chain[held[key] :])
        if is_owner:
            chain.append(key)
            assert answers[0]["position"] == len(chain)
            held[key] = len(chain)
        else:
            assert met(answers[0]) > held[key]
    assert len(daemon.stored()) == len(chain)


def test_a_fault_while_the_history_is_read_does_not_leave_stores_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of the history then: a store that expects a state from before it gets a conflict."""
    made = Daemon(JournalFolder(tmp_path / "journal"))
    assert made.send(request(e(1), key=SESSION_A, seq=1))[0]["position"] == 1

    def failing(*_arguments: object) -> LastWriters:
        raise RuntimeError

    monkeypatch.setattr(fences, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(fences, "_read", failing)
    ready(made)
    assert met(made.send(expecting(0, e(2), key=SESSION_B, seq=1))[0]) == 1
