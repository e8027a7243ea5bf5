"""The control API in OpenAPI 3.1, for tools and for people. Pure; a test compares it with the app.

Inference paths are not here: their shapes are OpenAI's and Anthropic's, whose own references say more.
"""

from __future__ import annotations

from typing import Any, Final

from router.control.schemas import components

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


def _answer(what: str, kind: str = _JSON, shape: str = "") -> dict[str, Any]:
    inside = {"schema": {"$ref": f"#/components/schemas/{shape}"}} if shape else {}
    return {"description": what, "content": {kind: inside}}


def _sent_on(what: str) -> dict[str, Any]:
    return {"description": what, "headers": {"Location": {"schema": {"type": "string"}}}}


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
_REQUEST_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The `X-Request-Id` of a request's answer.",
}
_LOGIN: Final = {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}
_WAIT: Final = _query("wait", "boolean", "0: answer 202 at once. Default 1.")


def _get(
    summary: str, *parameters: dict[str, Any], kind: str = _JSON, shape: str = "", **more: dict[str, Any]
) -> dict[str, Any]:
    responses = {
        "200": _answer(summary, kind, shape),
        **{name.strip("_"): answer for name, answer in more.items()},
    }
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _post(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    responses = {
        "200": _answer("The model afterwards.", shape="ModelStatus"),
        **({"202": _answer("Under way.", shape="ModelStatus")} if _WAIT in parameters else {}),
        "404": _refusal("There is no such model."),
        "409": _refusal("The model runs at an endpoint that is not ours."),
        "503": _refusal("It failed; the message has the cause and what to do."),
    }
    return {"post": {"summary": summary, "parameters": list(parameters), "responses": responses}}


_SEED_KEYS: Final = {
    "prompt": {"type": "string"},
    "model": {"type": "string", "description": "Unset: the default model."},
    "system": {"type": "string"},
    "images": {"type": "array", "items": {"type": "string"}, "description": "URLs, base64, or paths."},
    "raw": {"type": "boolean", "description": "The prompt as it is, without the chat template."},
    "stream": {"type": "boolean", "description": "Events `{text, finish_reason}`; the last has the reason."},
    "retry": {"type": "boolean", "description": "Clear BACKOFF or FAILED first."},
    "force": {"type": "boolean", "description": "Cut the requests in flight."},
    "max_tokens": {"type": "integer"},
    "temperature": {"type": "number"},
}


def _seed(summary: str, *keys: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {key: _SEED_KEYS[key] for key in keys}}
    described = _post(summary)
    described["post"]["requestBody"] = {"content": {_JSON: {"schema": schema}}}
    answer = _answer(summary)
    if "stream" in keys:
        answer["content"]["text/event-stream"] = {}
    described["post"]["responses"] |= {"200": answer, "400": _refusal("It is not understood.")}
    return described


_DRAFT: Final = {
    "type": "object",
    "required": ["file", "text"],
    "properties": {
        "file": {"type": "string", "description": "Absolute path: relative ones in it start at its folder."},
        "text": {"type": "string", "description": "What is in it, YAML."},
    },
}


def _reload(
    summary: str, shape: str, *parameters: dict[str, Any], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    responses = {
        "200": _answer(summary, shape=shape),
        **({"202": _answer("Under way.", shape=shape)} if parameters else {}),
        "400": _refusal("The file cannot be used: a line per problem, with file, line and key."),
    }
    said = {"summary": summary, "parameters": list(parameters), "responses": responses}
    inside = {} if body is None else {"requestBody": {"content": {_JSON: {"schema": body}}}}
    return {"post": {**said, **inside}}


def _paths() -> dict[str, Any]:
    format_ = _query("format", "string", "json or html; unset: html for browsers.")
    models = _get("Every model that can be asked for, loaded or not.", shape="ModelList")
    model = _get(
        "One model, with every fact.", _ID, shape="ModelDossier", _404=_refusal("There is no such model.")
    )
    return {
        "/": _get("What there is.", format_),
        "/health": _get("The daemon is alive."),
        "/ready": _get("A request can make progress.", _503=_refusal("None can; the message says why.")),
        "/metrics": _get("Prometheus metrics.", kind="text/plain"),
        "/status": _get("The status page, or its JSON.", format_, shape="Status"),
        "/api/status": _get(
            "The status as JSON.", _query("pretty", "boolean", "Indented. Default 0."), shape="Status"
        ),
        "/api/status/stream": _get(
            "The status (`event: status`, a Status), then what changes (`event: change`, a Change), at most "
            "twice a second; `event: ping` when nothing does, `event: end` when the daemon stops.",
            kind="text/event-stream",
            _503=_refusal("Too many follow this daemon already."),
        ),
        "/api/events": _get(
            "What happened (an Event each): what is kept, then what comes.", kind="text/event-stream"
        ),
        "/api/explain/{id}": _get(
            "Why a request waited: what it needed, who was in the way, what was stopped for it.",
            _REQUEST_ID,
            shape="Explained",
            _404=_refusal("No request of that id has waited lately."),
        ),
        "/v1/models": models,
        "/v1/models/{id}": model,
        "/models": models,
        "/models/{id}": model,
        "/api/restart": _post(
            "A new process takes over the listener, the models and the requests that wait; what is open is "
            "served to its end. Answered when it serves."
        ),
        "/api/config/plan": _reload(
            "What a reload would do. With a body, what it would do if that were the daemon's file.",
            "ConfigPlan",
            body=_DRAFT,
        ),
        "/api/config/apply": _reload(
            "Reload the daemon's file; answered when what was restarted is ready or has been put back.",
            "ConfigApplied",
            _WAIT,
        ),
        "/api/models": _get("Every model with its instance.", shape="ModelStatuses"),
        "/api/models/{id}": _get(
            "One model with its instance and every fact.",
            _ID,
            shape="ModelDetail",
            _404=_refusal("There is no such model."),
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
        "/api/models/{id}/pin": _post("Keep a model in memory until unpinned or the daemon ends.", _ID),
        "/api/models/{id}/unpin": _post("Let a pinned model be stopped again.", _ID),
        "/api/models/{id}/logs": _get(
            "The end of the engine's log, and with `follow` each new line as it comes.",
            _ID,
            _query("tail", "integer", "Lines, 1 to 10000; at most 256 KiB. Default 200."),
            _query("follow", "boolean", "1: go on until the caller leaves. Default 0."),
            _query("format", "string", "text, json, or events (followed). Default: as Accept says."),
            kind="text/plain",
            _404=_refusal("No such model, or it was never started."),
        ),
        "/api/v1/inference/load": _seed("Start a model, or the default one.", "model", "retry"),
        "/api/v1/inference/unload": _seed("Stop a model, or the only loaded one.", "model", "force"),
        "/api/v1/inference/status": _get("What is loaded, what could be, and the memory."),
        "/api/v1/inference/generate": _seed(
            "Answer a prompt; with `stream` as events.",
            *("prompt", "model", "system", "images", "raw", "stream", "max_tokens", "temperature"),
        ),
        "/login": {
            **_get(
                "The form to log in with a key, for browsers.",
                kind="text/html",
                _302=_sent_on("Nobody needs to: to the status page."),
            ),
            "post": {
                "summary": "Log in.",
                "requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": _LOGIN}}},
                "responses": {
                    "303": _sent_on("To the status page."),
                    "401": _answer("It is no key: the form again.", "text/html"),
                },
            },
        },
        "/logout": {
            "post": {"summary": "Forget the session.", "responses": {"303": _sent_on("To the form.")}}
        },
        "/api/session": _get("Whether keys are on, whose request this is, and its scope."),
        "/api/keys": _get("The keys in force and what each has used; neither keys nor hashes."),
        "/openapi.json": _get("This document."),
    }


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document of a daemon of this version."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelyard control API", "version": version},
        "paths": _paths(),
        "components": {"schemas": {"Error": _ERROR, **components()}},
    }
