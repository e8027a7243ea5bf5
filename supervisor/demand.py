"""How often a model is asked for lately: a rate that fades. No clock, no I/O."""

from __future__ import annotations

import math

FADES_WITHIN = 600.0
"""Seconds after which a request counts a third: longer than the pauses of a person at work, shorter than a
meeting."""


class Demand:
    """Requests a second, from a counter that somebody else counts up.

    The warm path only counts; the rate is brought up to date when it is looked at.
    """

    __slots__ = ("_at", "_counted", "_rate")

    def __init__(self, now: float) -> None:
        self._at = now
        self._counted = 0
        self._rate = 0.0

    def rate(self, now: float, counted: int) -> float:
        """Requests a second lately, *counted* of them since the beginning."""
        passed = now - self._at
        if passed > 0 or counted != self._counted:
            self._rate = (
                self._rate * math.exp(-passed / FADES_WITHIN) + (counted - self._counted) / FADES_WITHIN
            )
            self._at, self._counted = now, counted
        return self._rate
