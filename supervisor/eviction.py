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
    cost: float = 0.0
    """Seconds that stopping it is expected to lose: what it takes to bring it back, times the chance that
    somebody will want it back. The least per byte goes first; among equals the least recently used."""


def shortage(need: Mapping[DeviceId, int], free: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    """Bytes that are missing per device; empty when *need* fits into *free*."""
    missing = {device: need[device] - free.get(device, 0) for device in need}
    return {device: short for device, short in missing.items() if short > 0}


def choose_victims(
    candidates: Iterable[Candidate], missing: Mapping[DeviceId, int]
) -> tuple[Candidate, ...] | None:
    """Candidates that together free at least *missing*, at the least cost; None when all of them do not.

    None rather than a part: evicting in vain costs a load and helps nobody. Greedy by cost per byte, and
    compared with the cheapest single one that suffices; whoever turns out not to be needed is left alone.
    """
    useful = [c for c in candidates if any(c.frees.get(device, 0) > 0 for device in missing)]
    useful.sort(key=lambda c: (c.cost / _useful_bytes(c, missing), -c.idle, c.model))
    chosen: list[Candidate] = []
    short = dict(missing)
    for candidate in useful:
        if not short:
            break
        if any(candidate.frees.get(device, 0) > 0 for device in short):
            chosen.append(candidate)
            short = _less(short, candidate.frees)
    if short:
        return None
    kept = _without_needless(chosen, missing)
    alone = [c for c in useful if not _less(missing, c.frees)]
    best = min(alone, key=lambda c: (c.cost, -c.idle, c.model), default=None)
    if best is not None and best.cost < sum(c.cost for c in kept):
        return (best,)
    return kept


def _useful_bytes(candidate: Candidate, missing: Mapping[DeviceId, int]) -> int:
    return sum(min(candidate.frees.get(device, 0), short) for device, short in missing.items())


def _less(short: Mapping[DeviceId, int], frees: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    rest = {device: short[device] - frees.get(device, 0) for device in short}
    return {device: bytes_ for device, bytes_ in rest.items() if bytes_ > 0}


def _without_needless(chosen: list[Candidate], missing: Mapping[DeviceId, int]) -> tuple[Candidate, ...]:
    """Drop, the dearest first, whoever is not needed to free *missing*."""
    kept = list(chosen)
    for candidate in reversed(chosen[:-1]):
        rest: dict[DeviceId, int] = dict(missing)
        for other in kept:
            if other is not candidate:
                rest = _less(rest, other.frees)
        if not rest:
            kept.remove(candidate)
    return tuple(kept)
