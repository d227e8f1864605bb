"""The OpenAPI document of the gateway, made of its routes."""

from typing import Any

from perstack_storage._inspect.errors import CODES
from perstack_storage._inspect.parameters import Parameter
from perstack_storage._inspect.routes import ROUTES, Route
from perstack_storage._version import __version__

_ITEM = {"type": "object", "additionalProperties": True}
_RECORD = {
    "type": "object",
    "required": ["position", "time", "op", "value"],
    "properties": {
        "position": {"type": "integer", "minimum": 1},
        "time": {"type": "number", "description": "When the daemon stored it, in ms since 1970."},
        "op": {"type": "string", "description": "storeJob, storeCheckpoint, storeEvent, and others."},
        "value": _ITEM,
        "cut": {"type": "boolean", "description": "Whether long texts of a slim record were cut."},
    },
}
_CHANGES = {
    "type": "object",
    "additionalProperties": {"type": "object", "properties": {"from": {}, "to": {}}},
}
_SHAPES: dict[str, Any] = {
    "Object": _ITEM,
    "Nullable": {"type": ["object", "null"]},
    "Hello": {
        "type": "object",
        "required": ["inspector", "daemon"],
        "properties": {"inspector": _ITEM, "daemon": _ITEM},
    },
    "Page": {
        "type": "object",
        "required": ["position", "next", "items"],
        "properties": {
            "position": {"type": ["integer", "null"], "description": "All up to this position was seen."},
            "next": {"type": ["string", "null"], "description": "`after` of the next page."},
            "items": {"type": "array", "items": _ITEM},
        },
    },
    "Record": _RECORD,
    "Records": {
        "type": "object",
        "required": ["next", "end", "items"],
        "properties": {
            "next": {"type": "integer", "description": "`after` of the next page."},
            "end": {"type": "boolean", "description": "Whether there are no more for now."},
            "items": {"type": "array", "items": _RECORD},
        },
    },
    "Difference": {
        "type": "object",
        "required": ["from", "to", "fields", "usage", "messages"],
        "properties": {"from": _ITEM, "to": _ITEM, "fields": _CHANGES, "usage": _CHANGES, "messages": _ITEM},
    },
    "Usage": {
        "type": "object",
        "required": ["jobId", "runs", "experts", "models", "total"],
        "properties": {
            "jobId": {"type": "string"},
            "runs": {"type": "array", "items": _ITEM},
            "experts": {"type": "array", "items": _ITEM},
            "models": {"type": "array", "items": _ITEM},
            "total": _ITEM,
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": {"type": "string", "description": f"{', '.join(CODES)}, or a newer one."},
                    "message": {"type": "string"},
                    "field": {"type": "string", "description": "The parameter that is wrong."},
                },
            }
        },
    },
}
_MEDIA = {"Html": "text/html", "Stream": "text/event-stream"}
_STREAM_TEXT = (
    "Events `record`, whose data is a slim record (or its head) and whose id is its position; `records`, an"
    " array of them up to the id; `jobs`, whose data names the jobs that changed up to the id, in `jobs`:"
    " null where any may have; `at`, whose data is the position reached; `trouble`, whose data is an error:"
    " after POSITION_GONE the stream ends, after others it goes on by itself."
)


def document() -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "perstack-storectl inspect",
            "version": __version__,
            "description": "What a perstack-stored has stored. Read-only, on loopback, with a token.",
        },
        "security": [{"bearer": []}, {"query": []}],
        "paths": {route.path: {"get": _operation(route)} for route in ROUTES},
        "components": {
            "schemas": {name: shape for name, shape in _SHAPES.items() if name not in _MEDIA},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    answers = {
        "200": {"description": route.text, "content": _content(route.shape)},
        "304": {"description": "As the ETag says, nothing has changed."},
        "default": {"description": "An error.", "content": _content("Error")},
    }
    parameters = [_parameter(route, parameter) for parameter in route.parameters]
    if route.shape == "Stream":
        schema = {"type": "string"}
        text = "The id of the last event that came; it goes before `after`."
        parameters.append({"name": "Last-Event-ID", "in": "header", "description": text, "schema": schema})
    name = route.path.removeprefix("/api/").replace("{", "by-").replace("}", "").replace("/", "-")
    return {"operationId": name, "summary": route.text, "parameters": parameters, "responses": answers}


def _parameter(route: Route, parameter: Parameter) -> dict[str, Any]:
    in_path = f"{{{parameter.name}}}" in route.path
    return {
        "name": parameter.name,
        "in": "path" if in_path else "query",
        "required": in_path or parameter.required,
        "description": parameter.text,
        "schema": parameter.schema(),
    }


def _content(shape: str) -> dict[str, Any]:
    if shape in _MEDIA:
        text = _STREAM_TEXT if shape == "Stream" else "One file."
        return {_MEDIA[shape]: {"schema": {"type": "string", "description": text}}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
