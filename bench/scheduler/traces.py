"""The eight traces of `make bench-scheduler`: data files, and the seeds they were made from."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.policy import Policy

FOLDER = Path(__file__).parents[1] / "traces"
GIB = 2**30
HOUR = 3600.0

TAIL = 300.0
"""Seconds after the last arrival."""

MAX_WAIT = Policy().max_wait

STOP_SECONDS = 1.0
"""From the last answer of a victim to its memory being free."""


@dataclass(frozen=True, slots=True)
class TraceModel:
    """A model: GiB it needs of the one device, and seconds from its spawn to its first answer."""

    name: str
    gib: float
    load: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Open loop: requests come when they come, whoever waits."""

    name: str
    story: str
    seed: int
    budget_gib: float
    models: tuple[TraceModel, ...]
    arrivals: tuple[tuple[float, int, float], ...]
    """(seconds from the beginning, index of the model, seconds it takes to answer)."""

    @property
    def end(self) -> float:
        """When it is over: whoever has not been served then is left."""
        return self.arrivals[-1][0] + TAIL

    def bound(self, ahead: int) -> float:
        """I5: seconds a request may wait at most, with *ahead* models waited for when it came.

        A drain takes no longer than the longest answer here, and a start no longer than the longest load.
        """
        drain = max(service for _, _, service in self.arrivals) + STOP_SECONDS
        return MAX_WAIT + (1 + ahead) * (drain + max(model.load for model in self.models))

    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.name}.json"


def load_all() -> list[Trace]:
    """The traces as they lie in the repository, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.json"))]


def _read(path: Path) -> Trace:
    data = json.loads(path.read_text(encoding="utf-8"))
    return Trace(
        path.stem,
        data["story"],
        data["seed"],
        data["budget_gib"],
        tuple(TraceModel(**model) for model in data["models"]),
        tuple((at, model, service) for at, model, service in data["arrivals"]),
    )


def write(trace: Trace) -> None:
    """One arrival a line, so that a change shows what it changes."""
    models = [{"name": m.name, "gib": m.gib, "load": m.load} for m in trace.models]
    head = {"story": trace.story, "seed": trace.seed, "budget_gib": trace.budget_gib, "models": models}
    text = json.dumps(head, indent=1)[:-2] + ',\n "arrivals": [\n'
    text += ",\n".join(f"  {json.dumps(arrival)}" for arrival in trace.arrivals)
    trace.path().write_text(text + "\n ]\n}\n", encoding="utf-8")


# -- how they were made ----------------------------------------------------------------------------

Arrivals = list[tuple[float, int, float]]


def _poisson(dice: random.Random, every: float, end: float = HOUR, begin: float = 0.0) -> Iterator[float]:
    at = begin + dice.expovariate(1 / every)
    while at < end:
        yield at
        at += dice.expovariate(1 / every)


def _steady_pair(dice: random.Random) -> Arrivals:
    return [(at, model, dice.uniform(2, 12)) for model in (0, 1) for at in _poisson(dice, 40)]


def _hog(dice: random.Random) -> Arrivals:
    # Four clients that ask again as soon as they are answered: never a moment without a request.
    found = [(at, 0, 8.0) for client in range(4) for at in _every(2.0 * client, 8.1)]
    return found + [(at, 1, dice.uniform(2, 10)) for at in _poisson(dice, 400)]


def _every(begin: float, step: float) -> Iterator[float]:
    at = begin
    while at < HOUR:
        yield at
        at += step


def _agents(dice: random.Random) -> Arrivals:
    found: Arrivals = []
    for begin in (0.0, 900.0, 2000.0):
        at = begin
        for turn in range(60):
            found.append((at, (0, 1, 0, 2)[turn % 4], dice.uniform(3, 9)))
            at += dice.uniform(12, 30)
    return found


def _bursts(dice: random.Random) -> Arrivals:
    found: Arrivals = []
    for at in _poisson(dice, 70):
        model = dice.choice([0, 0, 0, 1, 1, 2, 3, 4, 5])
        found += [(at + dice.uniform(0, 15), model, dice.uniform(2, 15)) for _ in range(dice.randint(3, 20))]
    return found


def _day_and_night(dice: random.Random) -> Arrivals:
    found: Arrivals = []
    for at in _poisson(dice, 12):
        day = math.sin(at / HOUR * 4 * math.pi) > 0
        models = (0, 0, 0, 1, 1, 4) if day else (2, 2, 3, 3, 3, 4)
        found.append((at, dice.choice(models), dice.uniform(2, 20)))
    return found


def _popularity(dice: random.Random) -> Arrivals:
    weights = [1 / (rank + 1) ** 1.2 for rank in range(12)]
    return [(at, dice.choices(range(12), weights)[0], dice.uniform(1, 15)) for at in _poisson(dice, 20)]


def _giant(dice: random.Random) -> Arrivals:
    small = [(at, dice.randint(1, 5), dice.uniform(1, 8)) for at in _poisson(dice, 15)]
    return small + [(at, 0, dice.uniform(10, 40)) for at in _poisson(dice, 420)]


def _batch_and_chat(dice: random.Random) -> Arrivals:
    chat = [(at, 0, dice.uniform(3, 15)) for at in _poisson(dice, 30)]
    batches = [
        (begin + dice.uniform(0, 240), 1, dice.uniform(5, 20))
        for begin in (300.0, 1700.0, 2900.0)
        for _ in range(80)
    ]
    helper = [(at, 2, dice.uniform(0.5, 2)) for at in _poisson(dice, 60)]
    return chat + batches + helper


def _models(*models: tuple[str, float, float]) -> tuple[TraceModel, ...]:
    return tuple(TraceModel(*model) for model in models)


_Made = tuple[str, float, tuple[TraceModel, ...], Callable[[random.Random], Arrivals]]

MADE: dict[str, _Made] = {
    "steady-pair": (
        "Two models that do not fit together, asked at the same pace.",
        24, _models(("chat-14b", 16, 18), ("code-14b", 15, 16)), _steady_pair,
    ),
    "hog": (
        "Four clients keep one model busy without a pause; now and then somebody asks for another.",
        24, _models(("chat-14b", 16, 18), ("vision-12b", 14, 20)), _hog,
    ),
    "agents": (
        "Coding agents take turns between an orchestrator, a coder and a reviewer, of which two fit.",
        48, _models(("orchestrator-32b", 22, 24), ("coder-32b", 20, 22), ("reviewer-14b", 16, 14)), _agents,
    ),
    "bursts": (
        "Six models, asked in bursts of three to twenty, some more often than others.",
        48,
        _models(("a-24b", 26, 28), ("b-14b", 16, 18), ("c-8b", 9, 10), ("d-32b", 34, 40), ("e-4b", 5, 7),
                ("f-12b", 14, 20)),
        _bursts,
    ),
    "day-and-night": (
        "Other models by night than by day, and one that is asked always.",
        40,
        _models(("chat-24b", 26, 28), ("code-14b", 16, 18), ("batch-32b", 34, 40), ("embed-2b", 4, 6),
                ("small-4b", 6, 8)),
        _day_and_night,
    ),
    "popularity": (
        "Twelve models whose popularity falls off steeply; about four fit.",
        48,
        _models(*((f"m{rank}", gib, 4 + gib) for rank, gib in
                  enumerate((9, 14, 5, 24, 9, 16, 7, 12, 30, 5, 9, 16)))),
        _popularity,
    ),
    "giant-and-small": (
        "Five small models that fit together, and one giant that needs nearly all of the device.",
        80,
        _models(("giant-70b", 72, 75), ("s1-8b", 10, 10), ("s2-8b", 10, 10), ("s3-8b", 12, 12),
                ("s4-12b", 14, 16), ("s5-4b", 6, 7)),
        _giant,
    ),
    "batch-and-chat": (
        "Batches of eighty jobs for one model beside people who chat with another, and a small helper.",
        32, _models(("chat-14b", 16, 18), ("image-12b", 20, 25), ("helper-1b", 3, 4)), _batch_and_chat,
    ),
}  # fmt: skip


def make(name: str, seed: int) -> Trace:
    """The trace as it was made: what lies in the repository is what counts."""
    story, budget, models, arrive = MADE[name]
    arrivals = sorted(
        (round(at, 2), model, round(service, 2)) for at, model, service in arrive(random.Random(seed))
    )
    return Trace(name, story, seed, budget, models, tuple(arrivals))
