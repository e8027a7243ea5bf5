"""What a running server says it serves: its answer to `GET /v1/models`, of whichever kind it is. Pure.

vLLM, vllm-mlx, mlx-lm, llama.cpp, Ollama (`/v1/models` and `/api/tags`) and other OpenAI-like servers. The
answer comes from outside: whatever is odd in it is left out, and nothing raises but an answer that is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.capability import Capability

MAX_MODELS = 2000
"""Taken from one server; the rest is dropped."""
MAX_ID = 200


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
    )


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
