"""Carries a reload out, and sees each changed model through: drained, stopped, started anew, or put back.

A model that served and whose launch has changed is *on trial* from the moment it is told to stop until its
new tree is ready. When that does not become ready, the definition that it had before is put back and started
again; requests that wait for the model go on waiting meanwhile, and are not told of the failed try.

Everything here runs on the event loop's thread and answers to news of the fleet; nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from registry.engine import DeviceId, ModelId
from registry.model import Model
from supervisor.crashes import CrashMemory
from supervisor.errors import StoppingError, SupervisorError
from supervisor.instance import Instance
from supervisor.lifecycle import State
from supervisor.ports import EventKind
from supervisor.reload import (
    Action,
    Difference,
    Rejected,
    ReloadPlan,
    ReloadStep,
    Standing,
    compare_one,
    definition,
    plan_reload,
)
from supervisor.watchers import Watchers

if TYPE_CHECKING:
    from supervisor.fleet import Supervisor

_DOWN = frozenset({State.BACKOFF, State.FAILED})


class Outcome(StrEnum):
    """How a changeover ended."""

    RESTARTED = "restarted"
    ROLLED_BACK = "rolled_back"
    NOT_STARTED = "not_started"
    """It has its new definition and no tree: unloaded meanwhile, or no memory in time."""


class Changeover:
    """One model between two definitions."""

    def __init__(self, before: Model | None, after: Model, changed: tuple[str, ...]) -> None:
        self.before = before
        """What it goes back to; None for one whose old tree has never been ready."""
        self.after = after
        self.changed = changed
        self.outcome: Outcome | None = None
        self.cause = ""
        """Why it is not what was wanted."""
        self.wanted = False
        """Admission has been told to start it."""
        self.back = False
        """It has its old definition again."""

    @property
    def done(self) -> bool:
        """It has ended."""
        return self.outcome is not None

    @property
    def can_go_back(self) -> bool:
        """It has served by another definition, and has not gone back to that yet."""
        return self.before is not None and not self.back


class Changeovers:
    """Those that are under way, and the definitions that have failed."""

    def __init__(
        self,
        fleet: Supervisor,
        emit: Callable[..., None],
        watchers: Watchers,
        *,
        budgets: Mapping[DeviceId, int],
    ) -> None:
        self._fleet = fleet
        self._emit = emit
        self._watchers = watchers
        self._budgets = budgets
        self._open: dict[ModelId, Changeover] = {}
        self.rejected: dict[ModelId, Rejected] = {}
        """What each model was to be and is not, until it is defined otherwise."""

    # -- planning and carrying out -----------------------------------------------------------------

    def plan(self, differences: Iterable[Difference], *, retry: bool) -> ReloadPlan:
        """What is to be done now. *retry*: definitions that have failed before are tried again."""
        fleet = self._fleet
        current = [self._current(one) for one in differences]
        return plan_reload(
            current,
            {
                one.id: Standing(one.state, one.proved, one.pinned, one.holding.reserved)
                for one in fleet.instances.values()
                if one.state is not State.STOPPED
            },
            needs=fleet.forecast.estimate,
            budgets=self._budgets,
            rejected={} if retry else self.rejected,
        )

    def _current(self, difference: Difference) -> Difference:
        """*difference*, compared again if the model was rolled back while others were being compared."""
        instance = self._fleet.instances.get(difference.model)
        before = difference.before
        if instance is None or before is None or before.spec is None or instance.model is before:
            return difference
        return compare_one(difference.model, instance.model, difference.after)

    def carry_out(self, plan: ReloadPlan) -> dict[ModelId, Changeover]:
        """Do what *plan* says, at once; the changeovers that go on from here, by model."""
        begun: dict[ModelId, Changeover] = {}
        for step in plan.steps:
            after = step.difference.after
            if step.refused:
                self._reject(step)
                continue
            self.rejected.pop(step.model, None)
            if step.action is Action.KEEP:
                self._keep(step.model, after)
                continue
            if after is None or after.spec is None or after.problem is not None:
                self._remove(step.model)
            elif step.action is Action.RESTART:
                begun[step.model] = self._restart(step, after)
            else:
                self._take(step, after)
        if plan.does_something:
            # Dear with hundreds of models, and most reloads change none.
            self._fleet.forecast.forget_all()
            self._fleet.scheduler.consider()
        return begun

    def _keep(self, model: ModelId, after: Model | None) -> None:
        """The same definition, perhaps another object: what is compared next is compared with this."""
        instance = self._fleet.instances.get(model)
        if instance is not None and after is not None:
            instance.model = after

    def _reject(self, step: ReloadStep) -> None:
        after, known = step.difference.after, self.rejected.get(step.model)
        # Said once, and not again by every reload that finds the same.
        if known is None or (known.cause, known.fingerprint) != (step.refused, definition(after)):
            self._remember(step.model, after, step.refused, step.difference.changed)

    def _remember(self, model: ModelId, tried: Model | None, cause: str, changed: tuple[str, ...]) -> None:
        at = self._fleet.world.clock.wall()
        self.rejected[model] = Rejected(definition(tried), cause, changed, at)
        self._emit(EventKind.ROLLED_BACK, model, cause=cause, changed=list(changed))
        self._fleet.accounts.tell(model, "rolled_back", f"keeps its old definition: {cause}")

    def _remove(self, model: ModelId) -> None:
        fleet = self._fleet
        instance = fleet.instances.get(model)
        self.rejected.pop(model, None)
        self.call_off(model, f"{model} is no longer configured")
        if instance is not None:
            fleet.pool.fail(model, StoppingError(f"{model} is no longer configured"))
            fleet.retire(instance)

    def _take(self, step: ReloadStep, after: Model) -> None:
        """Put *after* into force without touching a tree, except one that is on its way out."""
        fleet, instance = self._fleet, self._fleet.instances.get(step.model)
        if instance is None:
            fleet.add(after)
            return
        fleet.keep(instance)
        instance.model = after
        if not step.difference.same_launch or step.action is Action.ADD:
            self._renew(instance)

    def _renew(self, instance: Instance) -> None:
        """What fell under another definition says nothing about this one."""
        instance.crashes = CrashMemory(self._fleet.policy)
        if instance.state in _DOWN:
            instance.stop()

    def _restart(self, step: ReloadStep, after: Model) -> Changeover:
        instance, earlier = self._fleet.instances[step.model], self._open.pop(step.model, None)
        good = instance.model if instance.proved else None
        if earlier is not None:
            # Changed again before the last change was through: what it goes back to is what served last.
            good = good or earlier.before
            self._end(earlier, Outcome.NOT_STARTED, "the definition was changed again meanwhile")
        self._fleet.keep(instance)
        changeover = self._open[step.model] = Changeover(good, after, step.difference.changed)
        instance.model = after
        instance.crashes = CrashMemory(self._fleet.policy)
        self._emit(EventKind.REDEFINED, step.model, changed=list(step.difference.changed))
        self._fleet.accounts.tell(step.model, "redefined", "restarts with another definition")
        instance.stop()
        self.look(instance)
        return changeover

    # -- news from the fleet -----------------------------------------------------------------------

    def failed(self, instance: Instance, error: SupervisorError) -> bool:
        """Its start has failed. True: it goes back to what it was, so that who waits for it may go on."""
        changeover = self._open.get(instance.id)
        if changeover is None:
            return False
        if changeover.can_go_back and _started_as(instance, changeover.after):
            changeover.cause = changeover.cause or str(error)
            return True
        self.call_off(instance.id, changeover.cause or str(error))
        return False

    def published(self, instance: Instance) -> None:
        """It is ready."""
        changeover = self._open.get(instance.id)
        if changeover is None or not _started_as(instance, instance.model):
            return
        self._open.pop(instance.id)
        self._end(changeover, Outcome.ROLLED_BACK if changeover.back else Outcome.RESTARTED, changeover.cause)

    def look(self, instance: Instance) -> None:
        """Its state is another: go on."""
        changeover = self._open.get(instance.id)
        if changeover is None:
            return
        if changeover.cause and not changeover.back and instance.state in _DOWN:
            self._go_back(instance, changeover)
        elif instance.state is State.STOPPED and not changeover.wanted:
            self._start(instance, changeover)

    def call_off(self, model: ModelId, why: str) -> None:
        """Somebody wants it otherwise: it is not started on our account any more."""
        changeover = self._open.pop(model, None)
        if changeover is not None:
            self._end(changeover, Outcome.NOT_STARTED, why)

    # -- inside ------------------------------------------------------------------------------------

    def _go_back(self, instance: Instance, changeover: Changeover) -> None:
        assert changeover.before is not None, "without a definition to go back to nothing is held back"
        changeover.back = True
        instance.model = changeover.before
        self._fleet.forecast.forget(instance.id)
        self._remember(instance.id, changeover.after, changeover.cause, changeover.changed)
        changeover.wanted = False
        self._renew(instance)  # STOPPED again, which `look` is told

    def _start(self, instance: Instance, changeover: Changeover) -> None:
        """Have it started as soon as it fits without stopping another; for who waits, as ever."""
        changeover.wanted = True
        self._fleet.scheduler.wanted.add(instance.id)
        patience = self._fleet.policy.max_wait

        def too_late() -> None:
            if self._open.get(instance.id) is changeover and instance.state is State.STOPPED:
                del self._open[instance.id]
                why = changeover.cause or f"there was no room for {instance.id} within {patience:.0f} s"
                self._end(changeover, Outcome.NOT_STARTED, f"{why}; it starts when there is")

        self._fleet.world.clock.call_later(patience, too_late)

    def _end(self, changeover: Changeover, outcome: Outcome, cause: str) -> None:
        changeover.outcome, changeover.cause = outcome, cause
        self._watchers.look()

    async def settled(self, changeovers: Mapping[ModelId, Changeover]) -> None:
        """Return when all of them have ended."""
        await self._watchers.until(lambda: all(one.done for one in changeovers.values()))


def _started_as(instance: Instance, model: Model) -> bool:
    """Its tree is one of *model*'s."""
    return instance.spec is not None and instance.spec.fingerprint in model.fingerprints
