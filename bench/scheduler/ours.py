"""Our supervisor on a trace: the real admission, pool, lifecycle and fleet, on the fakes of the tests."""

from __future__ import annotations

from functools import partial

from bench.scheduler.outcome import Outcome, outcome_of
from bench.scheduler.traces import GIB, STOP_SECONDS, Trace
from registry.engine import ModelId
from supervisor.policy import Policy
from supervisor.pool import InstanceLease
from supervisor.ports import EventKind
from tests.support.fakes import FakeWorld, Fleet, Script, make_model

POLICY = Policy(request_timeout=1e9, queue_per_model=10**6, queue_total=10**6)
"""The defaults; but nobody is refused here: who waits too long must show in the figures."""

NAME = "modelyard"


class _Run:
    def __init__(self, trace: Trace, policy: Policy) -> None:
        self.trace = trace
        self.fake = FakeWorld(budget=int(trace.budget_gib * GIB))
        models = tuple(make_model(model.name, size=int(model.gib * GIB)) for model in trace.models)
        for model in trace.models:
            script = Script(ready_after=model.load - Script().spawn_after, stop_takes=STOP_SECONDS)
            self.fake.scripts[ModelId(model.name)] = [script]
        self.fleet = Fleet(models, policy, self.fake)
        self.begin = self.fake.clock.now()
        self.waits: list[float | None] = [None] * len(trace.arrivals)
        self.ahead = [0] * len(trace.arrivals)

    def until(self, at: float) -> None:
        self.fleet.advance(max(self.begin + at - self.fake.clock.now(), 0.0))

    def arrive(self, number: int) -> None:
        supervisor = self.fleet.supervisor
        model = ModelId(self.trace.models[self.trace.arrivals[number][1]].name)
        self.ahead[number] = sum(1 for other in supervisor.pool.models_waited_for() if other != model)
        lease = supervisor.lease_now(model)
        if lease is not None:
            self.granted(number, lease)
        else:
            supervisor.ask(model, granted=partial(self.granted, number), refused=_never)

    def granted(self, number: int, lease: InstanceLease) -> None:
        at, _, service = self.trace.arrivals[number]
        self.waits[number] = max(self.fake.clock.now() - self.begin - at, 0.0)
        self.fake.clock.call_later(service, lambda: lease.release("served"))


def run_ours(trace: Trace, policy: Policy = POLICY) -> Outcome:
    """*trace* as our scheduler serves it."""
    run = _Run(trace, policy)
    for number, (at, _, _) in enumerate(trace.arrivals):
        run.until(at)
        run.arrive(number)
    run.until(trace.end)
    seconds = {model.name: model.load for model in trace.models}
    loads = [seconds[event.model] for event in run.fake.events if event.kind is EventKind.SPAWNED]
    return outcome_of(NAME, trace, run.waits, run.ahead, loads=len(loads), loading=sum(loads))


def _never(error: Exception) -> None:
    raise AssertionError(f"nobody is refused here: {error}")
