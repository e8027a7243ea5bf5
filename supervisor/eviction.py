"""Which instances to stop so that another fits. Pure: no clock, no I/O, no log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.engine import DeviceId, ModelId


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that may be stopped."""

    model: ModelId
    frees: Mapping[DeviceId, int]
    """Bytes it holds per device."""
    idle: float
    """Seconds since its last lease ended; 0 while it is leased."""
    resident: float = 0.0
    """Seconds since it became ready."""


def shortage(need: Mapping[DeviceId, int], free: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    """Bytes that are missing per device; empty when *need* fits into *free*."""
    missing = {device: need[device] - free.get(device, 0) for device in need}
    return {device: short for device, short in missing.items() if short > 0}


def choose_victims(
    candidates: Iterable[Candidate], missing: Mapping[DeviceId, int]
) -> tuple[Candidate, ...] | None:
    """The least recently used candidates that free at least *missing*; None when all of them do not.

    None rather than a part: evicting in vain costs a load and helps nobody. A candidate that turns out not
    to be needed, because a later one frees enough, is left alone.
    """
    chosen: list[Candidate] = []
    short = dict(missing)
    for candidate in sorted(candidates, key=lambda c: (-c.idle, c.model)):
        if not any(device in short for device in candidate.frees if candidate.frees[device] > 0):
            continue
        chosen.append(candidate)
        short = _less(short, candidate.frees)
        if not short:
            return _without_needless(chosen, missing)
    return None if short else ()


def _less(short: Mapping[DeviceId, int], frees: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    rest = {device: short[device] - frees.get(device, 0) for device in short}
    return {device: bytes_ for device, bytes_ in rest.items() if bytes_ > 0}


def _without_needless(chosen: list[Candidate], missing: Mapping[DeviceId, int]) -> tuple[Candidate, ...]:
    """Drop, the most recently used first, whoever is not needed to free *missing*."""
    kept = list(chosen)
    for candidate in reversed(chosen[:-1]):
        rest: dict[DeviceId, int] = dict(missing)
        for other in kept:
            if other is not candidate:
                rest = _less(rest, other.frees)
        if not rest:
            kept.remove(candidate)
    return tuple(kept)
