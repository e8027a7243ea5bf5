"""Carries admission out: takes the picture, performs what `admission.decide` says, arms the timer it wants.

Its mailbox is one flag: whoever has news says `consider`, and a round follows at once, or after the one under
way. So it is served as long as no round that was asked for is outstanding: see `is_served`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from registry.engine import DeviceId, ModelId
from supervisor.accounts import Accounts
from supervisor.admission import Decision, Evict, FleetPicture, Refuse, Start, decide, relieve
from supervisor.errors import ModelTooLargeError
from supervisor.forecast import Forecast
from supervisor.instance import Instance
from supervisor.picture import fleet_picture, has_a_part
from supervisor.policy import Policy
from supervisor.pool import Pool
from supervisor.ports import EventKind, SupervisorEvent, Timer
from supervisor.release import Releases
from supervisor.wording import record
from supervisor.world import World

LATE = 5.0
"""Seconds that a round may be overdue: a timer of a loop that goes round is later by milliseconds."""
AGAIN_AFTER_A_FAULT = 1.0
"""Seconds until a round that raised is tried again: what it stumbled over may be gone by then."""


@dataclass(frozen=True, slots=True)
class Books:
    """What it decides on."""

    instances: Mapping[ModelId, Instance]
    pool: Pool
    forecast: Forecast
    releases: Releases
    accounts: Accounts
    budgets: Mapping[DeviceId, int]


class Scheduler:
    """One owner of admission: nobody else starts, evicts or refuses for want of memory."""

    def __init__(self, world: World, policy: Policy, books: Books) -> None:
        self._world = world
        self._policy = policy
        self._books = books
        self.wanted: set[ModelId] = set()
        """To be started although nobody waits (preload)."""
        self.notes: Mapping[ModelId, str] = {}
        """What each model waits for, by the last round."""
        self._considering = self._again = self._stopped = self._is_ill = False
        self._timer: Timer | None = None
        self._due: float | None = None
        """When the timer must have come."""

    @property
    def is_served(self) -> bool:
        """Asked between two rounds: none that was asked for is outstanding, and no timer was lost."""
        if self._stopped:
            return True
        overdue = self._due is not None and self._world.clock.now() > self._due + LATE
        return not (self._again or self._considering or overdue)

    def consider(self) -> None:
        """Let admission decide and do what it says, until it has nothing more to say. Never raises."""
        self._again = True
        if self._considering or self._stopped:
            return
        self._considering = True
        try:
            while self._again:
                self._round()
            self._is_ill = False
        except Exception as error:  # noqa: BLE001  whoever has the news has a request to serve or a lease to end
            # Still outstanding, as `is_served` says, until a round succeeds.
            self._again = True
            self._arm(AGAIN_AFTER_A_FAULT)
            if not self._is_ill:
                self._is_ill = True
                self._world.fault(error)
        finally:
            self._considering = False

    def _round(self) -> None:
        self._again = False
        picture = self.picture(whole=False)
        plan = decide(picture, self._policy)
        self.notes = plan.notes or {}
        record(self._books.accounts, plan, picture)
        # Starts first: whoever is stopped is measured once more, and may hold more than it seemed to.
        for decision in sorted(plan.decisions, key=lambda one: not isinstance(one, Start)):
            self._carry_out(decision)
        self._arm(plan.ask_again_in)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is decided meanwhile; what was asked for waits for the next `consider`."""
        self._considering = True
        try:
            yield
        finally:
            self._considering = False

    def stop(self) -> None:
        """Decide nothing any more."""
        self._stopped = True
        self._arm(None)

    def picture(self, *, whole: bool = True, of: ModelId | None = None) -> FleetPicture:
        """All models as admission sees them; not *whole*: *of* and those that can matter to a decision."""
        books = self._books
        instances: Collection[Instance] = books.instances.values()
        if not whole:
            wanted, pool = self.wanted, books.pool
            instances = [one for one in instances if one.id == of or has_a_part(one, pool, wanted)]
        return fleet_picture(
            instances,
            books.pool,
            books.forecast,
            budgets=books.budgets,
            wanted=self.wanted,
            releases=books.releases,
            now=self._world.clock.now(),
        )

    def relieve(self, instance: Instance) -> None:
        """*instance* was measured to hold more than was set aside: somebody else may have to go."""
        found = relieve(self.picture(whole=False), instance.id)
        if found is not None:
            self._carry_out(found)

    def _carry_out(self, decision: Decision) -> None:
        instances = self._books.instances
        match decision:
            case Start(model, reserve, place):
                self.wanted.discard(model)
                instances[model].start(reserve, place)
            case Evict(model, beneficiary, reason, grace):
                self._emit(EventKind.EVICTED, model, beneficiary=beneficiary, reason=reason, grace=grace)
                instances[model].evict(drain_grace=grace)
            case Refuse(model, reason):
                self.wanted.discard(model)
                error = too_large(model, reason)
                refused = self._books.pool.fail(model, error)
                self._emit(EventKind.REFUSED, model, reason=str(error), requests=refused)

    def _arm(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._due = None
        if seconds is not None:
            self._due = self._world.clock.now() + seconds
            self._timer = self._world.clock.call_later(seconds, self._timer_came)

    def _timer_came(self) -> None:
        self._timer = self._due = None
        self.consider()

    def _emit(self, kind: EventKind, model: ModelId, **data: object) -> None:
        incarnation = self._books.instances[model].incarnation
        self._world.emit(SupervisorEvent(kind, model, incarnation, self._world.clock.wall(), data))


def too_large(model: ModelId, why: str) -> ModelTooLargeError:
    """The error for a model that can never be started; *why* has the numbers."""
    if "pinned" in why:
        return ModelTooLargeError(f"{model} {why}; `modelyard unpin` lets go of it")
    if "needs" not in why:
        return ModelTooLargeError(f"{model} {why}")
    spread = ", or with vLLM `tensor_parallel_size: auto`, which spreads it over several" * ("on gpu" in why)
    remedy = f"a smaller quantisation or context, or a larger memory budget{spread}, would help"
    return ModelTooLargeError(f"{model} {why}; {remedy}")
