"""Seeded worlds: random models, arrivals, crashes, hung starts, disconnects and reloads on the fake clock.

The real admission, pool, lifecycle and fleet run; after every event the invariants of the design are checked,
and at the end every request must have been answered and nothing may be left. A failure prints the seed.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from registry.engine import ModelId
from supervisor.errors import SupervisorError
from supervisor.lifecycle import WITH_TREE, State
from supervisor.policy import Policy
from supervisor.ports import EventKind
from tests.support.fakes import GIB, FakeWorld, Fleet, Request, Script, make_model

POLICY = Policy(
    max_wait=20, request_timeout=300, min_residency=5, drain_grace=30, queue_per_model=20, queue_total=60
)


class Simulation:
    """One world from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = [f"m{n}" for n in range(self.random.randint(2, 6))]
        self.fake = FakeWorld(budget=20 * GIB)
        models = tuple(
            make_model(
                name,
                size=self.random.randint(1, 22) * GIB,
                ttl=self.random.choice([0, 15, 60]),
                pin=self.random.random() < 0.05,
                preload=self.random.random() < 0.1,
                concurrency=self.random.choice([None, None, 1, 3]),
                alone=self.random.random() < 0.2,
            )
            for name in self.names
        )
        for name in self.names:
            self.fake.scripts[ModelId(name)] = [self._script() for _ in range(60)]
        self.fleet = Fleet(models, POLICY, self.fake)
        self.requests: list[Request] = []
        self.abandoned: set[int] = set()

    def _script(self) -> Script:
        dice = self.random.random()
        ready = self.random.choice([0.1, 1, 4, 12])
        if dice < 0.08:
            return Script(ready_after=None, exit_after=self.random.uniform(0.01, 10))
        if dice < 0.12:
            return Script(ready_after=None, not_ready_after=self.random.uniform(0.01, 25))
        if dice < 0.16:
            return Script(spawn_fails="fork: out of memory")
        if dice < 0.26:
            return Script(ready_after=ready, exit_after=ready + self.random.uniform(0, 20))
        return Script(
            ready_after=ready,
            ignores_term=self.random.random() < 0.1,
            stop_takes=self.random.choice([0.01, 0.5, 3]),
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()
            self._check()
        self._wind_up()

    def _step(self) -> None:
        dice = self.random.random()
        leased = [r for r in self.requests if r.lease is not None and id(r) not in self.abandoned]
        waiting = [r for r in self.requests if r.open and id(r) not in self.abandoned]
        if dice < 0.35:
            self.requests.append(self.fleet.request(self.random.choice(self.names)))
        elif dice < 0.6 and leased:
            self._give_back(self.random.choice(leased))
        elif dice < 0.65 and waiting:
            request = self.random.choice(waiting)
            assert request.waiter is not None
            request.waiter.cancel()
            self.abandoned.add(id(request))
        elif dice < 0.68 and self.fake.live:
            self.random.choice(self.fake.live).crash()
        elif dice < 0.7:
            self.fleet.supervisor.instances[ModelId(self.random.choice(self.names))].stop(drain_grace=5)
        else:
            self.fleet.advance(self.random.choice([0, 0.01, 0.5, 2, 8]))

    def _give_back(self, request: Request) -> None:
        request.done(self.random.choice(["served", "served", "served", "client_gone", "upstream_failed"]))
        self.abandoned.add(id(request))

    def _check(self) -> None:
        supervisor = self.fleet.supervisor
        live = Counter(child.record.model for child in self.fake.live)
        assert all(count == 1 for count in live.values()), f"I1: {live}"
        reserved = sum(sum(i.reserved.values()) for i in supervisor.instances.values())
        assert reserved <= 20 * GIB, "I2"
        for instance in supervisor.instances.values():
            held = instance.state in WITH_TREE
            assert held or not instance.reserved, f"I8: {instance} holds memory without a tree"
            mine = [r for r in self.requests if r.model == instance.id and r.lease is not None]
            out = sum(1 for r in mine if id(r) not in self.abandoned)
            assert instance.leases == out, f"I8: {instance} counts {instance.leases} leases, {out} are out"
        waiting = sum(1 for r in self.requests if r.open and id(r) not in self.abandoned)
        assert supervisor.pool.waiting == waiting, "I4: a waiter is counted wrongly"
        assert not [e for e in self.fake.events if e.kind is EventKind.BUG], "an illegal event"

    def _wind_up(self) -> None:
        """No more arrivals: everybody who waits is answered within the bound, leases coming back or not."""
        for _ in range(400):
            for request in self.requests:
                if request.lease is not None and id(request) not in self.abandoned:
                    self._give_back(request)
            if not any(r.open and id(r) not in self.abandoned for r in self.requests):
                break
            self.fleet.advance(1)
            self._check()
        left = [r for r in self.requests if r.open and id(r) not in self.abandoned]
        assert not left, f"I4/I5: never answered: {[r.model for r in left]}"
        for instance in self.fleet.supervisor.instances.values():
            instance.stop(drain_grace=0)
        self.fleet.advance(120)
        for instance in self.fleet.supervisor.instances.values():
            instance.stop(drain_grace=0)
        self.fleet.advance(120)
        assert self.fake.live == []
        assert self.fake.ports_out == set()
        assert self.fake.journal_children == {}
        assert {i.state for i in self.fleet.supervisor.instances.values()} == {State.STOPPED}


@pytest.mark.parametrize("seed", range(120))
def test_no_invariant_breaks_in_any_seeded_world(seed: int) -> None:
    Simulation(seed).run(250)


def test_refusals_are_supervisor_errors_with_a_code() -> None:
    simulation = Simulation(7)
    simulation.run(250)
    errors = [request.error for request in simulation.requests if request.error is not None]
    assert errors
    assert all(isinstance(error, SupervisorError) and error.code for error in errors)
