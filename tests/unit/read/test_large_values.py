"""Values that are larger than a piece: read bit by bit, whole and unchanged, by whatever read."""

import json
from pathlib import Path
from typing import Any

import pytest

from perstack_stored.datadir.filesystem import FileSystem
from perstack_stored.errors import Refusal
from perstack_stored.index import value_lookup as places
from perstack_stored.journal import segment_walk as segments
from perstack_stored.journal.entry_format import FLAG_IMPORTED
from perstack_stored.journal.reader import JournalReader
from perstack_stored.model import masking, omission
from perstack_stored.model.kinds import Kind
from perstack_stored.model.masking import mask
from perstack_stored.read import queries
from perstack_stored.read.source import Source
from tests.helpers.datadir import Base, checkpoint, dumps, event, job, setting

PIECE = 256
PAD = "0123456789" * 400
RUN = {"jobId": "job-1", "runId": "run-1"}
VALUES: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.JOB, job(pad=PAD)),
    (Kind.CHECKPOINT, checkpoint(pad=PAD)),
    (Kind.EVENT, event(pad=PAD, timestamp=5)),
    (Kind.EVENT, event(id="small", timestamp=6)),
    (Kind.EVENT, event(pad=PAD, id="last", timestamp=7)),
    (Kind.RUN_SETTING, setting(pad=PAD, env={"A": "secret"}, l=["https://u:p@host/"])),
]
READS: list[tuple[str, dict[str, Any]]] = [
    ("retrieveJob", {"jobId": "job-1"}),
    ("getAllJobs", {}),
    ("retrieveCheckpoint", {"jobId": "job-1", "checkpointId": "cp-1"}),
    ("getCheckpointsByJobId", {"jobId": "job-1"}),
    ("getEventContents", RUN),
    ("getEventContents", {**RUN, "limit": 2}),
    ("getAllRuns", {}),
    ("readAll", {}),
    ("readAll", {"after": 2, "limit": 2}),
    ("readAll", {"jobId": "job-1"}),
    ("readAll", {**RUN, "after": 3}),
    ("readAll", {"waitMs": 0, "after": 1}),
    ("getEventContents", {**RUN, "omit": ["id", "pad.x"]}),
    ("getCheckpointsByJobId", {"jobId": "job-1", "omit": ["pad"]}),
    ("readAll", {"limit": 9, "omit": ["id", "pad.x"]}),
    ("readAll", {"jobId": "job-1", "omit": ["pad"]}),
    ("readAll", {"waitMs": 0, "after": 1, "omit": ["env", "stepNumber"]}),
    ("getEvent", {"position": 3}),
    ("getEvent", {"position": 6}),
]


class CountingFiles(FileSystem):
    """Remembers the longest read."""

    longest = 0

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self.longest = max(self.longest, length)
        return super().read(fd, length, offset)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A base in which all that is longer than 256 bytes is large."""
    for module, name in ((places, "PIECE_BYTES"), (segments, "LARGE_BYTES"), (segments, "READ_BYTES")):
        monkeypatch.setattr(module, name, PIECE)
    for editing in (masking, omission):
        monkeypatch.setattr(editing, "_PIECE_BYTES", PIECE)
    for walk in (segments.walk, segments.walk_some):
        monkeypatch.setitem(walk.__kwdefaults__ or {}, "read_bytes", PIECE)
    base = Base(tmp_path / "base")
    for kind, value in VALUES:
        base.store((kind, value))
    base.store((Kind.RUN_SETTING, setting(pad=PAD)))  # changes the time of the first one
    return base


def ask(base: Base, op: str, arguments: dict[str, Any]) -> tuple[bytes, list[bytes]]:
    source = Source(base.database, base.reader, base.listings)
    pieces = [bytes(piece) for piece in queries.OPERATIONS[op](source, arguments).pieces]
    return b"".join(pieces), pieces


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("op", "arguments"), READS)
def test_large_values_are_answered_as_small_ones_are(
    base: Base, monkeypatch: pytest.MonkeyPatch, op: str, arguments: dict[str, Any], masked: bool
) -> None:
    """Byte for byte, in pieces that are small, whether secrets are masked or not."""
    asked = {**arguments, **({"masked": True} if masked else {})}
    body, pieces = ask(base, op, asked)
    assert max(map(len, pieces)) <= 4 * PIECE
    found = json.loads(body)
    assert (b'"secret"' in body) == (not masked and b'"env"' in body)
    for module in (places, segments):
        for name in ("PIECE_BYTES", "LARGE_BYTES"):
            monkeypatch.setattr(module, name, 1 << 20, raising=False)
    whole = json.loads(ask(base, op, asked)[0])
    if op == "readAll" and "limit" not in arguments and arguments:
        # By job, or for a subscriber, a large record comes by itself.
        assert found == whole[:1]
    else:
        assert found == whole


def test_a_subscriber_gets_each_record_once(base: Base) -> None:
    """Though large ones come one by one."""
    for arguments in ({"waitMs": 0}, {"jobId": "job-1"}, RUN):
        after, found = 0, list[dict[str, Any]]()
        while after < base.index.place.position:
            records, fields = base.ask("readAll", after=after, **arguments)
            assert int(str(fields["next"])) > after
            after = int(str(fields["next"]))
            found += records
        positions = [1, 2, 3, 4, 5, 6, 7]
        assert [record["position"] for record in found] == positions[1 if arguments is RUN else 0 :]


@pytest.mark.parametrize(("op", "arguments"), READS)
def test_memory_holds_a_piece_of_a_large_value(base: Base, op: str, arguments: dict[str, Any]) -> None:
    """Nothing is read from the journal that is longer, but for a setting whose secrets are masked."""
    files = CountingFiles()
    base.reader = JournalReader(files, base.folder.fd)
    ask(base, op, arguments)
    assert 0 < files.longest <= 3 * PIECE  # small values that stand together are read at once


@pytest.mark.parametrize(
    ("op", "arguments", "kind"),
    [
        ("retrieveJob", {"jobId": "job-1"}, Kind.JOB),
        ("getAllJobs", {}, Kind.JOB),
        ("getEventContents", RUN, Kind.EVENT),
        ("getAllRuns", {}, Kind.RUN_SETTING),
        ("readAll", {}, Kind.JOB),
        ("readAll", {"after": 1}, Kind.EVENT),
        ("readAll", {"jobId": "job-1"}, Kind.JOB),
    ],
)
def test_damage_in_a_large_value_is_reported_before_its_end(
    base: Base, op: str, arguments: dict[str, Any], kind: Kind
) -> None:
    """A client that joins the parts never has the whole of it."""
    value = next(dumps(value) for found, value in VALUES if found == kind)
    path = next(path for path in base.folder.segments() if value in path.read_bytes())
    data = path.read_bytes()
    path.write_bytes(data.replace(value, value[:-9] + bytes([value[-9] ^ 1]) + value[-8:], 1))
    source = Source(base.database, base.reader, base.listings)
    pieces: list[bytes] = []
    with pytest.raises(Refusal) as caught:
        pieces.extend(bytes(piece) for piece in queries.OPERATIONS[op](source, arguments).pieces)
    assert caught.value.code == "DAMAGED"
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"".join(pieces))


def test_a_large_setting_gets_its_time_and_what_it_lacks(base: Base) -> None:
    """The same as of a small one."""
    for run, text in (("spaces", b" { %s } "), ("plain", b"{%s}")):
        value = setting(runId=run, pad=PAD, env={"A": "secret"})
        del value["reasoningBudget"], value["maxSteps"]
        for _ in range(2):
            base.store((Kind.RUN_SETTING, text % dumps(value)[1:-1]))
    base.store((Kind.RUN_SETTING, setting(runId="imported", pad=PAD)), flags=FLAG_IMPORTED)
    plain, _ = ask(base, "getAllRuns", {})
    masked, _ = ask(base, "getAllRuns", {"masked": True})
    found = {value["runId"]: value for value in json.loads(plain)}
    for run in ("spaces", "plain"):
        assert (found[run]["reasoningBudget"], found[run]["maxSteps"]) == ("low", 100)
        assert found[run]["updatedAt"] > 1700000000000
        assert found[run]["pad"] == PAD
    assert found["imported"] == setting(runId="imported", pad=PAD)
    assert json.loads(masked) == [json.loads(mask(dumps(value))) for value in json.loads(plain)]
