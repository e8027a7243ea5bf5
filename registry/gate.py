"""What a model cannot do, as far as that is certain, and which models could instead. Pure.

A request is refused before anything is loaded for it, so a refusal must be sure of itself: what nobody knows
is given the chance, and the engine's own answer then says more than we could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry.capability import NO_NEEDS, Capability, Endpoint, Needs
from registry.errors import CapabilityMissingError, ContextExceededError
from registry.fact import Rank
from registry.model import Model

MOST_NAMED = 8
"""Ids in an error's message: a person reads it."""

ASKED_BY_CONTENT = frozenset({Capability.VISION, Capability.VIDEO, Capability.AUDIO, Capability.TOOL_USE})
"""What the content of a request can ask for, besides its endpoint."""

Allowed = Callable[[str], bool]
"""Whether an id may be named to, and used by, whoever asks: a key's list of models."""


def serves(model: Model, endpoint: Endpoint) -> bool:
    """Whether *model* can serve *endpoint*; a model nobody knows anything about is given the chance."""
    return (
        not endpoint.needs
        or not model.facts.capabilities.known
        or not endpoint.needs.isdisjoint(model.capabilities)
    )


def lacking(model: Model) -> frozenset[Capability]:
    """What of `ASKED_BY_CONTENT` *model* certainly cannot do.

    The operator and a running server are taken at their word. Where there are files, only what they rule out
    counts: a chat template that is missing says nothing about tools.
    """
    known = model.facts.capabilities
    if known.value is None or Capability.GENERATE not in known.value:
        return frozenset()
    absent = ASKED_BY_CONTENT - known.value
    if model.wire.calls is not None:
        absent -= {Capability.TOOL_USE}  # it writes calls into its text, where the front finds them
    files = model.checkpoint
    if known.rank in (Rank.OPERATOR, Rank.ENGINE) or files is None or not files.yes:
        return absent
    return absent & files.no


def longest_answer(model: Model) -> int | None:
    """Tokens that no answer of *model* can be longer than; None where only its name says so."""
    context = model.facts.context_length
    return context.value if context.rank > Rank.NAME else None


def meets(model: Model, needs: Needs) -> bool:
    """Whether *model* can do what the content of a request asks for, as far as anybody knows."""
    longest = longest_answer(model)
    too_long = needs.tokens is not None and longest is not None and needs.tokens > longest
    return not too_long and needs.capabilities.isdisjoint(lacking(model))


def able(
    models: Iterable[Model],
    endpoint: Endpoint,
    needs: Needs = NO_NEEDS,
    *,
    allowed: Allowed | None = None,
) -> tuple[str, ...]:
    """Ids of the first models that are known to serve *endpoint* and to have all that *needs* names."""
    found: list[str] = []
    for model in models:
        if (
            model.problem is None
            and (allowed is None or allowed(model.id))
            and _is_able(model, endpoint, needs)
        ):
            found.append(model.id)
            if len(found) == MOST_NAMED:
                break
    return tuple(found)


def _is_able(model: Model, endpoint: Endpoint, needs: Needs) -> bool:
    capabilities = model.facts.capabilities.value
    return (
        capabilities is not None
        and serves(model, endpoint)
        and needs.capabilities <= capabilities
        and meets(model, needs)
    )


def incapable(
    model: Model, endpoint: Endpoint, models: Iterable[Model], *, allowed: Allowed | None = None
) -> CapabilityMissingError:
    """The error of a request for *endpoint*, which *model* cannot serve."""
    names = able(models, endpoint, allowed=allowed)
    can = ", ".join(sorted(model.capabilities))
    wanted = " or ".join(sorted(endpoint.needs))
    return CapabilityMissingError(
        f"{model.id} cannot serve {endpoint.path}: it can {can}, that needs {wanted}; {instead(names)}",
        candidates=names,
    )


def instead(names: tuple[str, ...]) -> str:
    """Whom to ask."""
    return f"ask {', '.join(names)}" if names else "no model here can"


_ASKS = {
    Capability.VISION: "the request has images",
    Capability.VIDEO: "the request has video",
    Capability.AUDIO: "the request has audio",
    Capability.TOOL_USE: "the request has tools",
}


def unmet(
    model: Model,
    needs: Needs,
    endpoint: Endpoint,
    models: Iterable[Model],
    *,
    allowed: Allowed | None = None,
) -> CapabilityMissingError | ContextExceededError | None:
    """What is wrong with asking *needs* of *model*; None where nothing is, as far as anybody knows."""
    missing = needs.capabilities & lacking(model)
    longest = longest_answer(model)
    if missing:
        asks = " and ".join(_ASKS[one] for one in sorted(missing))
        names = able(models, endpoint, needs, allowed=allowed)
        return CapabilityMissingError(
            f"{asks}, and {model.id} has no {' or '.join(sorted(missing))} (source: "
            f"{model.facts.capabilities.source}); {instead(names)}; {_SWITCH}",
            candidates=names,
            param="tools" if missing == {Capability.TOOL_USE} else "messages",
        )
    if needs.tokens is not None and longest is not None and needs.tokens > longest:
        names = able(models, endpoint, needs, allowed=allowed)
        return ContextExceededError(
            f"{needs.tokens_field} is {needs.tokens}, and the whole context of {model.id} is {longest} tokens"
            f" (source: {model.facts.context_length.source}): ask for less"
            f"{', or ask ' + ', '.join(names) if names else ''}; {_SWITCH}",
            candidates=names,
            param=needs.tokens_field,
        )
    return None


_SWITCH = "`check_requests: false` in the model's entry switches this check off"
