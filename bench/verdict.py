"""What we claim of the front, judged by what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.machine import Subject

ROUTERS = ("sglang-router", "vllm-router")


@dataclass(frozen=True, slots=True)
class Claim:
    """One limit, and where we are."""

    what: str
    value: float | None
    """None: it was not measured, and is not met."""
    limit: float

    @property
    def met(self) -> bool:
        """It holds."""
        return self.value is not None and self.value <= self.limit

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.2f}"
        return f"{self.what}: {value} (limit {self.limit:.3g})"


def claims(found: Sequence[Subject]) -> list[Claim]:
    """All of them, those about requests first."""
    figures = {s.name: {key: statistics.median(v) for key, v in s.figures.items()} for s in found}
    ours = figures["modelyard"]

    def ratio(figure: str, *names: str) -> float | None:
        others = [figures[name][figure] for name in names if name in figures]
        return ours[figure] / min(others) if len(others) == len(names) else None

    return [
        Claim("CPU per request, of nginx", ratio("request_us", "nginx"), 2.0),
        Claim("CPU per request, of a plain aiohttp proxy", ratio("request_us", "aiohttp"), 1 / 3),
        Claim("CPU per request, of the better Rust router", ratio("request_us", *ROUTERS), 0.5),
        Claim("CPU per event at 512 streams, of nginx", ratio("event_us", "nginx"), 1.6),
        Claim("CPU per event at 512 streams, of the better Rust router", ratio("event_us", *ROUTERS), 1.0),
        Claim("MiB of 512 streams above rest", ours.get("streams_mib"), 30.0),
        Claim("MiB a stalled reader costs", ours.get("stalled_mib"), 4.0),
        Claim("CPU per 4 MB body, of nginx", ratio("big_ms", "nginx"), 2.0),
        Claim("ms from readiness to the first of 1,000 waiting requests", ours.get("cold_first_ms"), 50.0),
        Claim("ms of the loop's lag (p95) while control is busy", ours.get("lag_p95_ms"), 5.0),
        Claim("errors", float(sum(s.errors for s in found)), 0.0),
    ]
