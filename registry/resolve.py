"""From the name in a request to a model's id. Pure.

The order: exact id, alias, `base:variant`, virtual names (the catalog's business), unique part after the last
slash, unique case-insensitive or partial match. `name@endpoint` and `base:adapter` are ids or aliases, which
the catalog adds.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from registry.engine import ModelId
from registry.errors import AmbiguousModelError, ModelNotFoundError

MAX_NAME = 512
"""Characters of a name that are looked at; ids are shorter."""
MAX_CANDIDATES = 8
"""Ids in an error's message: a person reads it."""
NEAR_NAME = 96
"""Characters of an unknown name that are compared with the known ones."""
COMPARED = 12
"""Known names that an unknown one is compared with: this runs on the event loop."""
LATEST = "latest"
"""Ollama's clients say `:latest` for "the one there is"."""
MOST_PARTS = 8
"""Parts between slashes that an id in a path may have; ids have two, adapters of theirs three."""
MIN_PARTIAL = 3
"""Shortest name that may be a part of an id: `8b` fits everything and means nothing."""


Allowed = Callable[[str], bool]
"""Whether an id may be named to whoever asks."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name means: a model, and which of its variants."""

    model: ModelId
    variant: str = ""


@dataclass(frozen=True, slots=True)
class NameIndex:
    """The lookups that resolving needs, built once per catalog."""

    ids: tuple[ModelId, ...]
    aliases: Mapping[str, ModelId]
    suffixes: Mapping[str, tuple[ModelId, ...]]
    """Part after the last slash to the ids that have it."""
    folded: Mapping[str, tuple[ModelId, ...]]
    """Case-folded id, suffix or alias to ids."""
    searched: tuple[tuple[str, ModelId], ...]
    """Case-folded ids and aliases, for partial names."""
    near: tuple[tuple[str, ModelId], ...]
    """Case-folded ids, suffixes and aliases, for names with a mistake in them."""
    grams: tuple[frozenset[str], ...]
    """The three-letter pieces of each of `near`."""
    variants: Mapping[ModelId, frozenset[str]]
    """Names of a model's variants; models without any are not in it."""


def build_index(
    ids: Iterable[ModelId],
    aliases: Mapping[str, ModelId],
    variants: Mapping[ModelId, frozenset[str]] | None = None,
) -> NameIndex:
    """The index of *ids*, *aliases* and *variants*; an alias that is an id as well loses."""
    known = tuple(ids)
    taken = set(known)
    kept = {alias: target for alias, target in aliases.items() if alias not in taken}
    suffixes: dict[str, list[ModelId]] = defaultdict(list)
    folded: dict[str, list[ModelId]] = defaultdict(list)
    for one in known:
        suffix = one.rpartition("/")[2]
        suffixes[suffix].append(one)
        for name in {one.casefold(), suffix.casefold()}:
            folded[name].append(one)
    for alias, target in kept.items():
        if target not in folded[alias.casefold()]:
            folded[alias.casefold()].append(target)
    near = tuple((name, found[0]) for name, found in folded.items())
    return NameIndex(
        ids=known,
        aliases=kept,
        suffixes={name: tuple(found) for name, found in suffixes.items()},
        folded={name: tuple(found) for name, found in folded.items()},
        searched=tuple(
            [(one.casefold(), one) for one in known]
            + [(alias.casefold(), target) for alias, target in kept.items()]
        ),
        near=near,
        grams=tuple(_grams(name) for name, _ in near),
        variants=variants or {},
    )


def resolve_name(name: str, index: NameIndex, *, fuzzy: bool, allowed: Allowed | None = None) -> Named:
    """What *name* means, virtual names aside.

    Raises AmbiguousModelError with the candidates, or ModelNotFoundError with the nearest ids, as far as they
    are *allowed*.
    """
    if len(name) > MAX_NAME or not name.strip():
        raise ModelNotFoundError(f"no model has the name {_shown(name)}; GET /v1/models lists them")
    exact = exact_name(name, index, allowed=allowed)
    if exact is not None:
        return exact
    found = _loosely(name, index, fuzzy=fuzzy, allowed=allowed)
    if len(found) == 1:
        return Named(found[0])
    base, colon, variant = name.rpartition(":")
    if not found and colon:
        bases = _loosely(base, index, fuzzy=fuzzy, allowed=allowed)
        if len(bases) == 1 and (variant == LATEST or variant in index.variants.get(bases[0], ())):
            return Named(bases[0], "" if variant == LATEST else variant)
    if found:
        raise _ambiguous(name, found)
    raise _not_found(name, index, allowed)


def exact_name(name: str, index: NameIndex, *, allowed: Allowed | None = None) -> Named | None:
    """What *name* means without any guessing: an id, an alias, or `base:variant` of one; else None.

    Raises ModelNotFoundError for a variant that its base does not have.
    """
    if len(name) > MAX_NAME:
        return None
    exact = _exact(name, index)
    if exact is not None:
        return Named(exact)
    base, colon, variant = name.rpartition(":")
    known = _exact(base, index) if colon else None
    if known is None:
        return None
    if variant == LATEST:
        return Named(known)
    variants = index.variants.get(known, frozenset())
    if variant in variants:
        return Named(known, variant)
    if allowed is not None and not allowed(known):
        raise ModelNotFoundError(f"no model has the name {_shown(name)}")
    has = f"it has {', '.join(sorted(variants)[:MAX_CANDIDATES])}" if variants else f"ask for {known}"
    raise ModelNotFoundError(f"{known} has no variant {_shown(variant)}; {has}", candidates=(known,))


def name_and_rest(path: str, *, parts: int = MOST_PARTS) -> Iterator[tuple[str, str]]:
    """(name, what follows) for each way to cut a percent-encoded *path* at a slash, the longest name of at
    most *parts* parts first; what follows stays as it is."""
    split = path.split("/", parts)
    for count in range(min(len(split), parts), 0, -1):
        name = "/".join(split[:count])
        yield unquote(name), path[len(name) :]


def longest_name(path: str, index: NameIndex) -> tuple[Named, str] | None:
    """What *path* begins with, without any guessing, and what follows; None if it is nothing."""
    for name, rest in name_and_rest(path):
        try:
            found = exact_name(name, index)
        except ModelNotFoundError:
            continue  # the colon may belong to what follows
        if found is not None:
            return found, rest
    return None


def _loosely(name: str, index: NameIndex, *, fuzzy: bool, allowed: Allowed | None) -> tuple[ModelId, ...]:
    """Ids that *name* could mean: by the part after the last slash, else regardless of case, else in part."""
    found = index.suffixes.get(name, ())
    if not found and fuzzy:
        found = index.folded.get(name.casefold(), ()) or _partial(name.casefold(), index)
    if len(found) > 1 and allowed is not None:
        found = tuple(one for one in found if allowed(one))
    return found


def _exact(name: str, index: NameIndex) -> ModelId | None:
    target = index.aliases.get(name)
    if target is not None:
        return target
    return next((one for one in index.suffixes.get(name.rpartition("/")[2], ()) if one == name), None)


def _partial(name: str, index: NameIndex) -> tuple[ModelId, ...]:
    if len(name) < MIN_PARTIAL:
        return ()
    return tuple(dict.fromkeys(one for text, one in index.searched if contains(text, name)))


def contains(text: str, part: str) -> bool:
    """True when *part* stands in *text* as whole words: `qwen3-8b` and `qwen` in `qwen3-8b-awq`, `1b` not in
    `11b`, `qwen3-8` not in `qwen3-80b`."""
    start = text.find(part)
    while start >= 0:
        before = text[start - 1] if start else ""
        after = text[start + len(part) : start + len(part) + 1]
        ends = not after.isalnum() or (part[-1].isalpha() and after.isdigit())
        if after == "." and part[-1].isdigit():
            ends = False  # `qwen2` is not `qwen2.5`
        if ends and not before.isalnum() and not (before == "." and part[0].isdigit()):
            return True
        start = text.find(part, start + 1)
    return False


def _ambiguous(name: str, found: tuple[ModelId, ...]) -> AmbiguousModelError:
    shown = tuple(sorted(found))[:MAX_CANDIDATES]
    more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return AmbiguousModelError(
        f"{_shown(name)} fits several models: {', '.join(shown)}{more}; use the whole id", candidates=shown
    )


def _not_found(name: str, index: NameIndex, allowed: Allowed | None) -> ModelNotFoundError:
    near = _nearest(name.casefold()[:NEAR_NAME], index)
    candidates = tuple(one for one in near if allowed is None or allowed(one))
    hint = f"; did you mean {' or '.join(candidates)}?" if candidates else "; GET /v1/models lists them"
    return ModelNotFoundError(f"no model has the name {_shown(name)}{hint}", candidates=candidates)


def _nearest(name: str, index: NameIndex) -> tuple[ModelId, ...]:
    """Up to three ids that look like *name*; only those that share the most letters are compared."""
    grams = _grams(name)
    shared = [len(grams & other) for other in index.grams]
    places = sorted(range(len(shared)), key=shared.__getitem__, reverse=True)[:COMPARED]
    targets = dict(index.near[place] for place in places if shared[place])
    close = difflib.get_close_matches(name, targets, n=3, cutoff=0.6)
    return tuple(dict.fromkeys(targets[text] for text in close))


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 3] for start in range(max(len(text) - 2, 1)))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:79] + "…")
