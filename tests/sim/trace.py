"""A world as plain data: models, devices, numbers to decide by, and what happens when. Made from a seed.

A trace is a list of independent happenings at fixed times. None refers to another, so any part of a trace is
a trace as well: that is what makes a failing one shrinkable.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

from registry.engine import HOST, DeviceId
from supervisor.policy import Policy
from tests.support.fakes import GIB

GPU0, GPU1 = DeviceId("gpu0"), DeviceId("gpu1")

_FLAGS = ("pin", "preload", "alone", "exclusive", "survives")

START_LIMIT = 12.0
"""Longest a start takes in these worlds: then the readiness check gives up."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model of the world."""

    name: str
    need: Mapping[DeviceId, int]
    load_seconds: float
    ttl: float = 0.0
    pin: bool = False
    preload: bool = False
    concurrency: int | None = None
    alone: bool = False
    priority: int = 0
    group: str = ""
    exclusive: bool = False
    survives: bool = False
    """An earlier daemon left a tree of it."""
    version: int = 0
    """Differs where a reload has changed how it is started."""
    elsewhere: tuple[Mapping[DeviceId, int], ...] = ()
    """What it needs at its other places."""

    @property
    def needs(self) -> tuple[Mapping[DeviceId, int], ...]:
        """At all its places."""
        return (self.need, *self.elsewhere)

    def scaled(self, scale: float) -> ModelPlan:
        """The same, needing so many times as much."""
        need, *others = ({d: int(b * scale) for d, b in place.items()} for place in self.needs)
        return replace(self, need=need, elsewhere=tuple(others))


@dataclass(frozen=True, slots=True)
class Arrive:
    """A request for *model* that takes *service* seconds once it is leased."""

    at: float
    model: int
    service: float
    patience: float | None = None
    """Seconds after which its client leaves, waiting or not; None: it stays."""
    priority: int = 0
    fails: bool = False
    """Its connection breaks in the end, although the engine lives."""


@dataclass(frozen=True, slots=True)
class Talk:
    """An agent that asks one model after the other, each when the one before has answered."""

    at: float
    models: tuple[int, ...]
    service: float
    think: float


@dataclass(frozen=True, slots=True)
class Crash:
    """The *nth* of the live trees dies."""

    at: float
    nth: int


@dataclass(frozen=True, slots=True)
class Unload:
    """The operator stops *model* and gives its answers *grace* seconds."""

    at: float
    model: int
    grace: float


@dataclass(frozen=True, slots=True)
class Pin:
    """The operator pins *model*, or no more."""

    at: float
    model: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Reload:
    """A new configuration: *model* is to be started another way, needs other bytes, or is gone."""

    at: float
    model: int
    scale: float
    """Its need becomes so many times what it was; 0 removes it until the next reload."""


Happening = Arrive | Talk | Crash | Unload | Pin | Reload


@dataclass(frozen=True, slots=True)
class Trace:
    """All that decides a run."""

    seed: int
    models: tuple[ModelPlan, ...]
    budgets: Mapping[DeviceId, int]
    policy: Policy
    happenings: tuple[Happening, ...]
    faults: float = 1.0
    """Share of the usual misfortune of launches: 0 is a world where everything starts."""
    horizon: float = 300.0
    """Seconds after which nothing new happens."""

    def with_happenings(self, happenings: tuple[Happening, ...]) -> Trace:
        """The same world with other happenings."""
        return replace(self, happenings=happenings)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {len(self.happenings)} happenings, budgets in GiB: {_gib(self.budgets)}"]
        lines += [
            f"  {m.name}: needs {_gib(m.need)} ttl={m.ttl:g} loads in {m.load_seconds:g} s"
            + "".join(
                f" {flag}"
                for flag in ("pin", "preload", "alone", "exclusive", "survives")
                if getattr(m, flag)
            )
            + (f" concurrency={m.concurrency}" if m.concurrency else "")
            + (f" group={m.group}" if m.group else "")
            + (f" priority={m.priority}" if m.priority else "")
            for m in self.models
        ]
        return "\n".join(lines + [f"  {happening}" for happening in self.happenings])


def _gib(sizes: Mapping[DeviceId, int]) -> dict[str, float]:
    return {device: round(size / GIB, 1) for device, size in sizes.items()}


def make_trace(seed: int, horizon: float | None = None) -> Trace:
    """The world of *seed*: the same for ever, as long as this module does not change."""
    return _Maker(seed).trace(horizon)


def make_gpu_trace(seed: int, horizon: float | None = None) -> Trace:
    """Another world of *seed*: two to four GPUs, and models that may go on one of several, or on two."""
    return _GpuMaker(seed).trace(horizon)


@dataclass
class _Maker:
    seed: int
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def trace(self, horizon: float | None) -> Trace:
        dice = self.dice
        with_gpus, budgets = self._budgets()
        models = tuple(self._model(f"m{number}", with_gpus=with_gpus) for number in range(dice.randint(2, 6)))
        if dice.random() < 0.3:
            models = tuple(self._ruled(model) for model in models)
        horizon = horizon or dice.choice([150.0, 300.0, 600.0])
        faults = dice.choice([0.0, 0.0, 1.0, 1.0, 3.0])
        happenings = [*self._traffic(len(models), horizon), *self._misfortune(len(models), horizon, faults)]
        happenings.sort(key=lambda happening: happening.at)
        return Trace(self.seed, models, budgets, self._policy(), tuple(happenings), faults, horizon)

    def _budgets(self) -> tuple[bool, Mapping[DeviceId, int]]:
        with_gpus = self.dice.random() < 0.4
        gpus = {GPU0: 24 * GIB, GPU1: 24 * GIB}
        return with_gpus, {HOST: 40 * GIB, **gpus} if with_gpus else {HOST: 20 * GIB}

    def _policy(self) -> Policy:
        dice = self.dice
        return Policy(
            max_wait=dice.choice([5.0, 10.0, 20.0]),
            request_timeout=dice.choice([60.0, 2000.0, 2000.0]),
            min_residency=dice.choice([0.0, 5.0]),
            drain_grace=dice.choice([8.0, 15.0]),
            max_parallel_starts=dice.choice([1, 2, 2, 3]),
            queue_per_model=dice.choice([5, 30, 100]),
            queue_total=dice.choice([40, 150]),
            stop_grace=3.0,
            backoff_first=1.0,
            backoff_max=8.0,
            crash_window=60.0,
            retry_failed_after=20.0,
        )

    def _model(self, name: str, *, with_gpus: bool) -> ModelPlan:
        dice = self.dice
        size = dice.choice([dice.randint(1, 22), dice.randint(1, 10)]) * GIB
        place = dice.random()
        if not with_gpus or place < 0.2:
            need = {HOST: size}
        elif place < 0.8:
            need = {dice.choice([GPU0, GPU1]): size, HOST: GIB}
        else:
            need = {GPU0: size, GPU1: size, HOST: GIB}
        return ModelPlan(
            name,
            need,
            load_seconds=dice.choice([0.1, 1.0, 4.0, 8.0]),
            ttl=dice.choice([0.0, 0.0, 15.0, 60.0]),
            pin=dice.random() < 0.04,
            preload=dice.random() < 0.1,
            concurrency=dice.choice([None, None, None, 1, 3]),
            alone=dice.random() < 0.2,
            survives=dice.random() < 0.1,
        )

    def _ruled(self, model: ModelPlan) -> ModelPlan:
        """With priorities, groups and exclusive ones."""
        dice = self.dice
        return replace(
            model,
            priority=dice.choice([-5, 0, 0, 5]),
            group=dice.choice(["", "", "one", "two"]),
            exclusive=dice.random() < 0.1,
            # A survivor's neighbours are none of the daemon's choice.
            survives=False,
        )

    # -- traffic

    def _traffic(self, models: int, horizon: float) -> Iterator[Happening]:
        kinds = [self._steady, self._bursty, self._diurnal, self._agents, self._hog]
        for kind in self.dice.sample(kinds, self.dice.randint(1, 3)):
            yield from kind(models, horizon)

    def _arrive(self, at: float, model: int, *, longest: float = 6.0) -> Arrive:
        dice = self.dice
        patience = dice.choice([0.0, 0.5, 3.0, 20.0]) if dice.random() < 0.1 else None
        priority = dice.choice([0, 0, 0, 1, 9]) if dice.random() < 0.2 else 0
        service, fails = dice.uniform(0.05, longest), dice.random() < 0.03
        return Arrive(at, model, service, patience, priority, fails)

    def _poisson(self, rate: float, horizon: float) -> Iterator[float]:
        at = self.dice.expovariate(rate)
        while at < horizon:
            yield at
            at += self.dice.expovariate(rate)

    def _steady(self, models: int, horizon: float) -> Iterator[Happening]:
        for model in range(models):
            for at in self._poisson(self.dice.choice([0.05, 0.3, 1.0]), horizon):
                yield self._arrive(at, model)

    def _bursty(self, models: int, horizon: float) -> Iterator[Happening]:
        for at in self._poisson(0.05, horizon):
            model = self.dice.randrange(models)
            for _ in range(self.dice.randint(3, 25)):
                yield self._arrive(at + self.dice.uniform(0, 0.5), model)

    def _diurnal(self, models: int, horizon: float) -> Iterator[Happening]:
        for at in self._poisson(2.0, horizon):
            day = (1 + math.sin(at / horizon * 4 * math.pi)) / 2
            if self.dice.random() < day:
                # By night another model is asked than by day.
                yield self._arrive(at, self.dice.randrange(models) if day < 0.5 else 0)

    def _agents(self, models: int, horizon: float) -> Iterator[Happening]:
        for _ in range(self.dice.randint(1, 3)):
            three = tuple(self.dice.randrange(models) for _ in range(3))
            yield Talk(self.dice.uniform(0, 10), three * int(horizon / 15), 1.0, self.dice.uniform(0.1, 2))

    def _hog(self, models: int, horizon: float) -> Iterator[Happening]:
        greedy = self.dice.randrange(models)
        at = 0.0
        while at < horizon:
            yield Arrive(at, greedy, self.dice.uniform(1.0, 4.0))
            at += 0.7
        for at in self._poisson(0.05, horizon):
            yield self._arrive(at, self.dice.randrange(models))

    # -- misfortune

    def _misfortune(self, models: int, horizon: float, faults: float) -> Iterator[Happening]:
        dice = self.dice
        if faults:
            for at in self._poisson(0.02 * faults, horizon):
                yield Crash(at, dice.randrange(6))
        if dice.random() < 0.5:
            for at in self._poisson(dice.choice([0.01, 0.1]), horizon):
                yield Unload(at, dice.randrange(models), dice.choice([0.0, 5.0]))
        if dice.random() < 0.3:
            for at in self._poisson(0.01, horizon):
                yield Reload(at, dice.randrange(models), dice.choice([0.0, 0.5, 1.0, 1.2]))
        if dice.random() < 0.2:
            for at in self._poisson(0.01, horizon):
                yield Pin(at, dice.randrange(models), dice.random() < 0.4)


class _GpuMaker(_Maker):
    def __post_init__(self) -> None:
        self.dice = random.Random(f"gpus {self.seed}")
        self.gpus = tuple(DeviceId(f"gpu{number}") for number in range(self.dice.randint(2, 4)))

    def _budgets(self) -> tuple[bool, Mapping[DeviceId, int]]:
        sizes = [self.dice.choice([24, 24, 16, 40]) * GIB for _ in self.gpus]
        return True, {HOST: 40 * GIB, **dict(zip(self.gpus, sizes, strict=True))}

    def _model(self, name: str, *, with_gpus: bool) -> ModelPlan:
        plan = super()._model(name, with_gpus=with_gpus)
        count = self.dice.choice([1, 1, 1, 2])
        size = self.dice.randint(1, 22) * GIB
        need, *others = ({HOST: GIB, **dict.fromkeys(some, size)} for some in combinations(self.gpus, count))
        # Most may go anywhere; some know only one place, as a command does.
        elsewhere = tuple(others) if self.dice.random() < 0.8 else ()
        return replace(plan, need=need, elsewhere=elsewhere)
