"""How far a start is: the milestones an engine's log shows, and what earlier starts teach about them. Pure.

A start goes through *stages* that its engine's own lines tell (reading weights, compiling, capturing graphs
…). When each began is learned per launch spec, so the next start knows where in the whole it stands: its
progress stops at a stage that has not come yet instead of running ahead of the engine, and what is left is
what was left the last time, at the pace of this time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from supervisor.ports import Learned

LONGEST_SHARE: Final = 0.99
"""Never "done" before it is: the last hundredth is the readiness check's."""
PACE: Final = (0.5, 4.0)
"""A start may be that much faster or slower than the learned one before its pace is no news any more."""
SILENT_STALL: Final = 30.0
"""Seconds that a start may be silent however fast it was before: a cold page cache, a busy machine."""
STALL_LOADS: Final = 3.0
"""Silence for so many whole loads is no slowness."""


class Stage(StrEnum):
    """What engines do before they answer, as far as their lines tell it; in no fixed order."""

    FETCH = "fetch"
    ENGINE = "engine"
    """The process that holds the model is up (vLLM starts it after ten seconds of imports)."""
    WEIGHTS = "weights"
    COMPILE = "compile"
    PROFILE = "profile"
    CACHE = "cache"
    CAPTURE = "capture"
    SERVE = "serve"


_TELLING: Final[tuple[tuple[Stage, tuple[str, ...]], ...]] = (
    (Stage.CAPTURE, (r"capturing\b.*\bgraph", r"graph capturing\b")),
    (
        Stage.COMPILE,
        (r"dynamo (?:bytecode )?transform", r"torch\.compile\b", r"compiling\b", r"warming up\b"),
    ),
    (Stage.PROFILE, (r"memory profiling\b", r"profil(?:e|ing) run\b", r"profiling (?:cuda|gpu)\b")),
    (
        Stage.CACHE,
        (
            r"kv[ _-]cache (?:size|memory|self size|blocks)\b",
            r"kv cache\b.*\btokens\b",
            r"maximum concurrency for\b",
            r"llama_kv_cache\w*:",
        ),
    ),
    (
        Stage.WEIGHTS,
        (
            r"loading (?:safetensors |pt )?(?:checkpoint )?(?:shards|weights)\b",
            r"loading (?:model|pipeline components)\b",
            r"(?:starting to )?load model\b",
            r"load_tensors:",
        ),
    ),
    (Stage.FETCH, (r"fetching \d+ files\b", r"downloading\b")),
    (Stage.ENGINE, (r"initializing a v\d \w* ?engine\b",)),
    (
        Stage.SERVE,
        (
            r"started server process\b",
            r"waiting for application startup\b",
            r"uvicorn running\b",
            r"starting httpd\b",
            r"starting vllm (?:api )?server\b",
            r"http server listening\b",
        ),
    ),
)
"""Words of vLLM, vllm-mlx, mlx-lm, transformers and llama.cpp."""
_LINES: Final = tuple(
    (stage, re.compile("|".join(rf"\b{pattern}" for pattern in patterns), re.IGNORECASE))
    for stage, patterns in _TELLING
)
_PERCENT: Final = re.compile(r"(?<!\d)(\d{1,3})(?:\.\d+)?\s?%")
_OF: Final = re.compile(r"(?<![\d/.])(\d{1,6})/(\d{1,6})(?![\d/.])")


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that tells of a stage."""

    stage: Stage
    share: float | None = None
    """0..1 of the stage, where the line says so."""


def mark_of(line: str) -> Mark | None:
    """The stage that *line* tells of; None for a line that tells of none."""
    for stage, pattern in _LINES:
        if pattern.search(line):
            return Mark(stage, _share(line))
    return None


def _share(line: str) -> float | None:
    percent = _PERCENT.search(line)
    if percent is not None:
        return min(int(percent[1]) / 100, 1.0)
    count = _OF.search(line)
    if count is not None and int(count[2]) > 0 and int(count[1]) <= int(count[2]):
        return int(count[1]) / int(count[2])
    return None


@dataclass(frozen=True, slots=True)
class Estimate:
    """How far a start is."""

    done: float
    """0..1: of the whole where that was learned, else of the stage, as the engine says."""
    left: float | None
    """Seconds; None before the first complete start."""


class Course:
    """The stages of one start, as they come."""

    def __init__(self) -> None:
        self.reached: dict[str, float] = {}
        """When each stage was first seen, in seconds since the start."""
        self._now: Mark | None = None

    def see(self, lines: Iterable[str], elapsed: float) -> None:
        """The last *lines* of the log, *elapsed* seconds after the start."""
        for line in lines:
            mark = mark_of(line)
            if mark is None:
                continue
            self.reached.setdefault(mark.stage, elapsed)
            self._now = mark

    def estimate(self, elapsed: float, learned: Learned) -> Estimate | None:
        """How far it is; None when nothing tells."""
        total = learned.load_seconds
        if not total:
            share = self._now.share if self._now is not None else None
            return None if share is None else Estimate(min(share, LONGEST_SHARE), None)
        position = self._position(elapsed, total, learned.stages)
        done = min(position / total, LONGEST_SHARE)
        slower = min(max(elapsed / position, PACE[0]), PACE[1]) if position > 1.0 else 1.0
        return Estimate(done, max(total - position, 0.0) * slower)

    def _position(self, elapsed: float, total: float, stages: Mapping[str, float]) -> float:
        """How many seconds of the learned start are behind us."""
        here = max(
            (stage for stage in self.reached if stage in stages),
            key=lambda stage: stages[stage],
            default=None,
        )
        begun = stages[here] if here is not None else 0.0
        ends = min((at for at in stages.values() if at > begun), default=total)
        since = elapsed - (self.reached[here] if here is not None else 0.0)
        share = self._now.share if self._now is not None and self._now.stage == here else None
        within = since if share is None else share * (ends - begun)
        return min(begun + max(within, 0.0), max(ends, begun), total)


def stall_limit(configured: float, load_seconds: float | None) -> float:
    """Seconds without a sign of life after which a start has stalled: less than *configured* for a model
    whose load time is known, because silence for several loads is no slowness."""
    if not load_seconds:
        return configured
    return min(configured, max(SILENT_STALL, STALL_LOADS * load_seconds))
