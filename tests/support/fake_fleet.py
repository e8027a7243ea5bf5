"""A fleet for tests of the control app: `supervisor.view.Fleet` by a script, without a supervisor behind it.

It keeps the promises that control relies on: views are frozen, `load` answers when the instance is ready or
raises a `SupervisorError`, a caller that gives up changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from config.vocabulary import EngineName
from registry.engine import HOST, ModelId
from supervisor.errors import SupervisorError
from supervisor.lifecycle import State
from supervisor.ports import Clock
from supervisor.view import DeviceShare, DeviceView, Explanation, FleetView, InstanceView

GIB = 2**30


def instance_view(model: str, state: State = State.STOPPED, *, at: float = 1.7e9) -> InstanceView:
    """An instance in *state* with plausible values; change it with `dataclasses.replace`."""
    runs = state in (State.STARTING, State.READY, State.DRAINING, State.STOPPING)
    return InstanceView(
        model=ModelId(model),
        engine=EngineName.MLX_LM,
        state=state,
        incarnation=1 if runs else 0,
        pid=4000 if runs else None,
        port=41000 if runs else None,
        since=at,
        leases=0,
        oldest_lease_seconds=0.0,
        waiting=0,
        oldest_wait_seconds=0.0,
        note="",
        progress=None,
        eta_seconds=None,
        idle_seconds=0.0 if state is State.READY else None,
        ttl=600.0,
        pinned=False,
        reserved_bytes=2 * GIB if runs else 0,
        measured_bytes=GIB if runs else None,
        shares=(DeviceShare(HOST, 2 * GIB, GIB),) if runs else (),
        crashes=0,
        starts=int(runs),
        retry_in_seconds=None,
        last_failure=None,
        log=None,
    )


@dataclass(frozen=True, slots=True)
class Call:
    """What the fleet was asked to do."""

    verb: str
    model: str
    force: bool = False
    timeout: float | None = None


class FakeFleet:
    """`Fleet`, scripted. Loads are immediate unless the model is in `slow` or has an error in `fails`."""

    def __init__(self, clock: Clock, *views: InstanceView) -> None:
        self._clock = clock
        self._views = {view.model: view for view in views}
        self.devices: tuple[DeviceView, ...] = (
            DeviceView(HOST, "RAM", 32 * GIB, 24 * GIB, 2 * GIB, 8 * GIB, 24 * GIB),
        )
        self.waiting = 0
        self.stopping = False
        self.hindrance = ""
        self.slow: set[str] = set()
        """Models whose load waits for `finish`."""
        self.fails: dict[str, SupervisorError] = {}
        self.calls: list[Call] = []
        self.explanations: dict[str, Explanation] = {}
        self.waits = 0
        """Callers that wait for a slow load now."""
        self._finished: dict[ModelId, asyncio.Event] = {}

    def put(self, view: InstanceView) -> None:
        """Replace a model's instance."""
        self._views[view.model] = view

    def set(self, model: str, state: State) -> None:
        """Move a model's instance to *state*."""
        self.put(replace(self._views[ModelId(model)], state=state, since=self._clock.wall()))

    def finish(self, model: str) -> None:
        """A slow load is ready."""
        self.set(model, State.READY)
        self._finished.setdefault(ModelId(model), asyncio.Event()).set()

    # -- Fleet

    def view(self) -> FleetView:
        """The fleet now."""
        instances = tuple(view for _, view in sorted(self._views.items()))
        return FleetView(
            self._clock.wall(), instances, self.devices, self.waiting, self.stopping, self.hindrance
        )

    def instance(self, model: ModelId) -> InstanceView | None:
        """One of it."""
        return self._views.get(model)

    def explain(self, request: str) -> Explanation | None:
        """What was put into `explanations`."""
        return self.explanations.get(request)

    async def load(self, model: ModelId, *, timeout: float | None = None) -> InstanceView:
        """Ready at once, later, or never, as scripted."""
        self.calls.append(Call("load", model, timeout=timeout))
        if model in self.fails:
            raise self.fails[model]
        if model in self.slow:
            self.set(model, State.STARTING)
            self.waits += 1
            try:
                await self._finished.setdefault(model, asyncio.Event()).wait()
            finally:
                self.waits -= 1
        else:
            self.set(model, State.READY)
        return self._views[model]

    def pin(self, model: ModelId, *, pinned: bool) -> InstanceView:
        """Remember it."""
        self._views[model] = replace(self._views[model], pinned=pinned)
        return self._views[model]

    async def unload(self, model: ModelId, *, force: bool = False) -> InstanceView:
        """Stopped at once."""
        self.calls.append(Call("unload", model, force=force))
        self.set(model, State.STOPPED)
        return self._views[model]
