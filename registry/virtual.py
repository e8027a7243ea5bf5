"""Names that are served by one of several models: `auto`, `auto:vision,context>=32k`, and the operator's own.

Pure: what can serve is decided on frozen models, what is preferred on frozen standings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from registry.capability import Capability, Endpoint, Needs, Protocol
from registry.errors import VirtualNameError
from registry.gate import Allowed, meets
from registry.model import Model

AUTO: Final = "auto"
PREFIX: Final = "auto:"

_WORDS: Final = {
    "tools": Capability.TOOL_USE,
    "chat": Capability.GENERATE,
    "thinking": Capability.REASONING,
    "embedding": Capability.EMBED,
    **{capability.value: capability for capability in Capability},
}
_CONTEXT: Final = re.compile(r"context\s*>=\s*(\d{1,9})\s*([kKmM]?)")
_UNITS: Final = {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}
"""As vLLM reads lengths: 32k is 32000, 32K is 32768."""


@dataclass(frozen=True, slots=True)
class Virtual:
    """A name that is none of one model: `auto`, `auto:…`, or an operator's."""

    name: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What `auto:…` asks for."""

    capabilities: frozenset[Capability] = frozenset()
    context: int = 0
    """Tokens at least."""
    loaded: bool = False
    """Only what is loaded, or loading, already."""


class Warmth(IntEnum):
    """How soon a model can answer, best first."""

    READY = 0
    """At once."""
    BUSY = 1
    """It is loaded and full, or on its way."""
    COLD = 2
    UNWELL = 3
    """Its last start failed, it has crashed, or its server does not answer."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a model stands at this moment."""

    warmth: Warmth = Warmth.COLD
    in_flight: int = 0
    load_seconds: float | None = None
    """What its last start took; None: nobody knows yet."""


BYTES_PER_SECOND: Final = 2**30
"""What a start is guessed to take where it was never seen: its weights at the speed of a fast disk."""
UNKNOWN_SECONDS: Final = 60.0
"""Of a model that was never started and has no weights that we know of."""


def is_auto(name: str) -> bool:
    """*name* is one of the reserved ones."""
    return name == AUTO or name.startswith(PREFIX)


def parse_wish(name: str) -> Wish:
    """What the reserved *name* asks for. Raises VirtualNameError for a word nobody knows."""
    wanted: set[Capability] = set()
    context, loaded = 0, False
    words = name.removeprefix(AUTO).removeprefix(":").split(",") if name != AUTO else ()
    for raw in words:
        word = raw.strip()
        length = _CONTEXT.fullmatch(word)
        if length is not None:
            context = max(context, int(length[1]) * _UNITS[length[2]])
        elif word == "loaded":
            loaded = True
        elif word in _WORDS:
            wanted.add(_WORDS[word])
        else:
            raise VirtualNameError(
                f"{name[:80]!r}: {word[:40]!r} is nothing that can be asked for; after `auto:` come, "
                f"separated by commas, {', '.join(sorted(_WORDS))}, `loaded` and `context>=32k`"
            )
    return Wish(frozenset(wanted), context, loaded)


def fits(model: Model, wish: Wish, endpoint: Endpoint, needs: Needs) -> bool:
    """*model* is known to have all of it. What nobody knows is not chosen: it can be named.

    Nor is a running server's model: those are used when they are named.
    """
    capabilities, context = model.facts.capabilities.value, model.facts.context_length.value
    return (
        model.problem is None
        and model.endpoint is None
        and capabilities is not None
        and (not endpoint.needs or not endpoint.needs.isdisjoint(capabilities))
        and wish.capabilities <= capabilities
        and needs.capabilities <= capabilities
        and (not wish.context or (context is not None and context >= wish.context))
        and meets(model, needs)
    )


def choose(
    models: Iterable[Model],
    wish: Wish,
    endpoint: Endpoint,
    *,
    standing: Callable[[Model], Standing],
    allowed: Allowed | None = None,
) -> tuple[Model, ...]:
    """*models*, which all fit *wish*, best first: what is warm, then what is cheapest to bring up.

    Among the warm the least busy; among the cold what takes the fewest seconds to load, learned, else guessed
    by its bytes. A model without a chat template comes after those that have one where messages are sent.
    """
    found = []
    for place, model in enumerate(models):
        if allowed is None or allowed(model.id):
            now = standing(model)
            if not wish.loaded or now.warmth in (Warmth.READY, Warmth.BUSY):
                cost = now.in_flight if now.warmth is Warmth.READY else bring_up_seconds(model, now)
                found.append(((not _talks(model, endpoint), now.warmth, cost, place), model))
    return tuple(model for _, model in sorted(found, key=lambda one: one[0]))


def in_order(
    models: Iterable[Model], *, standing: Callable[[Model], Standing], prefer_warm: bool
) -> tuple[Model, ...]:
    """*models* as the operator ordered them, the unwell last; with *prefer_warm* the warm first."""

    def rank(model: Model) -> int:
        warmth = standing(model).warmth
        return warmth if prefer_warm else int(warmth is Warmth.UNWELL)

    return tuple(sorted(models, key=rank))


def bring_up_seconds(model: Model, standing: Standing) -> float:
    """What it takes until *model* can answer: learned, else guessed."""
    if standing.load_seconds is not None:
        return standing.load_seconds
    size = model.facts.size_bytes.value or model.footprint.total
    return size / BYTES_PER_SECOND if size else UNKNOWN_SECONDS


def _talks(model: Model, endpoint: Endpoint) -> bool:
    """Whether it can make a prompt of messages, as far as its files tell."""
    sends_messages = endpoint.path == "/v1/chat/completions" or endpoint.protocol is not Protocol.OPENAI
    files = model.checkpoint
    return not sends_messages or files is None or not files.yes or files.has_chat_template
