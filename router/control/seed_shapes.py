"""What `/api/v1/inference` takes and answers, and how that is said in the API of today. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from registry.engine import ModelId
from registry.model import Model
from router.refused import RefusedError, bad_request
from supervisor.lifecycle import State
from supervisor.view import FleetView, InstanceView

MOST_IMAGES: Final = 64
"""In one request: more than any model we know looks at."""

_OURS: Final = frozenset({"prompt", "system", "images", "image", "raw", "stream", "model"})
_ELSEWHERE: Final = frozenset({"messages", "input"})

_TYPES_BY_BASE64: Final = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}
"""How the base64 of an image file begins."""

_TYPES_BY_BYTES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


def _wrong(message: str, param: str | None = None) -> RefusedError:
    return RefusedError(bad_request(message, param=param))


# -- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImagePath:
    """An image named by a path on this machine."""

    path: str


Image = str | ImagePath
"""A URL that engines understand (`https:`, `data:`), or a file."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A request to generate, understood."""

    prompt: str
    model: str | None = None
    system: str = ""
    images: tuple[Image, ...] = ()
    raw: bool = False
    """The prompt goes to the model as it is, without the chat template."""
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Sampling and whatever else today's API takes; not looked at here."""


def named_model(body: Mapping[str, Any]) -> str | None:
    """The model that *body* names, or None. Raises RefusedError when it is no name."""
    name = body.get("model")
    if name is None or (isinstance(name, str) and name):
        return name
    raise _wrong("`model` is the id of a model; leave it out for the default one", "model")


def flag_in(body: Mapping[str, Any], name: str) -> bool:
    """The key *name* as yes or no; absent is no. Raises RefusedError."""
    value = body.get(name, False)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong(f"`{name}` is true or false", name)


def read_generation(body: Mapping[str, Any]) -> Generation:
    """The request in *body*. Raises RefusedError with what is wrong and what to write."""
    misplaced = sorted(_ELSEWHERE & set(body))
    if misplaced:
        raise _wrong(
            f"`{misplaced[0]}` is not for generate: send a `prompt`, or a conversation to "
            "/v1/chat/completions",
            misplaced[0],
        )
    prompt, system = body.get("prompt"), body.get("system") or ""
    if not isinstance(prompt, str) or not prompt:
        raise _wrong("`prompt` is the text to answer and must not be empty", "prompt")
    if not isinstance(system, str):
        raise _wrong("`system` is text", "system")
    if body.get("n") not in (None, 1):
        raise _wrong("generate gives one answer; for several ask /v1/chat/completions", "n")
    images, raw = _images(body), flag_in(body, "raw")
    if raw and (images or system):
        raise _wrong("with `raw` the prompt is all that the model gets: no `images` and no `system`", "raw")
    return Generation(
        prompt=prompt,
        model=named_model(body),
        system=system,
        images=images,
        raw=raw,
        stream=flag_in(body, "stream"),
        options={key: value for key, value in body.items() if key not in _OURS},
    )


def _images(body: Mapping[str, Any]) -> tuple[Image, ...]:
    given = body.get("images")
    found = list(given) if isinstance(given, list) else [] if given is None else [given]
    if body.get("image") is not None:
        found.append(body["image"])
    if len(found) > MOST_IMAGES:
        raise _wrong(f"{len(found)} images are more than the {MOST_IMAGES} a request may have", "images")
    return tuple(_image(one) for one in found)


def _image(given: object) -> Image:
    """One image: a URL, base64 with or without `data:`, a path; or `{"url": …}`, `{"path": …}` …"""
    if isinstance(given, Mapping):
        inner = given.get("image_url", given)
        given = (
            inner.get("url") or inner.get("base64") or inner.get("data")
            if isinstance(inner, Mapping)
            else inner
        )
        if given is None and isinstance(inner, Mapping) and isinstance(inner.get("path"), str):
            return ImagePath(inner["path"])
    if not isinstance(given, str) or not given:
        raise _wrong("an image is a URL, base64, or a path", "images")
    if given.startswith(("http://", "https://", "data:")):
        return given
    if given.startswith("file://"):
        return ImagePath(given.removeprefix("file://").removeprefix("localhost"))
    # Before paths: the base64 of a JPEG begins like one.
    for beginning, kind in _TYPES_BY_BASE64.items():
        if given.startswith(beginning) and len(given) > 64:
            return f"data:{kind};base64,{given}"
    if given.startswith("/"):
        return ImagePath(given)
    shown = given[:40]
    raise _wrong(f"{shown!r} is neither a URL, nor an image in base64, nor an absolute path", "images")


def image_type(data: bytes) -> str | None:
    """The media type of an image file by its first bytes; None when it is none that models look at."""
    for beginning, kind in _TYPES_BY_BYTES.items():
        if data.startswith(beginning) and (kind != "image/webp" or data[8:12] == b"WEBP"):
            return kind
    return None


def todays_request(asked: Generation, images: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """(path, body) of the same request today; *images* are the request's, every file read."""
    body: dict[str, Any] = dict(asked.options)
    if asked.model is not None:
        body["model"] = asked.model
    body["stream"] = asked.stream
    if asked.raw:
        return "/v1/completions", body | {"prompt": asked.prompt}
    content: Any = asked.prompt
    if images:
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        content = [*pictures, {"type": "text", "text": asked.prompt}]
    messages = [{"role": "system", "content": asked.system}] if asked.system else []
    return "/v1/chat/completions", body | {"messages": [*messages, {"role": "user", "content": content}]}


# -- answers ---------------------------------------------------------------------------------------


def seed_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Today's whole answer in the seed's shape."""
    choice = (answer.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return {
        "text": message.get("content") or choice.get("text") or "",
        "finish_reason": choice.get("finish_reason"),
        "model": answer.get("model"),
        "usage": answer.get("usage"),
    }


def seed_event(data: str) -> dict[str, Any] | None:
    """One event of today's stream in the seed's shape; None where it has nothing to say.

    An error stays what it is, `{"error": …}`.
    """
    if data.strip() == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    if event.get("error"):
        return {"error": event["error"]}
    choices = event.get("choices") or ()
    if not choices:
        return None
    choice = choices[0]
    text = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
    finish = choice.get("finish_reason")
    return {"text": text, "finish_reason": finish} if text or finish else None


@dataclass(frozen=True, slots=True)
class Picture:
    """What the seed's status is made of."""

    version: str
    uptime_seconds: float
    default_model: str | None
    fleet: FleetView
    models: Mapping[ModelId, Model]
    """Those that the caller may see; of others nothing is said."""


def seed_status(picture: Picture) -> dict[str, Any]:
    """`ready` when a model is loaded, else `loading`, else `idle`; and what is loaded."""
    views = [view for view in picture.fleet.instances if view.model in picture.models]
    loaded = [view for view in views if view.state in (State.READY, State.DRAINING)]
    loading = [view for view in views if view.state is State.STARTING]
    # The one used last is what a program that knows one model means by "the model".
    latest = min(loaded, key=lambda view: (view.idle_seconds or 0.0, view.model), default=None)
    return {
        "status": "ready" if loaded else "loading" if loading else "idle",
        "model_loaded": bool(loaded),
        "model": None if latest is None else latest.model,
        "default_model": picture.default_model,
        "loaded_models": [_loaded(view, picture.models[view.model]) for view in (*loaded, *loading)],
        "available_models": sorted(model.id for model in picture.models.values() if model.problem is None),
        "in_flight": sum(view.leases for view in views),
        "waiting": picture.fleet.waiting,
        "memory": {
            device.id: {
                "total_bytes": device.total_bytes,
                "budget_bytes": device.budget_bytes,
                "reserved_bytes": device.reserved_bytes,
                "free_bytes": device.free_bytes,
            }
            for device in picture.fleet.devices
        },
        "uptime_seconds": picture.uptime_seconds,
        "version": picture.version,
    }


def _loaded(view: InstanceView, model: Model) -> dict[str, Any]:
    return {
        "model": view.model,
        "engine": view.engine.value,
        "state": view.state.value,
        "progress": view.progress,
        "in_flight": view.leases,
        "idle_seconds": view.idle_seconds,
        "memory_bytes": view.measured_bytes or view.reserved_bytes,
        "context_length": model.facts.context_length.value,
    }
