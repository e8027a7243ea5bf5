"""Facts: values that know where they come from. Pure.

A model's facts are gathered from sources of different rank; the highest rank wins, disagreements are kept
and shown, and "nobody knows" is a value of its own (`value is None`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Rank(IntEnum):
    """Who is believed: a higher rank wins over a lower one."""

    DEFAULT = 0
    NAME = 1
    FILES = 2
    ENGINE = 3
    """A running server says so, of what is in force there."""
    OPERATOR = 4

    @property
    def word(self) -> str:
        """As answers write it: `operator`, `engine`, `files`, `name`, `default`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value with its source; `value is None` means unknown."""

    value: T | None
    rank: Rank = Rank.DEFAULT
    source: str = "default"
    """In words an operator understands: `config.json max_position_embeddings`, `name`, `models.x.context`."""
    others: tuple[tuple[T, str], ...] = ()
    """Values of lower-ranked sources that disagree, each with its source."""

    @property
    def known(self) -> bool:
        """True when somebody knew."""
        return self.value is not None


def settle(claims: Iterable[Fact[T]]) -> Fact[T]:
    """The claim of the highest rank (the first among equals), with those that disagree in `others`.

    Claims without a value are ignored; none at all gives the unknown fact.
    """
    known = [claim for claim in claims if claim.value is not None]
    if not known:
        return Fact(None)
    best = max(known, key=lambda claim: claim.rank)
    others = tuple(
        (claim.value, claim.source)
        for claim in known
        if claim is not best and claim.value is not None and claim.value != best.value
    )
    return Fact(best.value, best.rank, best.source, others)
