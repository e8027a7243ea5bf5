"""What another catalog means for the models there are: keep, update, restart, add, remove. Pure.

`compare` looks at definitions alone and may take milliseconds with hundreds of models, so that it belongs in
a thread; `plan_reload` looks at what runs, and is quick.

| the definition | and the instance | action |
| --- | --- | --- |
| is the same | | keep |
| differs in what a running tree is not started with (`ttl`, `aliases` …) | | update |
| differs in how it is launched | STARTING, READY | restart |
| the same | any other state | update: it is launched so the next time |
| is new, or gone | | add, remove |

What is sure to fail, or has failed before, is not tried: the model keeps its definition, and `refused` says
why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from config.diff import changed_keys
from config.schema import ModelConfig
from registry.engine import DeviceId, ModelId
from registry.model import Model
from supervisor.admission import fits_nowhere
from supervisor.lifecycle import State

RUNS: Final = frozenset({State.STARTING, State.READY})
"""States in which a tree of the old definition would go on serving."""


class Action(StrEnum):
    """What a reload does with a model."""

    KEEP = "keep"
    UPDATE = "update"
    """Its new definition is in force without a restart."""
    RESTART = "restart"
    """Drained, stopped, and started as it is defined now."""
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Difference:
    """One model in both catalogs."""

    model: ModelId
    before: Model | None
    after: Model | None
    changed: tuple[str, ...] = ()
    """Keys, or what else of it differs; empty when nothing does, and for one that is new or gone."""
    same_launch: bool = True
    """A running tree of the old definition is one of the new, too."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An instance, as far as a reload must know it."""

    state: State = State.STOPPED
    proved: bool = False
    """Its tree has been ready."""
    pinned: bool = False
    reserved: Mapping[DeviceId, int] = field(default_factory=dict)


_STOPPED: Final = Standing()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A definition that was tried and did not become ready."""

    fingerprint: str
    cause: str
    changed: tuple[str, ...] = ()
    at: float = 0.0
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class ReloadStep:
    """What becomes of one model."""

    action: Action
    difference: Difference
    state: State
    proved: bool = False
    refused: str = ""
    """Why the new definition is not taken over, if it is not; the action is KEEP then."""

    @property
    def model(self) -> ModelId:
        """Its id."""
        return self.difference.model

    @property
    def does_something(self) -> bool:
        """It is more than leaving a model as it is."""
        return self.action is not Action.KEEP or bool(self.refused)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What instances have of a device before a reload, and after it."""

    device: DeviceId
    budget_bytes: int
    before_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """Everything a reload does."""

    steps: tuple[ReloadStep, ...]
    devices: tuple[DeviceChange, ...]

    @property
    def does_something(self) -> bool:
        """Some model is not what it was, or is not what it was to be."""
        return any(step.does_something for step in self.steps)


def compare(before: Mapping[ModelId, Model], after: Mapping[ModelId, Model]) -> tuple[Difference, ...]:
    """Every model of the two catalogs, those of *after* first, in their order."""
    gone = (model for model in before if model not in after)
    return tuple(compare_one(model, before.get(model), after.get(model)) for model in (*after, *gone))


def compare_one(model: ModelId, before: Model | None, after: Model | None) -> Difference:
    """One model as it was and as it is to be."""
    if before is None or after is None or before is after:
        return Difference(model, before, after)
    same_launch = set(before.fingerprints) <= set(after.fingerprints) and bool(before.places) == bool(
        after.places
    )
    return Difference(model, before, after, _changed(before, after, same_launch=same_launch), same_launch)


def definition(model: Model | None) -> str:
    """What tells how it is launched from other ways; "" for one that is not."""
    return "" if model is None else " ".join(model.fingerprints)


_PLAIN: Final = (
    "engine", "path", "aliases", "ttl", "ttl_max", "pin", "preload", "concurrency", "priority", "group",
    "exclusive",
)  # fmt: skip
"""What defaults, other sections and the disk have a say in, besides the model's own entry."""


def _changed(before: Model, after: Model, *, same_launch: bool) -> tuple[str, ...]:
    nothing = ModelConfig(source="?")
    keys = dict.fromkeys(changed_keys(before.options or nothing, after.options or nothing))
    keys |= dict.fromkeys(name for name in _PLAIN if getattr(before, name) != getattr(after, name))
    if before.checkpoint != after.checkpoint:
        keys["files"] = None
    if str(before.problem or "") != str(after.problem or ""):
        keys["problem"] = None
    if not keys and before.spec is not None and after.spec is not None:
        old, new = before.spec, after.spec
        parts = {"command line": old.argv != new.argv, "environment": old.env != new.env}
        keys |= dict.fromkeys(name for name, differs in parts.items() if differs)
        if not keys and old != new:
            keys["start"] = None  # deadlines, footprint: what a running tree does not notice
    if not keys and not same_launch:
        keys["launch"] = None
    return tuple(keys)


def plan_reload(
    differences: Iterable[Difference],
    standing: Mapping[ModelId, Standing],
    *,
    needs: Callable[[Model], tuple[Mapping[DeviceId, int], ...]],
    budgets: Mapping[DeviceId, int],
    rejected: Mapping[ModelId, Rejected],
) -> ReloadPlan:
    """What is to be done for *differences*, and the memory before and after.

    *needs*: bytes to reserve for a model at each of its places. *rejected*: definitions that are not to be
    tried again.
    """
    pinned = {model: one.reserved for model, one in standing.items() if one.pinned and one.state in RUNS}

    def step(difference: Difference) -> ReloadStep:
        one = standing.get(difference.model, _STOPPED)
        action = _action(difference, one)
        why = _tried(difference, rejected.get(difference.model))
        if not why and action is Action.RESTART and difference.after is not None:
            others = {model: held for model, held in pinned.items() if model != difference.model}
            why = _hopeless(difference.after, needs=needs, budgets=budgets, pinned=others)
        return ReloadStep(Action.KEEP if why else action, difference, one.state, one.proved, why)

    steps = tuple(step(difference) for difference in differences)
    return ReloadPlan(steps, _devices(steps, standing, needs, budgets))


def _action(difference: Difference, one: Standing) -> Action:
    if difference.before is None:
        return Action.ADD
    if difference.after is None:
        return Action.REMOVE
    if not difference.same_launch and one.state in RUNS:
        return Action.RESTART
    return Action.UPDATE if difference.changed else Action.KEEP


def _tried(difference: Difference, rejected: Rejected | None) -> str:
    after = difference.after
    if rejected is None or after is None or after.spec is None:
        return ""
    return rejected.cause if rejected.fingerprint == definition(after) else ""


def _hopeless(
    after: Model,
    *,
    needs: Callable[[Model], tuple[Mapping[DeviceId, int], ...]],
    budgets: Mapping[DeviceId, int],
    pinned: Mapping[ModelId, Mapping[DeviceId, int]],
) -> str:
    if after.spec is None:
        return str(after.problem or f"{after.id} cannot be started by this daemon")
    never = fits_nowhere(needs(after), budgets, pinned)
    return f"{after.id} {never}" if never else ""


def _devices(
    steps: tuple[ReloadStep, ...],
    standing: Mapping[ModelId, Standing],
    needs: Callable[[Model], tuple[Mapping[DeviceId, int], ...]],
    budgets: Mapping[DeviceId, int],
) -> tuple[DeviceChange, ...]:
    before = {model: one.reserved for model, one in standing.items()}
    after = dict(before)
    for step in steps:
        new = step.difference.after
        match step.action:
            case Action.REMOVE:
                after.pop(step.model, None)
            case Action.RESTART if new is not None:
                after[step.model] = _where_it_is(needs(new), before.get(step.model, {}))
            case Action.ADD if new is not None and new.preload and new.spec is not None:
                after[step.model] = needs(new)[0]
            case _:
                pass
    return tuple(
        DeviceChange(device, budget, _sum(before, device), _sum(after, device))
        for device, budget in budgets.items()
    )


def _where_it_is(
    needs: tuple[Mapping[DeviceId, int], ...], held: Mapping[DeviceId, int]
) -> Mapping[DeviceId, int]:
    """The place on the devices that it has now, or the first: which it will be is not known yet."""
    return next((need for need in needs if need.keys() == held.keys()), needs[0])


def _sum(held: Mapping[ModelId, Mapping[DeviceId, int]], device: DeviceId) -> int:
    return sum(one.get(device, 0) for one in held.values())
