"""Capabilities, and which endpoint needs which. The endpoint table is the only place that knows paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from config.vocabulary import Capability as Capability


class Protocol(StrEnum):
    """Whose error envelope and whose stream events an endpoint speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An inference path: what a model needs for it, and how its body names the model."""

    path: str
    """As the engine has it, with the version prefix."""
    needs: frozenset[Capability]
    """One of these is enough; empty: any model."""
    protocol: Protocol = Protocol.OPENAI
    multipart: bool = False
    """The body is multipart/form-data (audio uploads)."""
    streams: bool = False
    """`stream: true` is answered by server-sent events."""
    document: bool = True
    """Without `stream` the answer is a JSON document."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the content of a request asks of a model, besides its endpoint."""

    capabilities: frozenset[Capability] = frozenset()
    tokens: int | None = None
    """Longest answer it asks for."""
    tokens_field: str = "max_tokens"
    """The member of the body that says so."""


NO_NEEDS = Needs()


GENERATES = frozenset({Capability.GENERATE})
"""What endpoints that generate need: this very set, so that they are known by it."""


def _table() -> dict[str, Endpoint]:
    gen, c, p = GENERATES, Capability, Protocol
    heard = frozenset({c.TRANSCRIBE})
    pooled = frozenset({c.EMBED, c.RERANK, c.CLASSIFY})
    rows = [
        Endpoint("/v1/chat/completions", gen, streams=True),
        Endpoint("/v1/completions", gen, streams=True),
        Endpoint("/v1/responses", gen, p.RESPONSES, streams=True),
        Endpoint("/v1/messages", gen, p.ANTHROPIC, streams=True),
        Endpoint("/v1/messages/count_tokens", gen, p.ANTHROPIC),
        Endpoint("/v1/embeddings", frozenset({c.EMBED})),
        Endpoint("/v1/rerank", frozenset({c.RERANK, c.EMBED})),
        Endpoint("/v1/score", pooled),
        Endpoint("/v1/classify", frozenset({c.CLASSIFY})),
        Endpoint("/v1/audio/transcriptions", heard, multipart=True, streams=True, document=False),
        Endpoint("/v1/audio/translations", heard, multipart=True, streams=True, document=False),
        Endpoint("/v1/audio/speech", frozenset({c.SPEAK}), document=False),
        Endpoint("/v1/images/generations", frozenset({c.IMAGE})),
        Endpoint("/v1/tokenize", frozenset()),
        Endpoint("/v1/detokenize", frozenset()),
    ]
    table = {row.path: row for row in rows}
    # The unversioned twins: for some (tokenize, rerank, score) it is the only path an engine has.
    for row in rows:
        twin = row.path.removeprefix("/v1")
        if twin not in ("/messages", "/messages/count_tokens"):
            table[twin] = row
    # Programs written for the API before this one keep their path; it is a chat completion like any other.
    table["/api/v1/chat/completions"] = table["/v1/chat/completions"]
    return table


ENDPOINTS: dict[str, Endpoint] = _table()
"""Every inference path we accept by POST, versioned and unversioned, to its row."""

RESPONSES: Final = ENDPOINTS["/v1/responses"]

_REALTIME = Endpoint(
    "/v1/realtime",
    frozenset({Capability.GENERATE, Capability.TRANSCRIBE, Capability.SPEAK}),
    document=False,
)
TUNNELS: dict[str, Endpoint] = {"/v1/realtime": _REALTIME, "/realtime": _REALTIME}
"""Paths that a client may ask to be upgraded to a WebSocket, by GET; the query names the model."""

UPSTREAM: Final = Endpoint("/upstream/{id}", frozenset(), document=False)
"""Whatever a model's server has, by any method: `/upstream/<id>/…`."""
_UPSTREAM_BEGINS: Final = "/upstream/"

KEPT_RESPONSE: Final = Endpoint("/v1/responses/{id}", GENERATES, Protocol.RESPONSES, document=False)
"""A response that the engine has which made it."""
_KEPT_RESPONSE: Final = re.compile(r"(?:/v1)?/responses/([A-Za-z0-9._-]{1,128})(/cancel|/input_items)?")
_KEPT_BY: Final[Mapping[str | None, frozenset[str]]] = {
    None: frozenset({"GET", "DELETE"}),
    "/cancel": frozenset({"POST"}),
    "/input_items": frozenset({"GET"}),
}


def special_endpoint(path: str, method: str | None = None) -> Endpoint | None:
    """The endpoint whose path names what it is about; None for any other *path* (without a query).

    None too for a *method* that it does not take; of an unset one nothing is asked.
    """
    if path.startswith(_UPSTREAM_BEGINS):
        return UPSTREAM if path != _UPSTREAM_BEGINS else None
    match = _KEPT_RESPONSE.fullmatch(path)
    return KEPT_RESPONSE if match and (method is None or method in _KEPT_BY[match[2]]) else None


def kept_response(path: str) -> tuple[str, str]:
    """(id of the response, path an engine has it under) for a path of that endpoint."""
    match = _KEPT_RESPONSE.fullmatch(path)
    assert match is not None  # a path of that endpoint
    return match[1], f"/v1/responses/{match[1]}{match[2] or ''}"


def below_upstream(path: str) -> str:
    """What stands behind `/upstream/` in a path of that endpoint."""
    return path.removeprefix(_UPSTREAM_BEGINS)
