"""The lists of names with what they say, `tests/registry/data/*.tsv`, read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.capability import Capability

DATA = Path(__file__).parent.parent / "registry" / "data"

LETTERS = {
    "G": Capability.GENERATE, "T": Capability.TOOL_USE, "V": Capability.VISION, "W": Capability.VIDEO,
    "A": Capability.AUDIO, "R": Capability.REASONING, "E": Capability.EMBED, "K": Capability.RERANK,
    "S": Capability.TRANSCRIBE, "C": Capability.CODE, "X": Capability.CLASSIFY, "P": Capability.SPEAK,
    "I": Capability.IMAGE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """A line: an id and what is to be read from it; None is that it does not say."""

    id: str
    provider: str | None
    family: str | None
    capabilities: frozenset[Capability] | None
    billions: float | None
    active_billions: float | None
    quantization: str | None
    context: int | None


def read_named(file: str) -> list[Named]:
    """The lines of a list."""
    lines = (DATA / file).read_text(encoding="utf-8").splitlines()
    return [_named(line) for line in lines if line and not line.startswith("#")]


def _named(line: str) -> Named:
    name, *cells = line.split("\t")
    provider, family, can, billions, active, quantization, context = (None if c == "-" else c for c in cells)
    return Named(
        id=name,
        provider=provider,
        family=family,
        capabilities=None if can is None else capabilities(can),
        billions=None if billions is None else float(billions),
        active_billions=None if active is None else float(active),
        quantization=quantization,
        context=None if context is None else int(context),
    )


def capabilities(letters: str) -> frozenset[Capability]:
    """`GTV` as capabilities."""
    return frozenset(LETTERS[letter] for letter in letters)
