"""Both ends of a hand-over, as far as the fleet goes: letting go, and what is held meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from registry.engine import ModelId
from supervisor.errors import HandedOverError
from supervisor.lifecycle import WITH_TREE
from supervisor.ports import ChildRecord

if TYPE_CHECKING:
    from supervisor.fleet import Supervisor

SETTLE_WITHIN: Final = 10.0
"""Seconds for shims that are being started; what takes longer is found by the successor all the same."""
LOOK_EVERY: Final = 0.02


async def settle(fleet: Supervisor) -> None:
    """Decide nothing from here on, and wait until every tree that is being launched exists."""
    fleet.stop_deciding()
    clock = fleet.world.clock
    deadline = clock.now() + SETTLE_WITHIN
    while clock.now() < deadline and any(
        instance.state in WITH_TREE and instance.record is None for instance in fleet.instances.values()
    ):
        moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        clock.call_later(LOOK_EVERY, partial(moment.set_result, None))
        await moment


def let_go(fleet: Supervisor, returned: Callable[[ModelId], None]) -> dict[ModelId, int]:
    """Stop minding every instance: the trees stay, and nothing that happens to them concerns us any more.

    Those who wait are refused with `HandedOverError`. Returns how many leases are out per model; *returned*
    is called once for each of them when it comes back.
    """
    for model in fleet.pool.models_waited_for():
        fleet.pool.fail(model, HandedOverError(f"{model} is served by another daemon from now on"))
    holding: dict[ModelId, int] = {}
    for instance in fleet.instances.values():
        holding[instance.id] = instance.leases
        instance.let_go(partial(returned, instance.id))
    return holding


class Holds:
    """Leases that another daemon has out on our instances, and trees we only keep because of them."""

    def __init__(self, holding: Mapping[ModelId, int]) -> None:
        self._left = dict(holding)
        self._departing: dict[ModelId, ChildRecord] = {}
        self._counted: set[ModelId] = set()

    def on(self, model: ModelId) -> int:
        """How many are out."""
        return self._left.get(model, 0)

    def keep(self, record: ChildRecord) -> bool:
        """Whether a tree that nobody here wants has to stay until its last lease is back."""
        if self.on(record.model):
            self._departing[record.model] = record
        return record.model in self._departing

    def returned(self, model: ModelId) -> ChildRecord | None:
        """One came back: the tree that may end now, if it was the last on one that nobody wants."""
        left = self._left[model] = self.on(model) - 1
        return self._departing.pop(model, None) if left <= 0 else None

    def count(self, model: ModelId) -> int:
        """How many are out on an instance that was adopted; they count there from now on."""
        self._counted.add(model)
        return self.on(model)

    def counts(self, model: ModelId) -> bool:
        """Whether its instance's leases include one that is out."""
        return model in self._counted and self.on(model) > 0
