"""What a running server says it serves: its model list, its routes, its health page. Pure.

vLLM, vllm-mlx, mlx-lm, llama.cpp, Ollama (`/v1/models` and `/api/tags`) and other OpenAI-like servers. The
answers come from outside: whatever is odd in them is left out, and nothing raises but a list that is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.capability import Capability

MAX_MODELS = 2000
"""Taken from one server; the rest is dropped."""
MAX_ID = 200
MAX_WORD = 80


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a running server."""

    id: str
    context_length: int | None = None
    """What is in force there: vLLM's max_model_len, llama.cpp's n_ctx."""
    parameters: int | None = None
    size_bytes: int | None = None
    capabilities: frozenset[Capability] | None = None
    root: str | None = None
    """What it was started with: a hub id or a path on that machine; the name may say nothing."""
    created: int = 0
    owned_by: str = ""
    roles: frozenset[Capability] | None = None
    """What its routes are for: vLLM registers those that the model can serve, and no others."""
    roles_source: str = "/openapi.json"
    sees: bool | None = None
    """Whether pictures go in, by vllm-mlx's `model_type`."""
    active_parameters: int | None = None
    quantization: str | None = None
    family: str | None = None
    architecture: str | None = None
    """These four by a server of our own kind; other servers' words for them are other words."""


def parse_models(body: bytes) -> tuple[ServedModel, ...]:
    """The models in an answer, each id once. Raises ValueError when it is no list of models."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("its list of models is not JSON") from None
    if isinstance(value, list):
        entries: Any = value
    elif isinstance(value, dict):
        entries = value.get("data", value.get("models"))
    else:
        entries = None
    if entries is None and isinstance(value, dict) and "data" in value:
        entries = []  # Ollama without models answers null
    if not isinstance(entries, list):
        raise ValueError("its answer to /v1/models is no list of models")  # noqa: TRY004  one error for bad answers
    found: dict[str, ServedModel] = {}
    for entry in entries:
        model = _served(entry) if isinstance(entry, dict) else None
        if model is not None and len(found) < MAX_MODELS:
            found.setdefault(model.id, model)
    return tuple(found.values())


def _served(entry: Mapping[str, Any]) -> ServedModel | None:
    name = entry.get("id") or entry.get("name") or entry.get("model")
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= MAX_ID
        or not name.isprintable()
        or name.strip() != name
    ):
        return None
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    root = entry.get("root")
    ours = entry if "source_kind" in entry and "sources" in entry else {}
    return ServedModel(
        id=name,
        context_length=_first_whole(
            entry.get("max_model_len"),
            entry.get("context_length"),
            entry.get("max_context_length"),
            meta.get("n_ctx"),
            meta.get("n_ctx_train"),
        ),
        parameters=_first_whole(entry.get("parameters"), meta.get("n_params")),
        size_bytes=_first_whole(entry.get("size_bytes"), entry.get("size"), meta.get("size")),
        capabilities=_capabilities(entry),
        root=root if isinstance(root, str) and root != name else None,
        created=_first_whole(entry.get("created")) or 0,
        owned_by=str(entry.get("owned_by") or "")[:MAX_ID],
        active_parameters=_first_whole(ours.get("active_parameters")),
        quantization=_word(ours.get("quantization")),
        family=_word(ours.get("family")),
        architecture=_word(ours.get("architecture")),
    )


def _word(value: object) -> str | None:
    """*value* when it is a word that can be shown."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_WORD and value.isprintable() else None


def _first_whole(*values: object) -> int | None:
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**15:
            return value
    return None


_WORDS = {
    # Ollama's and llama.cpp's words beside our own.
    "completion": Capability.GENERATE,
    "chat": Capability.GENERATE,
    "tools": Capability.TOOL_USE,
    "thinking": Capability.REASONING,
    "embedding": Capability.EMBED,
    "embeddings": Capability.EMBED,
    "multimodal": Capability.VISION,
    **{capability.value: capability for capability in Capability},
}


def _capabilities(entry: Mapping[str, Any]) -> frozenset[Capability] | None:
    known = frozenset(_WORDS[word] for word in _said(entry.get("capabilities")) if word in _WORDS)
    if known:
        return known
    owner = entry.get("owned_by")
    if owner == "vllm-mlx-embedding":
        return frozenset({Capability.EMBED})
    if owner == "vllm-mlx-reranker":
        return frozenset({Capability.RERANK})
    return None


def _said(value: object) -> Iterator[str]:
    """A list of words, or a mapping from words to true and false."""
    if isinstance(value, list):
        yield from (word for word in value if isinstance(word, str))
    elif isinstance(value, dict):
        yield from (word for word, there in value.items() if isinstance(word, str) and there is True)


# -- routes and health -----------------------------------------------------------------------------

_ROLE_BY_ROUTE = {
    "/v1/chat/completions": Capability.GENERATE,
    "/v1/completions": Capability.GENERATE,
    "/v1/embeddings": Capability.EMBED,
    "/classify": Capability.CLASSIFY,
    "/v1/audio/transcriptions": Capability.TRANSCRIBE,
}
_SELECTIVE = ("vllm",)
"""Owners of models whose server has only the routes that its model can serve; others have all of theirs."""


def parse_routes(body: bytes) -> frozenset[str]:
    """The paths in an answer to `/openapi.json`; none when it is no such thing."""
    paths = _object(body).get("paths")
    return (
        frozenset(path for path in paths if isinstance(path, str)) if isinstance(paths, dict) else frozenset()
    )


def with_routes(served: ServedModel, routes: frozenset[str]) -> ServedModel:
    """*served* with what its server's routes say of it, where they say anything."""
    if served.owned_by not in _SELECTIVE:
        return served
    roles = {role for route, role in _ROLE_BY_ROUTE.items() if route in routes}
    if roles == {Capability.CLASSIFY} and {"/rerank", "/v1/rerank"} & routes:
        # A cross-encoder has one score per pair, and is offered as a classifier as well.
        roles = {Capability.RERANK}
    return replace(served, roles=frozenset(roles)) if roles else served


def with_proof(served: ServedModel, path: str | None) -> ServedModel:
    """*served* with what is shown by its having answered a request to *path*."""
    role = _ROLE_BY_ROUTE.get(path or "")
    if role is None:
        return served
    return replace(served, roles=frozenset({role}), roles_source=f"it answered {path}")


def with_health(served: ServedModel, body: bytes) -> ServedModel:
    """*served* with what vllm-mlx's health page says of it."""
    health = _object(body)
    kind, name = health.get("model_type"), health.get("model_name")
    if kind not in ("llm", "mllm") or not served.owned_by.startswith("vllm-mlx"):
        return served
    is_this = name in (None, served.id, served.root) or served.owned_by == "vllm-mlx"
    return replace(served, sees=kind == "mllm") if is_this else served


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
