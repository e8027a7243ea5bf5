"""Admission: who is started, who makes room, who is refused. A pure function of a picture of the fleet.

`decide` is called on events (a request waits, an instance changed, a lease came back, a timer it asked for)
and never polls. Invariants it keeps by itself: a model that starts is not started again (I1); reservations
never exceed a device's budget (I2); only an idle instance is stopped for a waiter, unless that waiter is past
`max_wait` (I3, I5); nothing is evicted in vain; a model that can never fit is refused at once (I7); engines
that size themselves by free memory start alone on their device (I9).

Room that is being freed belongs to the waiter it is freed for: those behind it get what is left, so a stream
of small models cannot starve a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from registry.engine import DeviceId, ModelId
from supervisor.eviction import Candidate, choose_victims, shortage
from supervisor.lifecycle import WITH_TREE, State
from supervisor.placing import left_over, moved
from supervisor.policy import Policy

WANTED_WITHIN = 120.0
"""A victim that is wanted again within so many seconds was a mistake; later than that, another would have
made it."""


LOAD_MARGIN = 1.5
"""A start may take so many times what it was learned to take."""


@dataclass(frozen=True, slots=True)
class ModelPicture:
    """One model, as admission sees it."""

    model: ModelId
    state: State
    need: Mapping[DeviceId, int]
    """Bytes a start would reserve, at its first place."""
    reserved: Mapping[DeviceId, int]
    """Bytes it holds now; empty without a tree."""
    leases: int = 0
    waiting: int = 0
    oldest_wait: float = 0.0
    """Seconds the first of those waiting has waited; no more than since its model was last stopped for
    another: whoever is left over from its turn stands behind those it was stopped for."""
    wanted: bool = False
    """To be started although nobody waits (preload), if it fits without evicting anybody."""
    priority: int = 0
    """The model's, and the highest of those who wait for it."""
    group: str = ""
    """At most one model of a group holds a tree at a time."""
    exclusive: bool = False
    """No other model has a tree while it has one."""
    pinned: bool = False
    idle: float = 0.0
    resident: float = 0.0
    """Seconds since it became ready."""
    starts_alone: bool = False
    lacked: Mapping[DeviceId, int] = field(default_factory=dict)
    """What to set aside instead of `need` after a start that ran out of memory, if there is as much."""
    load_seconds: float = 0.0
    """What it takes to start, as learned or guessed."""
    rate: float = 0.0
    """Requests a second lately (decayed)."""
    others: tuple[Mapping[DeviceId, int], ...] = ()
    """Bytes a start would reserve at its other places."""
    place: int = 0
    """Which of them `need` is."""

    @property
    def needs(self) -> tuple[Mapping[DeviceId, int], ...]:
        """At all its places, while none is chosen."""
        return (self.need, *self.others)


@dataclass(frozen=True, slots=True)
class FleetPicture:
    """All models and the budgets."""

    models: tuple[ModelPicture, ...]
    budgets: Mapping[DeviceId, int]
    coming: Mapping[DeviceId, int] = field(default_factory=dict)
    """Bytes of trees that are gone, not yet measured back."""
    stuck: Mapping[DeviceId, int] = field(default_factory=dict)
    """The same, long overdue: taken, until somebody lets go of it."""
    releasing: tuple[str, ...] = ()
    """Whose those are, for people."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start *model* now, at its *place*; *reserve* is set aside for it."""

    model: ModelId
    reserve: Mapping[DeviceId, int]
    place: int = 0


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop *model* (drain it first when it is leased) to make room for *beneficiary*."""

    model: ModelId
    beneficiary: ModelId
    reason: str
    grace: float
    """Seconds its open answers may run on."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """*model* can never be started here; *reason* has the numbers."""

    model: ModelId
    reason: str


Decision = Start | Evict | Refuse


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to ask again (None: only after news), and what each model still waits for."""

    decisions: tuple[Decision, ...] = ()
    ask_again_in: float | None = None
    notes: Mapping[ModelId, str] | None = None


def decide(picture: FleetPicture, policy: Policy) -> Plan:
    """What to start, evict and refuse, the longest waiting first."""
    return _Round(picture, policy).plan()


def relieve(picture: FleetPicture, overshot: ModelId) -> Evict | None:
    """Who goes because *overshot* was measured to hold more than was set aside: one idle model, or nobody.

    One, because what was set aside for the others may be more than they hold.
    """
    reserved: dict[DeviceId, int] = {}
    for model in picture.models:
        for device, bytes_ in model.reserved.items():
            reserved[device] = reserved.get(device, 0) + bytes_
    over = shortage(reserved, picture.budgets)
    idle = [
        Candidate(m.model, m.reserved, m.idle, m.resident, _cost_of(m))
        for m in picture.models
        if m.state is State.READY and not (m.pinned or m.leases or m.waiting or m.model == overshot)
    ]
    if not over or any(m.state in (State.DRAINING, State.STOPPING) for m in picture.models):
        return None
    victims = choose_victims(idle, over)
    if victims is None:
        return None
    return Evict(victims[0].model, overshot, "more is used than was set aside", 0.0)


def can_never_fit(
    need: Mapping[DeviceId, int],
    budgets: Mapping[DeviceId, int],
    pinned: Mapping[ModelId, Mapping[DeviceId, int]] | None = None,
) -> str | None:
    """Why *need* exceeds what could ever be free, with the numbers; None when it could fit.

    *pinned*: what models that nobody may stop hold. Waiting for them would be waiting for an operator.
    """
    for device, bytes_ in need.items():
        budget = budgets.get(device)
        if budget is None:
            return f"needs {gib(bytes_)} on {device}, which this machine does not have"
        if bytes_ > budget:
            return f"needs {gib(bytes_)} on {device}, whose budget is {gib(budget)}"
        holders = {model: held[device] for model, held in (pinned or {}).items() if held.get(device)}
        if bytes_ > budget - sum(holders.values()):
            if _is_token(device):
                return f"may not be loaded beside {', '.join(sorted(holders))}, which is pinned"
            who = ", ".join(f"{model} ({gib(held)})" for model, held in sorted(holders.items()))
            return f"needs {gib(bytes_)} on {device}, whose budget is {gib(budget)} and where {who} is pinned"
    return None


def fits_nowhere(
    needs: Iterable[Mapping[DeviceId, int]],
    budgets: Mapping[DeviceId, int],
    pinned: Mapping[ModelId, Mapping[DeviceId, int]] | None = None,
) -> str | None:
    """Why none of *needs* could ever be free; None when one could. Who pins comes before what is too small:
    that can be mended without buying anything."""
    reasons = []
    for need in needs:
        reason = can_never_fit(need, budgets, pinned)
        if reason is None:
            return None
        reasons.append((can_never_fit(need, budgets) is not None, reason))
    return min(reasons, key=lambda one: one[0])[1] if reasons else None


def gib(bytes_: int) -> str:
    """`1.5 GiB`, or MiB below a tenth of that."""
    if bytes_ < 2**30 // 10:
        return f"{bytes_ / 2**20:.0f} MiB"
    return f"{bytes_ / 2**30:.1f} GiB"


def _cost_of(victim: ModelPicture) -> float:
    """Seconds that stopping it is expected to lose."""
    wanted_again = 1 - math.exp(-victim.rate * WANTED_WITHIN)
    return victim.load_seconds * wanted_again


EXCLUSIVE = DeviceId("exclusive ")
GROUP = "group "
"""Devices that no machine has: rules about who may be loaded beside whom, counted like memory."""


def _is_token(device: DeviceId) -> bool:
    return device == EXCLUSIVE or device.startswith(GROUP)


def _with_tokens(picture: FleetPicture) -> FleetPicture:
    """*picture* with `group` and `exclusive` as needs: a group has one token and each of its models needs it;
    an exclusive model needs all the tokens of which everybody needs one."""
    if not any(model.group or model.exclusive for model in picture.models):
        return picture
    everybody = len(picture.models)
    exclusive = any(model.exclusive for model in picture.models)
    budgets = {**picture.budgets, EXCLUSIVE: everybody}
    models = []
    for model in picture.models:
        tokens: dict[DeviceId, int] = {}
        if exclusive:
            tokens[EXCLUSIVE] = everybody if model.exclusive else 1
        if model.group:
            group = DeviceId(GROUP + model.group)
            tokens[group] = budgets[group] = 1
        held = {**model.reserved, **tokens} if model.state in WITH_TREE else model.reserved
        others = tuple({**need, **tokens} for need in model.others)
        models.append(replace(model, need={**model.need, **tokens}, others=others, reserved=held))
    return replace(picture, models=tuple(models), budgets=budgets)


class _Round:
    """One call of `decide`: the books while going through the queue."""

    def __init__(self, picture: FleetPicture, policy: Policy) -> None:
        self.policy = policy
        self.releasing = picture.releasing
        picture = _with_tokens(picture)
        self.budgets = picture.budgets
        self.decisions: list[Decision] = []
        self.notes: dict[ModelId, str] = {}
        self.ask_again: float | None = None
        self.patience = math.inf
        """Seconds until somebody who waits for busy ones has waited for `max_wait`."""
        self.starting = [m for m in picture.models if m.state is State.STARTING]
        self.pinned = {
            m.model: m.reserved
            for m in picture.models
            if m.pinned and m.state in (State.STARTING, State.READY)
        }
        self.models = picture.models
        self.leaving = {m.model for m in picture.models if m.state in (State.DRAINING, State.STOPPING)}
        self.free = dict(self.budgets)
        """Nobody has reserved it."""
        self.unclaimed = dict(self.budgets)
        """What is free, and what will be once all that leave are gone, less what is meant for those who came
        before."""
        for model in picture.models:
            self._move(self.free, model.reserved, -1)
            if model.model not in self.leaving:
                self._move(self.unclaimed, model.reserved, -1)
        self._move(self.free, picture.coming, -1)
        for taken in (self.free, self.unclaimed):
            self._move(taken, picture.stuck, -1)

    @staticmethod
    def _move(pool: dict[DeviceId, int], bytes_by_device: Mapping[DeviceId, int], sign: int) -> None:
        for device, bytes_ in bytes_by_device.items():
            pool[device] = pool.get(device, 0) + sign * bytes_

    def plan(self) -> Plan:
        stopped = [m for m in self.models if m.state is State.STOPPED]
        waiting = sorted((m for m in stopped if m.waiting), key=self._turn)
        for model in waiting:
            self._admit(model, evict=True)
        for model in stopped:
            if model.wanted and not model.waiting:
                self._admit(model, evict=False)
        return Plan(tuple(self.decisions), self.ask_again, self.notes)

    def _turn(self, model: ModelPicture) -> tuple[bool, int, float, ModelId]:
        """Who has waited for `max_wait` comes first, whatever their priority: so priorities starve nobody."""
        overdue = model.oldest_wait >= self.policy.max_wait
        return (not overdue, 0 if overdue else -model.priority, -model.oldest_wait, model.model)

    def _admit(self, model: ModelPicture, *, evict: bool) -> None:
        never = fits_nowhere(model.needs, self.budgets, self.pinned)
        if never is not None:
            self.decisions.append(Refuse(model.model, never))
            return
        model = self._placed(model)
        if not shortage(model.need, self.free) and not shortage(model.need, self.unclaimed):
            held_up = self._held_up(model) or self._would_be_in_the_way(model)
            if held_up is None:
                self._start(model)
                return
            self.notes[model.model] = held_up
        elif not evict:
            self.notes[model.model] = "waiting for memory"
            return
        elif not self._make_room(model):
            # It waits for busy ones, and may have to until `max_wait`: till then others may use what is free.
            self.patience = min(self.patience, self.policy.max_wait - model.oldest_wait)
            return
        # Whatever becomes free is this model's before it is anybody else's.
        self._move(self.unclaimed, model.need, -1)

    def _placed(self, model: ModelPicture) -> ModelPicture:
        """*model* as if it had no other place than the best one now."""
        if not model.others:
            return self._at_most(model)
        places = [
            self._at_most(replace(model, need=need, others=(), place=place))
            for place, need in enumerate(model.needs)
            if can_never_fit(need, self.budgets, self.pinned) is None
        ]
        return min(places, key=self._worth)

    def _worth(self, model: ModelPicture) -> tuple[int, float, int]:
        """The least is best: room now, and the tightest; room that is coming; the cheapest victims, idle ones
        before busy ones; and where nobody may go, the place that lacks the least."""
        if not shortage(model.need, self.free) and not shortage(model.need, self.unclaimed):
            return (1 if self._held_up(model) else 0, left_over(model.need, self.free), model.place)
        missing = shortage(model.need, self.unclaimed)
        if not missing:
            return (2, 0, model.place)
        idle = [m for m in self.models if self._may_go(m) and self._rests(m)]
        busy = [m for m in self.models if self._may_go(m)]
        for rank, candidates in ((3, idle), (4, busy)):
            victims = choose_victims([self._candidate(m) for m in candidates], missing)
            if victims is not None:
                return (rank, sum(victim.cost for victim in victims), model.place)
        return (5, sum(missing.values()), model.place)

    def _start(self, model: ModelPicture) -> None:
        reserve = {device: bytes_ for device, bytes_ in model.need.items() if not _is_token(device)}
        self.decisions.append(Start(model.model, reserve, model.place))
        self._move(self.free, model.need, -1)
        self._move(self.unclaimed, model.need, -1)
        self.starting.append(model)

    def _held_up(self, model: ModelPicture) -> str | None:
        """Why a start that fits must wait all the same; None when it may go ahead."""
        beside = [m for m in self.starting if self._share_a_device(m, model)]
        if len(beside) >= self.policy.max_parallel_starts:
            return f"waiting for {beside[0].model} to start"
        alone = next((m for m in beside if m.starts_alone or model.starts_alone), None)
        if alone is not None:
            return f"waiting for {alone.model} to start: one of them measures free memory"
        if model.starts_alone:
            for other in self.models:
                if other.model in self.leaving and self._share_a_device(other, model):
                    return f"waiting for {other.model} to stop"
        return None

    def _would_be_in_the_way(self, model: ModelPicture) -> str | None:
        """Somebody before it waits for busy ones: a start that may still go on when they are closed would
        come before that one after all, because what starts is no victim."""
        if model.load_seconds * LOAD_MARGIN > self.patience:
            return "waiting for its turn"
        return None

    @staticmethod
    def _share_a_device(one: ModelPicture, other: ModelPicture) -> bool:
        held = {device for device in one.reserved or one.need if not _is_token(device)}
        needed = {device for device in other.need if not _is_token(device)}
        return not held or not needed or bool(held & needed)

    def _make_room(self, model: ModelPicture) -> bool:
        """Evict whom it takes, once what is already leaving does not suffice; whether room is on its way."""
        missing = shortage(model.need, self.unclaimed)
        if not missing:
            self.notes[model.model] = self._coming_note()
            return True
        resting = [m for m in self.models if self._is_idle_victim(m)]
        idle = [self._candidate(m) for m in resting]
        victims = choose_victims(idle, missing)
        reason = "idle"
        if victims is None:
            busy = [self._candidate(m) for m in self.models if self._may_go(m) and m not in resting]
            if model.oldest_wait < self.policy.max_wait:
                if choose_victims(idle + busy, missing) is not None:
                    self._again(self.policy.max_wait - model.oldest_wait)
                self.notes[model.model] = self._blockers_note(busy)
                return False
            victims = choose_victims(idle + busy, missing)
            reason = f"a request for {model.model} has waited for {model.oldest_wait:.0f} s"
            fresh = [victim for victim in victims or () if victim.resident < self._residency]
            if fresh:
                self._again(self._residency - min(victim.resident for victim in fresh))
                self.notes[model.model] = self._blockers_note(fresh)
                return True
        if victims is None:
            self.notes[model.model] = self._blockers_note(())
            return True
        for victim in victims:
            grace = self._grace(victim.resident, model.oldest_wait - self.policy.max_wait)
            self.decisions.append(Evict(victim.model, model.model, reason, grace))
            self.leaving.add(victim.model)
            self._move(self.unclaimed, victim.frees, +1)
        self.notes[model.model] = "waiting for " + ", ".join(v.model for v in victims) + " to stop"
        return True

    def _coming_note(self) -> str:
        if self.leaving:
            return "waiting for " + ", ".join(sorted(self.leaving)) + " to stop"
        return "waiting for " + (", ".join(self.releasing) or "its turn")

    def _at_most(self, model: ModelPicture) -> ModelPicture:
        """One that lacked memory wants more of it, but no more than it could ever get."""
        if not model.lacked:
            return model
        most = dict(self.budgets)
        for name, held in self.pinned.items():
            if name != model.model:
                self._move(most, held, -1)
        lacked = moved(model.lacked, model.need)
        wanted = {device: min(bytes_, most.get(device, 0)) for device, bytes_ in lacked.items()}
        # Never less than what it needs anyway: where even that is not to be had, it is refused.
        raised = {device: max(bytes_, model.need.get(device, 0)) for device, bytes_ in wanted.items()}
        return replace(model, need={**model.need, **raised})

    @staticmethod
    def _candidate(model: ModelPicture) -> Candidate:
        return Candidate(model.model, model.reserved, model.idle, model.resident, _cost_of(model))

    def _is_idle_victim(self, model: ModelPicture) -> bool:
        if not self._may_go(model) or model.leases or model.waiting:
            return False
        if self._rests(model):
            return True
        self._again(min(self._residency - model.resident, self.policy.settle - model.idle))
        return False

    def _may_go(self, model: ModelPicture) -> bool:
        return model.state is State.READY and not model.pinned and model.model not in self.leaving

    def _rests(self, model: ModelPicture) -> bool:
        unused = not (model.leases or model.waiting)
        return unused and (model.resident >= self._residency or model.idle >= self.policy.settle)

    @property
    def _residency(self) -> float:
        """What `min_residency` may take of a bounded wait: a victim's residency and grace share one bound."""
        return min(self.policy.min_residency, self.policy.drain_grace)

    def _grace(self, resident: float, overdue: float) -> float:
        """Seconds a victim's answers may run on, less what its residency has cost a waiter *overdue*."""
        unprotected = max(resident - max(overdue, 0.0), 0.0)
        return self.policy.drain_grace - max(self._residency - unprotected, 0.0)

    def _blockers_note(self, busy: Iterable[Candidate]) -> str:
        names = sorted({candidate.model for candidate in busy})
        stuck = [text for text in self.releasing if text.startswith("memory that")]
        if not names:
            return "waiting for " + (", ".join(stuck) or "memory that starting models hold")
        return "; ".join(["waiting for memory: " + ", ".join(names) + " in use", *stuck])

    def _again(self, seconds: float) -> None:
        # Never zero: a timer that fires before anything changed would spin.
        seconds = max(seconds, 0.01)
        if self.ask_again is None or seconds < self.ask_again:
            self.ask_again = seconds
