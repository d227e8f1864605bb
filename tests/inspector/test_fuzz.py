"""The gateway and its OpenAPI document agree, whatever is asked: some hundred requests made from it.

`make inspect-fuzz` lets schemathesis make 10,000.
"""

import http.client
import json
import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest

from tests.helpers.daemon import RunningDaemon, running_daemon
from tests.helpers.inspector import Inspector, running_inspector
from tests.helpers.replay import calls_of
from tests.inspector import runs
from tests.inspector.storing import store

REQUESTS = 400
IDS = ("job-completed", "job-delegated", "captured-b", "run-1", "run1", "unknown", "job-completed-c72")
ODD = (
    "", " ", "0", "-1", "1", "007", "1e3", "NaN", "Infinity", "9" * 40, "\x00", "\x7f", "é", "日本", "%",
    "%zz",
    "..", "../..", "'", '"', "{}", "[]", "null", "[1,2]", '"x"', "[" * 300, "true", "a,b,,c", "," * 80,
    "x" * 201,
    "x" * 4097, "newest", "slim", "\ud800",
)  # fmt: skip


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    with running_daemon(tmp_path_factory.mktemp("fuzz") / "base") as daemon:
        fill(daemon)
        with running_inspector(daemon) as inspector:
            yield inspector


def fill(daemon: RunningDaemon) -> None:
    for _, calls in runs.every(1_795_000_000_000):
        store(daemon.endpoint, calls)
    store(daemon.endpoint, calls_of("b", "captured-b"))


class Requests:
    """Makes requests from the document: right values, and wrong ones."""

    def __init__(self, document: Any, seed: int) -> None:
        self._random = random.Random(seed)
        self._paths = [path for path in document["paths"] if path != "/api/stream"]
        self._operations = {path: document["paths"][path]["get"] for path in self._paths}

    def make(self) -> tuple[str, str]:
        """The path of the document, and what is asked."""
        path = self._random.choice(self._paths)
        asked, query = path, []
        for parameter in self._operations[path]["parameters"]:
            text = _encoded(self._value(parameter["schema"]))
            if parameter["in"] == "path":
                asked = asked.replace(f"{{{parameter['name']}}}", text or "x")
            elif parameter["required"] or self._random.random() < 0.3:
                query.append(f"{parameter['name']}={text}")
        if self._random.random() < 0.05:
            query.append(f"{_encoded(self._random.choice(ODD))}={_encoded(self._random.choice(ODD))}")
        return path, f"{asked}?{'&'.join(query)}" if query else asked

    def _value(self, schema: Any) -> str:
        if self._random.random() < 0.25:
            return self._random.choice(ODD)
        if "enum" in schema:
            return str(self._random.choice(schema["enum"]))
        if schema["type"] in {"integer", "number"}:
            edges = [schema["minimum"], schema["maximum"], schema["minimum"] - 1, schema["maximum"] + 1]
            return str(self._random.choice([*edges, self._random.randrange(0, 3000)]))
        return self._random.choice(IDS)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def _encoded(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        return quote_from_bytes(text.encode(errors="surrogatepass"), safe="")


def _fits(schema: Any, value: Any, schemas: Any) -> bool:
    """Whether a value fits a schema, as far as the document uses schemas."""
    if "$ref" in schema:
        return _fits(schemas[schema["$ref"].rpartition("/")[2]], value, schemas)
    wanted = schema.get("type", [])
    names = [wanted] if isinstance(wanted, str) else wanted
    if names and not any(isinstance(value, _KINDS[name]) for name in names):
        return False
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            _fits(inner[name], item, schemas) for name, item in value.items() if name in inner
        )
    if isinstance(value, list):
        return all(_fits(schema.get("items", {}), item, schemas) for item in value)
    return True


def test_each_answer_is_as_the_document_says(inspector: Inspector) -> None:
    document = inspector.get("/api/openapi.json")
    schemas = document["components"]["schemas"]
    seed = random.randrange(1 << 32)
    requests = Requests(document, seed)
    statuses: dict[int, int] = {}
    with closing(inspector.connect()) as connection:
        for _ in range(REQUESTS):
            path, asked = requests.make()
            status, body = _ask(connection, asked, inspector.token)
            statuses[status] = statuses.get(status, 0) + 1
            where = f"seed {seed}: {asked}: {status} {body[:200]!r}"
            assert status in {200, 400, 404, 410, 413}, where
            kind = next(iter(document["paths"][path]["get"]["responses"]["200"]["content"].items()))
            if status != 200:
                assert _fits({"$ref": "#/components/schemas/Error"}, json.loads(body), schemas), where
                assert json.loads(body)["error"]["message"], where
            elif kind[0] == "application/json":
                assert _fits(kind[1]["schema"], json.loads(body), schemas), where
    assert statuses[200] > REQUESTS / 10
    assert statuses[400] > REQUESTS / 10


def _ask(connection: http.client.HTTPConnection, path: str, token: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
    response = connection.getresponse()
    return response.status, response.read()
