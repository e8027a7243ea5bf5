"""The daemon at one moment as JSON: what `/status` and `/api/status` answer. Pure.

The keys are documented here and stable: keys may be added, none is renamed or changes its unit. Times are
Unix seconds where a key ends in `at` or `since`, durations are seconds, sizes are bytes; null is "unknown" or
"does not apply".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

import msgspec

from config.schema import VirtualConfig
from registry.engine import ModelId
from registry.model import Model
from router.control.configuration import ConfigState
from router.control.deps import FrontStats
from router.control.events import Event
from router.metrics import UNUSED, RequestTotals, Use
from supervisor.lifecycle import State
from supervisor.view import DeviceShare, FailureView, FleetView, InstanceView

UNUSABLE: Final = "unusable"
"""State of a model that cannot run here; `problem` says why."""
ENDPOINT: Final = "endpoint"
"""State of a model that a configured endpoint serves."""

RECENT_EVENTS: Final = 30


class ShareStatus(TypedDict):
    """What an instance has of one device."""

    device: str
    """Id of a device of `devices`."""
    reserved_bytes: int
    measured_bytes: int | None


class MemoryStatus(TypedDict):
    """Bytes on all devices together."""

    estimated_bytes: int | None
    """What the registry expects an instance to need."""
    reserved_bytes: int
    """What admission holds for the instance now."""
    measured_bytes: int | None
    """What its process tree was last seen to hold."""
    devices: list[ShareStatus]
    """The same by device: those where it has something reserved or measured."""


class ErrorStatus(TypedDict):
    """Why the last incarnation ended or did not come up."""

    cause: str
    remedy: str
    code: str
    at: float
    incarnation: int


class ProblemStatus(TypedDict):
    """Why a model cannot be served here at all."""

    code: str
    message: str


class ModelStatus(TypedDict):
    """One model: what it is, and how its instance does."""

    id: str
    aliases: list[str]
    source: str
    source_kind: str
    engine: str
    capabilities: list[str]
    context_length: int | None
    size_bytes: int | None
    state: str
    """A state of the lifecycle, or `unusable`, or `endpoint`."""
    since: float | None
    note: str
    progress: float | None
    """0 to 1 while starting."""
    eta_seconds: float | None
    pid: int | None
    port: int | None
    incarnation: int | None
    in_flight: int
    oldest_request_seconds: float
    """Age of the oldest request in flight; 0 when there is none."""
    waiting: int
    oldest_wait_seconds: float
    """How long the first in the queue has waited; 0 when nobody waits."""
    idle_seconds: float | None
    ttl_seconds: float
    """0: never stopped for idleness."""
    keep_alive_seconds: float | None
    """How long it stays instead, because a request said so: 0 goes with its last request, -1 stays for ever;
    null: no request did."""
    pinned: bool
    memory: MemoryStatus
    crashes: int
    starts: int
    retry_in_seconds: float | None
    requests: int
    """Inference requests that named it, since the daemon started."""
    tokens_per_second: float | None
    """How fast one answer comes, over the last 32 served; null when no engine has told."""
    has_log: bool
    last_error: ErrorStatus | None
    problem: ProblemStatus | None


class VirtualStatus(TypedDict):
    """A name that the first of its models answers that can."""

    name: str
    models: list[str]
    """As they are written, best first."""
    prefer: str
    """`order` or `warm`."""
    fallback: list[str]
    """When the next one is asked instead: `failure`, `overload`."""


class Status(TypedDict):
    """Everything."""

    version: str
    pid: int
    listen: list[str]
    at: float
    uptime_seconds: float
    ready: bool
    not_ready_because: str
    """Empty when ready."""
    stopping: bool
    in_flight: int
    waiting: int
    loop_lag_seconds: float
    requests_per_second: float
    """Inference requests that ended, over the last 10 seconds."""
    requests: dict[str, int]
    """`RequestTotals`, since the daemon started."""
    front: dict[str, int]
    """`FrontStats`."""
    devices: list[dict[str, Any]]
    """`DeviceView` each."""
    default_model: str | None
    virtual: list[VirtualStatus]
    """The operator's names that stand for several models, sorted by name."""
    configuration: ConfigState
    models: list[ModelStatus]
    """Everything that can be asked for, sorted by id."""
    instances: list[InstanceView]
    """What the supervisor owns, in its own words."""
    recent_events: list[Event]
    """Newest first; the shape of `/api/events`."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a status is made of, gathered by the caller."""

    version: str
    pid: int
    listen: tuple[str, ...]
    uptime_seconds: float
    fleet: FleetView
    models: Mapping[ModelId, Model]
    totals: RequestTotals
    use: Mapping[str, Use]
    """By model; one that is not in it was never asked."""
    requests_per_second: float
    front: FrontStats
    loop_lag_seconds: float
    events: list[Event]
    default_model: str | None
    configuration: ConfigState
    virtual: Mapping[str, VirtualConfig] = field(default_factory=dict)


def state_of(model: Model, instance: InstanceView | None) -> str:
    """The word `/v1/models`, `/api` and the page show for it."""
    if model.endpoint is not None:
        return ENDPOINT
    if model.problem is not None:
        return UNUSABLE
    return State.STOPPED.value if instance is None else instance.state.value


def not_ready_because(fleet: FleetView, models: Mapping[ModelId, Model]) -> str:
    """Why no request can make progress now; "" when some can."""
    if fleet.stopping:
        return "the daemon is shutting down"
    if not models:
        return "no model is known: add one under `models:` or download one into the Hugging Face cache"
    states = {instance.model: instance for instance in fleet.instances}
    words = {state_of(model, states.get(model.id)) for model in models.values()}
    if words <= {UNUSABLE}:
        first = next(iter(models.values()))
        return f"no model can be served here; {first.id}: {first.problem}"
    if words <= {UNUSABLE, State.FAILED.value, State.BACKOFF.value}:
        return "every model fails to start: see last_error in /api/status"
    return "" if ENDPOINT in words else fleet.hindrance


class Pictures:
    """Draws the status again and again; a model is drawn anew when something about it is.

    Nothing is new about most of hundreds, and drawing them all takes longer than a token may wait. What was
    drawn once is in many pictures: it is for reading. Threads may draw at the same time.
    """

    def __init__(self) -> None:
        self._drawn: Mapping[ModelId, _Drawn] = {}
        """Replaced by each drawing, never changed."""

    def draw(self, moment: Moment) -> Status:
        """The whole picture; equal to what is drawn without any before it."""
        before = self._drawn
        views = {view.model: view for view in moment.fleet.instances}
        drawn: dict[ModelId, _Drawn] = {}
        for name, model in sorted(moment.models.items()):
            view, use, known = views.get(name), moment.use.get(name, UNUSED), before.get(name)
            if known is None or known.model is not model or known.view is not view or known.use != use:
                known = _Drawn(model, view, use, model_status(model, view, use))
            drawn[name] = known
        self._drawn = drawn
        return _status(moment, [one.status for one in drawn.values()])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One model's part, and what it was drawn from."""

    model: Model
    view: InstanceView | None
    use: Use
    status: ModelStatus


def _status(moment: Moment, models: list[ModelStatus]) -> Status:
    fleet = moment.fleet
    because = not_ready_because(fleet, moment.models)
    return Status(
        version=moment.version,
        pid=moment.pid,
        listen=list(moment.listen),
        at=fleet.at,
        uptime_seconds=moment.uptime_seconds,
        ready=not because,
        not_ready_because=because,
        stopping=fleet.stopping,
        in_flight=sum(instance.leases for instance in fleet.instances),
        waiting=fleet.waiting,
        loop_lag_seconds=moment.loop_lag_seconds,
        requests_per_second=moment.requests_per_second,
        requests=msgspec.to_builtins(moment.totals),
        front=msgspec.to_builtins(moment.front),
        devices=[msgspec.to_builtins(device) for device in fleet.devices],
        default_model=moment.default_model,
        virtual=[
            VirtualStatus(name=name, models=list(one.models), prefer=one.prefer, fallback=list(one.fallback))
            for name, one in sorted(moment.virtual.items())
        ],
        configuration=moment.configuration,
        models=models,
        instances=list(fleet.instances),
        recent_events=moment.events,
    )


def model_status(model: Model, instance: InstanceView | None, use: Use) -> ModelStatus:
    """One model with its instance; one without an instance is shown as stopped."""
    facts, view = model.facts, instance
    return ModelStatus(
        id=model.id,
        aliases=list(model.aliases),
        source=model.source,
        source_kind=model.source_kind.value,
        engine=model.engine.value,
        capabilities=sorted(capability.value for capability in model.capabilities),
        context_length=facts.context_length.value,
        size_bytes=facts.size_bytes.value,
        state=state_of(model, view),
        since=None if view is None else view.since,
        note="" if view is None else view.note,
        progress=None if view is None else view.progress,
        eta_seconds=None if view is None else view.eta_seconds,
        pid=None if view is None else view.pid,
        port=None if view is None else view.port,
        incarnation=None if view is None else view.incarnation,
        in_flight=0 if view is None else view.leases,
        oldest_request_seconds=0.0 if view is None else view.oldest_lease_seconds,
        waiting=0 if view is None else view.waiting,
        oldest_wait_seconds=0.0 if view is None else view.oldest_wait_seconds,
        idle_seconds=None if view is None else view.idle_seconds,
        ttl_seconds=model.ttl if view is None else view.ttl,
        keep_alive_seconds=None if view is None else view.keep_alive,
        pinned=model.pin if view is None else view.pinned,
        memory=MemoryStatus(
            estimated_bytes=model.footprint.total or None,
            reserved_bytes=0 if view is None else view.reserved_bytes,
            measured_bytes=None if view is None else view.measured_bytes,
            devices=[] if view is None else [_share(share) for share in view.shares],
        ),
        crashes=0 if view is None else view.crashes,
        starts=0 if view is None else view.starts,
        retry_in_seconds=None if view is None else view.retry_in_seconds,
        requests=use.requests,
        tokens_per_second=use.tokens_per_second,
        has_log=view is not None and view.log is not None,
        last_error=None if view is None else _failure(view.last_failure),
        problem=_problem(model),
    )


def _share(share: DeviceShare) -> ShareStatus:
    return ShareStatus(
        device=share.device, reserved_bytes=share.reserved_bytes, measured_bytes=share.measured_bytes
    )


def _failure(failure: FailureView | None) -> ErrorStatus | None:
    if failure is None:
        return None
    return ErrorStatus(
        cause=failure.cause,
        remedy=failure.remedy,
        code=failure.code,
        at=failure.at,
        incarnation=failure.incarnation,
    )


def _problem(model: Model) -> ProblemStatus | None:
    if model.problem is None:
        return None
    return ProblemStatus(code=model.problem.code, message=str(model.problem))
