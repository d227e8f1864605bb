"""Odd but legal values come back as they were sent; secrets appear in no log and no error."""

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.helpers import signals
from tests.helpers.daemon import eventually, files_of, running_daemon
from tests.helpers.raw_client import (
    MIB,
    Raw,
    batch,
    checkpoint,
    event,
    job,
    setting,
    without,
)
from tests.helpers.replay import check_command

_RUN = {"jobId": "j", "runId": "r"}


def _event_text(id: str, rest: str) -> bytes:
    return (
        f'{{"id":"{id}","expertKey":"@scope/name@1.0.0","jobId":"j","runId":"r","type":"x-y",'
        f'"timestamp":1717171717200,"stepNumber":3,{rest}}}'
    ).encode()


_PLAIN = '"expertKey":"k","jobId":"j","runId":"r","type":"t"'
_ODD_EVENTS = {
    "scoped expert key": _event_text("e0", '"a":"@scope/name@1.0.0"'),
    "empty key": _event_text("e1", '"":{"":[]}'),
    "lone surrogates": _event_text("e2", r'"a":"\ud800","b":"\udc00\ud800"'),
    "beyond a double": _event_text("e3", '"a":1e400,"b":-1e-400'),
    "thirty digits": _event_text("e4", f'"a":{"9" * 30},"b":0.{"1" * 30}'),
    "unicode": f'{{"id":"é❤𝄞",{_PLAIN},"timestamp":1,"stepNumber":0}}'.encode(),
    "fraction": f'{{"id":"e6",{_PLAIN},"timestamp":1717171717200.125,"stepNumber":0}}'.encode(),
    "500 deep": _event_text("e7", '"a":' + "[" * 500 + "]" * 500),
    "key twice": _event_text("e8", '"a":1,"a":2,"stepNumber":4'),
    "white space": f' {{\r\n\t"id" : "e9" , {_PLAIN},"timestamp": 2 ,"stepNumber":\t0 }}\n'.encode(),
    "escapes": _event_text("e10", r'"a":"\u0041\/\u0000","b":"\u2028"'),
    "no number is changed": _event_text("e11", '"a":1.0,"b":1E5,"c":-0,"d":0.10'),
    "whole number as a float": f'{{"id":"e12",{_PLAIN},"timestamp":3.0,"stepNumber":1e1}}'.encode(),
    "delta of 1 MiB": _event_text("e13", '"delta":"' + "δ" * (MIB // 2) + '"'),
    "200 bytes": json.dumps(event(id="e" * 200, jobId="j", runId="r", type="t" * 100)).encode(),
}


def test_odd_but_legal_events_come_back_byte_for_byte(tmp_path: Path) -> None:
    """By getEventContents, by readAll and from the tree's files; also after a rebuild of the index."""
    with running_daemon(tmp_path / "base") as daemon:
        with Raw(daemon.endpoint) as raw:
            for n, text in enumerate(_ODD_EVENTS.values(), 1):
                assert raw.ask("storeEvent", text).position == n
            _assert_odd_events(raw)
            eventually(lambda: len(files_of(daemon.base)) == len(_ODD_EVENTS), "the tree is complete")
            assert sorted(files_of(daemon.base).values()) == sorted(_ODD_EVENTS.values())
        assert daemon.stop() == 0
        (daemon.base / ".stored" / "index.sqlite").unlink()
        daemon.start()
        with Raw(daemon.endpoint) as raw:
            _assert_odd_events(raw)


def _assert_odd_events(raw: Raw) -> None:
    records, _ = raw.whole("readAll")
    contents, _ = raw.whole("getEventContents", _RUN)
    for name, text in _ODD_EVENTS.items():
        assert text in records, name
        assert text in contents, name
    metas = raw.ask("getEventsByRun", _RUN).value
    assert len(metas) == len(_ODD_EVENTS)
    assert {"timestamp": 1717171717200.125, "stepNumber": 0, "type": "t"} in metas
    assert {"timestamp": 1717171717200, "stepNumber": 4, "type": "x-y"} in metas


def test_ids_of_200_bytes_and_in_any_script_are_kept(tmp_path: Path) -> None:
    """The longest and oddest names that are allowed, in answers and as files; the base has one as well."""
    ids = [
        "a" * 200,
        "é" * 100,
        "𝄞" * 50,
        "...",
        "..a",
        " ",
        "-rf",
        "~",
        "con",
        "%2e%2e",
        "'\"$(x)`",
        "ﷺ.json",
        "#?*",
    ]
    with running_daemon(tmp_path / "b #?%41 é") as daemon, Raw(daemon.endpoint) as raw:
        for id in ids:
            raw.store("storeJob", job(id))
            raw.store("storeCheckpoint", checkpoint(id, jobId=id, runId=id))
            raw.store("storeEvent", event(id, jobId=id, runId=id))
            raw.store("storeRunSetting", setting(id, jobId=id))
        assert {found["id"] for found in raw.ask("getAllJobs").value} == set(ids)
        assert {found["runId"] for found in raw.ask("getAllRuns").value} == set(ids)
        for id in ids:
            assert raw.ask("retrieveJob", {"jobId": id}).value["id"] == id
            assert raw.ask("retrieveCheckpoint", {"jobId": id, "checkpointId": id}).value["id"] == id
            assert len(raw.ask("getEventContents", {"jobId": id, "runId": id}).value) == 1
        eventually(lambda: len(files_of(daemon.base)) == 4 * len(ids), "the tree is complete")
        assert {path.name for path in (daemon.base / "jobs").iterdir()} == set(ids)
        assert raw.ask("stats").value["tree"]["blocked"] == 0


def test_the_deepest_value_that_is_taken_is_projected_as_well(tmp_path: Path) -> None:
    """What the server can open, index, tree and offline tools can open too: the depth is found by trying."""
    with running_daemon(tmp_path / "base") as daemon:
        with Raw(daemon.endpoint) as raw:
            taken, too_deep = 500, 5000
            while too_deep - taken > 1:
                depth = (taken + too_deep) // 2
                if raw.ask("storeEvent", _deep(depth)).header["ok"]:
                    taken = depth
                else:
                    too_deep = depth
            assert taken > 850
            assert _deep(taken) in raw.whole("getEventContents", _RUN)[0]
            for depth in range(taken - 20, taken + 1):  # through the second opinion as well
                raw.ask("storeEvent", _deep(depth, r"\ud800"))
            assert raw.ask("getEventsByRun", _RUN).value
            eventually(lambda: raw.ask("stats").value["tree"]["lagRecords"] == 0, "the tree is complete")
            stats = raw.ask("stats").value
            assert (stats["index"]["starts"], stats["tree"]["starts"]) == (1, 1)
        assert daemon.stop() == 0
    checked = subprocess.run(check_command(daemon.base), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _deep(depth: int, text: str = "") -> bytes:
    return _event_text(f"deep{depth}{len(text)}", f'"text":"{text}","a":' + "[" * depth + "]" * depth)


CANARY = "sk-canary-4711"


def test_a_secret_is_never_logged_nor_repeated_in_an_error(tmp_path: Path) -> None:
    """API keys in settings, accepted and refused in every way there is, at the most talkative log level."""
    provider = {"providerName": "p", "apiKey": CANARY}
    with running_daemon(tmp_path / "base", "--log-level", "debug") as daemon:
        with Raw(daemon.endpoint) as raw:
            good = setting(providerConfig=provider, perstackApiKey=CANARY, env={"KEY": CANARY, CANARY: "1"})
            raw.store("storeRunSetting", good)
            raw.store("storeRunSetting", good)
            spoilt = json.dumps(good).encode()
            bodies = [
                spoilt[:-1],
                spoilt + b"x",
                spoilt.replace(b'"k"', b"NaN").replace(b'"m"', b"NaN"),
                spoilt[:-1] + b',"x":"\xff"}',
                spoilt[:-1] + b',"x":"\\q"}',
                *[
                    json.dumps({**good, name: CANARY}).encode()
                    for name in ("env", "maxRetries", "updatedAt", "input")
                ],
                *[
                    json.dumps({**good, name: {CANARY: CANARY}}).encode()
                    for name in ("model", "timeout", "jobId")
                ],
                *[json.dumps({**good, name: f"{CANARY}/x"}).encode() for name in ("jobId", "runId")],
                json.dumps(without(good, "jobId")).encode(),
                json.dumps([good]).encode(),
            ]
            for body in bodies:
                for op in ("storeRunSetting", "storeJob", "storeEvent"):
                    answer = raw.ask(op, body)
                    assert answer.header["ok"] is False, body
                    assert CANARY not in json.dumps(answer.header)
            items, body = batch([("storeRunSetting", one) for one in bodies])
            assert CANARY not in json.dumps(raw.ask("store", body, items=items).header)
            assert raw.ask("storeRunSetting", spoilt, session=CANARY, seq=1).header["ok"] is False
            assert CANARY in raw.ask("getAllRuns").body.decode()
        assert daemon.stop() == 0
        log = daemon.log.read_text()
        assert '"ready"' in log
        assert CANARY not in log


def test_many_empty_stores_that_arrive_together_are_each_refused(tmp_path: Path) -> None:
    """They hold no bytes, and must not upset what is counted of their sender's bytes."""
    with running_daemon(tmp_path / "base") as daemon, Raw(daemon.endpoint) as raw:
        raw.ask("ping")
        for n in range(1, 11):
            signals.stop(daemon.pid)
            try:
                ids = [raw.send("storeEvent") for _ in range(50)]
                last = raw.send("storeEvent", event(f"e{n}"))
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
            answers = {answer.header["id"]: answer for answer in (raw.receive() for _ in (*ids, last))}
            assert {answers[id].code for id in ids} == {"BAD_JSON"}
            assert answers[last].position == n
        assert raw.ask("stats").value["held"] == {"requests": 0, "bytes": 0}
        assert daemon.stop() == 0
