"""Why a request waited: what was decided for its model meanwhile, in words and with the numbers.

Two bounded memories: requests that had to wait, and per model what happened to it and for it. A request's
explanation is what was told of its model while it waited. Requests that are served at once leave no trace
here: the warm path does not come by.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from registry.engine import ModelId
from supervisor.errors import SupervisorError
from supervisor.ports import Clock
from supervisor.view import Explanation, Step

Lease = TypeVar("Lease")

REQUESTS = 2048
"""Requests that waited and are remembered: with the longest queues, two generations of them."""
PER_MODEL = 256
"""Steps kept of a model: an hour of one that is swapped every minute."""


@dataclass(slots=True, eq=False)
class Account:
    """One request that waits, or has waited."""

    request: str
    model: ModelId
    asked: float
    """Unix seconds."""
    first: Step
    """How things stood when it came."""
    ended: float | None = None
    outcome: str = "waiting"


@dataclass(slots=True)
class _History:
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=PER_MODEL))


class Accounts:
    """Keeps both. Everything is written as it happens and put together only when somebody asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: OrderedDict[str, Account] = OrderedDict()
        self._models: dict[ModelId, _History] = {}

    def open(self, request: str, model: ModelId, text: str, data: Mapping[str, Any]) -> Account:
        """A request begins to wait. Of several with the same id the last one is remembered."""
        now = self._clock.wall()
        account = Account(request, model, now, Step(now, "asked", text, data))
        if request:
            self._requests[request] = account
            self._requests.move_to_end(request)
            if len(self._requests) > REQUESTS:
                self._requests.popitem(last=False)
        return account

    def follow(
        self, account: Account, granted: Callable[[Lease], None], refused: Callable[[SupervisorError], None]
    ) -> tuple[Callable[[Lease], None], Callable[[SupervisorError], None]]:
        """*granted* and *refused*, and its end is noted before either is called."""

        def leased(lease: Lease) -> None:
            self.close(account, "served")
            granted(lease)

        def denied(error: SupervisorError) -> None:
            self.tell(account.model, "refuse", str(error))
            self.close(account, "refused")
            refused(error)

        return leased, denied

    def close(self, account: Account, outcome: str) -> None:
        """It waits no more."""
        if account.ended is None:
            account.ended = self._clock.wall()
            account.outcome = outcome

    def tell(self, model: ModelId, kind: str, text: str, **data: Any) -> None:
        """Something was decided for *model*, or happened to it. Said twice in a row it is kept once."""
        history = self._models.get(model)
        if history is None:
            history = self._models[model] = _History()
        last = history.steps[-1] if history.steps else None
        if last is None or last.text != text or last.kind != kind:
            history.steps.append(Step(self._clock.wall(), kind, text, data))

    def forget(self, model: ModelId) -> None:
        """It is no longer configured."""
        self._models.pop(model, None)

    def explain(self, request: str) -> Explanation | None:
        """Why that request waited; None when none of that id has, or too many have since."""
        account = self._requests.get(request)
        if account is None:
            return None
        end = account.ended if account.ended is not None else self._clock.wall()
        history = self._models.get(account.model)
        told = history.steps if history is not None else ()
        # What was the case when it came may have been said before, and not again since.
        before = [step for step in told if step.at < account.asked][-1:]
        during = [step for step in told if account.asked <= step.at <= end]
        return Explanation(
            request=account.request,
            model=account.model,
            asked=account.asked,
            waited=end - account.asked,
            outcome=account.outcome,
            steps=(account.first, *(step for step in before if step.kind == "waits"), *during),
        )
