"""The control API in OpenAPI 3.1, for tools and for people. Pure; a test compares it with the app.

Inference paths are not here: their shapes are OpenAI's and Anthropic's, whose own references say more.
"""

from __future__ import annotations

from typing import Any, Final

_JSON: Final = "application/json"

_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {
                    "type": "string",
                    "description": "What is wrong, with which model, and what to do.",
                },
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string", "description": "Stable; act on this."},
            },
        }
    },
}


def _answer(what: str, kind: str = _JSON) -> dict[str, Any]:
    return {"description": what, "content": {kind: {}}}


def _refusal(what: str) -> dict[str, Any]:
    return {"description": what, "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _query(name: str, kind: str, what: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind}, "description": what}


_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Id or alias of a model. Slashes may be written as they are or as %2F.",
}
_WAIT: Final = _query("wait", "boolean", "0: answer 202 at once. Default 1.")


def _get(
    summary: str, *parameters: dict[str, Any], kind: str = _JSON, **more: dict[str, Any]
) -> dict[str, Any]:
    responses = {"200": _answer(summary, kind), **{name.strip("_"): answer for name, answer in more.items()}}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _post(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    responses = {
        "200": _answer("The model afterwards."),
        "202": _answer("Under way."),
        "404": _refusal("There is no such model."),
        "409": _refusal("The model runs at an endpoint that is not ours."),
        "503": _refusal("It failed; the message has the cause and what to do."),
    }
    return {"post": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _paths() -> dict[str, Any]:
    format_ = _query("format", "string", "json or html; unset: html for browsers.")
    models = _get("Every model that can be asked for, loaded or not.")
    model = _get("One model.", _ID, _404=_refusal("There is no such model."))
    return {
        "/": _get("What there is.", format_),
        "/health": _get("The daemon is alive."),
        "/ready": _get("A request can make progress.", _503=_refusal("None can; the message says why.")),
        "/metrics": _get("Prometheus metrics.", kind="text/plain"),
        "/status": _get("The status page, or its JSON.", format_),
        "/api/status": _get("The status as JSON.", _query("pretty", "boolean", "Indented. Default 0.")),
        "/api/events": _get(
            "The supervisor's events: those kept, then new ones as they come.", kind="text/event-stream"
        ),
        "/v1/models": models,
        "/v1/models/{id}": model,
        "/models": models,
        "/models/{id}": model,
        "/api/models": _get("Every model with its instance."),
        "/api/models/{id}": _get(
            "One model with its instance.", _ID, _404=_refusal("There is no such model.")
        ),
        "/api/models/{id}/load": _post(
            "Start a model and wait until it is ready.",
            _ID,
            _WAIT,
            _query("retry", "boolean", "1: clear BACKOFF or FAILED first. Default 0."),
            _query("timeout", "string", "Longest wait: 60, 60s, 5m."),
        ),
        "/api/models/{id}/unload": _post(
            "Stop a model once its requests are done.",
            _ID,
            _WAIT,
            _query("force", "boolean", "1: cut the requests in flight. Default 0."),
        ),
        "/api/models/{id}/logs": _get(
            "The end of the engine's log.",
            _ID,
            _query("tail", "integer", "Lines, 1 to 10000; at most 256 KiB. Default 200."),
            _query("format", "string", "text or json. Default text."),
            kind="text/plain",
            _404=_refusal("No such model, or it was never started."),
        ),
        "/openapi.json": _get("This document."),
    }


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document of a daemon of this version."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelyard control API", "version": version},
        "paths": _paths(),
        "components": {"schemas": {"Error": _ERROR}},
    }
