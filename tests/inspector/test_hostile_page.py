"""What agents stored is text on every screen: nothing runs, nothing is asked elsewhere, nothing hangs."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from perstack_storage import Client
from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.helpers.raw_client import Raw, session
from tests.helpers.replay import METHODS
from tests.inspector.browsing import at, load
from tests.inspector.runs import usage

EVIL = "http://evil.example"
HIT = "window.hit=1"
PAYLOADS = (
    f"<script>{HIT}</script>",
    f"<img src=x onerror={HIT}>",
    f"<svg onload={HIT}><animate onbegin={HIT}>",
    f'"><iframe src={EVIL}></iframe>',
    f"javascript:{HIT}",
    "{{constructor.constructor('window.hit=1')()}}",
    "${window.hit=1}`${window.hit=1}`",
    f"<a href=javascript:{HIT}>click</a>",
    f"<style>@import url({EVIL}/x.css)</style>",
    f"<link rel=stylesheet href={EVIL}/x.css>",
    f"<meta http-equiv=refresh content=0;url={EVIL}>",
    f"</script><script>{HIT}</script>",
    "<!--<script>",
    f"<base href={EVIL}/>",
    f"<form action={EVIL}><input autofocus onfocus={HIT}>",
    f"<object data={EVIL}></object><embed src={EVIL}>",
    f"data:text/html,<script>{HIT}</script>",
    f"background:url({EVIL}/x.png)",
    "\u202egnp.exe",
    "\u2066\u2067left\u2069right",
    "zero\u200bwidth\ufeff\u00adjoin",
    "Z\u0351\u036b\u0343a\u0352\u036cl\u0353g\u0354o",
    "👩‍👩‍👧‍👦 名前 اسم",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "a%2Fb?c=d#e&f+g",
    "..%2f..%2fapi%2fjobs",
    " ",
    "x" * 200,
)
MOST = (1 << 53) - 1
CONTROL = ("\x1b[31mred\x1b]8;;http://evil.example\x07link", "a\x00b", "\x9b31m", "\r\n\t\x08")


def job_of(id: str, start: int, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The records of a job with a payload in each field that takes one."""
    event = {"expertKey": text, "jobId": id, "runId": id, "stepNumber": 1}
    kind = re.sub(r"[./\\\x00-\x1f\x7f-\x9f]", "_", text)[:33]
    call = {"id": text, "skillName": text, "toolName": text, "args": {text: text, "__proto__": {"a": text}}}
    part = {"type": "textPart", "text": f"Error {text}", "id": text}
    contents = [part, {"type": "toolCallPart", **call}, {"type": text, "thinking": text}, text, None, 1]
    messages = [
        {"type": text, "id": text, "contents": contents},
        {"type": "userMessage", "contents": text},
        7,
    ]
    expert = {"key": text, "name": text, "version": text}
    checkpoint = {
        "id": id, "jobId": id, "runId": id, "status": text, "stepNumber": 1, "messages": messages,
        "expert": expert, "usage": usage(10), "contextWindowUsage": text,
        "error": {"name": text, "message": text, "statusCode": text, "isRetryable": True},
        "delegatedBy": {"runId": text, "toolCallId": text}, "delegateTo": [text, {"toolCallId": text}],
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "startRun", "initialCheckpoint": checkpoint, "inputMessages": messages},
        {"type": "startGeneration", "messages": messages},
        {"type": "startStreamingReasoning"},
        {"type": "streamReasoning", "delta": text},
        {"type": "streamReasoning", "delta": {"text": text}},
        {"type": "completeStreamingReasoning", "text": text},
        {"type": "callTools", "toolCalls": [call, text, None], "usage": text},
        {"type": "resolveToolResults", "toolResults": [{**call, "result": [part, text]}, 3]},
        {"type": "retry", "reason": text, "usage": {"totalTokens": text}},
        {"type": kind, "text": [text]},
        {"type": "stopRunByError", "error": {"name": text, "message": text}, "checkpoint": text},
    ]
    job = {
        "id": id, "coordinatorExpertKey": text, "status": text, "totalSteps": 1, "startedAt": start,
        "usage": usage(10),
    }  # fmt: skip
    stored: list[tuple[str, dict[str, Any]]] = [
        ("storeEvent", {**event, "id": f"{id[:150]}{n}", "timestamp": start + n, **fields})
        for n, fields in enumerate(events)
    ]
    return [("storeJob", job), *stored, ("storeCheckpoint", checkpoint)]


def large(start: int) -> list[tuple[str, dict[str, Any]]]:
    """Values beyond what a screen can show at once."""
    base = {"jobId": "large", "runId": "large", "expertKey": "e", "type": "custom"}
    values: list[dict[str, Any]] = [
        {"timestamp": start, "stepNumber": 0, "text": "ab\n" * 3_500_000},
        {"timestamp": 0, "stepNumber": MOST, "text": "w" * 100_000},
        {"timestamp": MOST, "stepNumber": 2, "list": [0] * 200_000},
        {"timestamp": start, "stepNumber": 3, **{f"k{number}": number for number in range(20_000)}},
    ]
    return [("storeEvent", {**base, "id": str(number), **value}) for number, value in enumerate(values)]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    start = time.time_ns() // 1_000_000
    with running_daemon(tmp_path_factory.mktemp("hostile") / "base") as daemon:
        with Client(daemon.endpoint) as client, client.pipeline() as pipeline:
            for number, text in enumerate(PAYLOADS):
                id = text.replace("/", "_")[:200]
                for op, value in job_of(id, start - number, text):
                    getattr(pipeline, METHODS[op])(value)
            for number, text in enumerate(CONTROL):
                for op, value in job_of(f"control-{number}", start - 100 - number, text.strip() or "x"):
                    if value.get("type") == text:
                        continue
                    getattr(pipeline, METHODS[op])(value)
            for op, value in large(start - 200):
                getattr(pipeline, METHODS[op])(value)
        deep = b'{"a":' * 855 + b"1" + b"}" * 855
        head = b'{"id":"d","type":"deep","jobId":"large","runId":"large","expertKey":"e","timestamp":1,'
        head += b'"stepNumber":4'
        with Raw(daemon.endpoint) as raw:
            stored = session()
            raw.store("storeEvent", head + b',"deep":' + deep + b"}", session=stored, seq=1)
            raw.store(
                "storeEvent", head.replace(b'"d"', b'"s"') + b',"text":"\\ud800"}', session=stored, seq=2
            )
        yield daemon


@pytest.fixture(scope="module")
def inspector(daemon: RunningDaemon) -> Iterator[Inspector]:
    with running_inspector(daemon) as inspector:
        yield inspector


@pytest.fixture
def page(context: BrowserContext, inspector: Inspector) -> Iterator[Page]:
    """A page on the hostile base; in the end nothing of the stored texts has run or become an element."""
    page = context.new_page()
    page.goto(inspector.address)
    yield page
    harmless(page)


def harmless(page: Page) -> None:
    """Nothing has run, and there are only elements of the page's own."""
    assert page.evaluate("window.hit") is None
    assert page.locator("body :is(img, iframe, object, embed, style, link, base, meta, animate)").count() == 0
    assert page.locator("body script:not([src]):not([type='application/json'])").count() <= 1
    assert page.locator("a[href^='javascript:'], a[href*='evil.example/']").count() == 0


def job_ids(inspector: Inspector) -> list[str]:
    return [job["jobId"] for job in inspector.get("/api/jobs?limit=100")["items"]]


def test_the_list_and_each_job_show_texts_only(page: Page, inspector: Inspector) -> None:
    expect(page.locator("a.job").first).to_be_visible()
    harmless(page)
    ids = job_ids(inspector)
    assert len(ids) == len(PAYLOADS) + len(CONTROL) + 1
    for id in ids:
        if id == "large":
            continue
        name = quote(id, safe="")
        at(page, f"/jobs/{name}/runs/{name}")
        expect(page.locator(".step").first).to_be_visible()
        harmless(page)


@pytest.mark.parametrize("number", [0, 18, 24, 29])
def test_each_screen_shows_texts_only(page: Page, number: int) -> None:
    name = quote(PAYLOADS[number].replace("/", "_")[:200], safe="")
    for tab in ("timeline", "graph", "runs", "usage", "tools", "errors", "checkpoints"):
        at(page, f"/jobs/{name}?tab={tab}")
        expect(page.locator("main :is(canvas, table, .list, .vertex, .empty)").first).to_be_visible()
        expect(page.locator(".empty")).to_have_count(0)
        harmless(page)
    for view in ("events", "conversation"):
        at(page, f"/jobs/{name}/runs/{name}?view={view}")
        expect(page.locator("main :is(.events > li, .message)").first).to_be_visible()
        harmless(page)


def test_each_screen_over_jobs_shows_texts_only(page: Page) -> None:
    page.locator("a", has_text="Jobs").first.click()
    for path in ("/usage", "/usage?by=model", "/usage?by=run", "/usage?by=job", "/tools", "/errors"):
        load(page, path)
        expect(page.locator("main :is(table, .list > li)").first).to_be_visible()
        harmless(page)


def test_hidden_characters_are_seen(page: Page, inspector: Inspector) -> None:
    """A name can't turn the direction of text, hide letters, or look like another one."""
    expect(page.locator("a.job").first).to_be_visible()
    page.evaluate("scrollTo(0, 900)")
    expect(page.locator("a.job", has_text="control-0")).to_be_visible()
    text = page.locator(".jobs").inner_text()
    assert "⟨U+202E⟩gnp.exe" in text
    assert "zero⟨U+200B⟩width⟨U+FEFF⟩⟨U+00AD⟩join" in text
    assert "␛[31mred␛]8" in text
    assert not set(text) & set("\u202e\u2066\u2067\u200b\ufeff\x1b\x9b\x00")
    assert "👩‍👩‍👧‍👦 名前 اسم" in text


def test_large_and_deep_values_are_shown_in_pieces(page: Page, daemon: RunningDaemon) -> None:
    at(page, "/jobs/large")
    expect(page.locator("canvas")).to_be_visible()
    at(page, "/jobs/large/runs/large?view=events")
    expect(page.locator(".events > li")).to_have_count(6)
    with Client(daemon.endpoint) as client:
        positions = [one["position"] for one in client.read_all() if one["value"].get("jobId") == "large"]
    for position in positions:
        for view in ("tree", "raw"):
            at(page, f"/records/{position}?view={view}")
            shown = page.locator(".tree, .raw")
            expect(shown).to_be_visible()
            assert len(shown.inner_text()) < 60_000
    at(page, f"/records/{positions[4]}")
    for _ in range(40):  # each level opens when it is asked to
        page.locator(".tree .node[aria-expanded=false] > button").first.click()
    expect(page.locator(".tree .node[aria-expanded=true]")).to_have_count(42)


@pytest.mark.parametrize("number", [11, 12, 23])
def test_an_exported_file_is_as_harmless(
    page: Page, inspector: Inspector, tmp_path: Path, number: int
) -> None:
    name = quote(PAYLOADS[number].replace("/", "_")[:200], safe="")
    path = tmp_path / "job.html"
    path.write_bytes(inspector.ask(f"/api/jobs/{name}/export").body)
    page.goto(path.as_uri())
    expect(page.locator("canvas")).to_be_visible()
    harmless(page)
    page.locator(".label a").first.click()
    expect(page.locator(".step").first).to_be_visible()
