"""What was measured on llama-swap, as far as it is the scheduler's doing: here it must not happen."""

from __future__ import annotations

from registry.engine import ModelId
from supervisor.errors import ModelFailedError
from tests.support.fakes import GIB, FakeWorld, Fleet, Request, Script, make_model

A, B = ModelId("a"), ModelId("b")


def test_four_clients_that_keep_a_busy_do_not_keep_b_unanswered() -> None:
    models = (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    clients: list[Request] = [fleet.request("a") for _ in range(4)]
    fleet.advance(5)
    asked_for_b = fleet.request("b")
    seconds, answered = 0.0, 0
    while asked_for_b.open and seconds < 600:
        for number, client in enumerate(clients):
            fleet.advance(0.5)
            seconds += 0.5
            if client.lease is not None:
                client.done()
                answered += 1
            if not client.open:
                clients[number] = fleet.request("a")
    assert asked_for_b.lease is not None
    assert seconds <= fleet.policy.max_wait + 10
    assert answered > 100, "and a was served all the while"
    asked_for_b.done()
    fleet.advance(30)
    assert all(client.lease is not None for client in clients), "a is served again"


def test_ten_requests_to_a_model_that_exits_at_start_cause_one_spawn() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=0.3, tail=("unrecognized argument",))]
    at_once = [fleet.request("a") for _ in range(10)]
    fleet.advance(1)
    assert fleet.fake.spawns == 1
    for request in at_once:
        assert isinstance(request.error, ModelFailedError)
        assert "unrecognized argument" in str(request.error)
    following = [fleet.request("a") for _ in range(10)]
    assert fleet.fake.spawns == 1, "it backs off: those who come now are told at once, and when to come back"
    for request in following:
        assert isinstance(request.error, ModelFailedError)
        assert request.error.retry_after is not None


def test_a_victim_that_ignores_term_delays_only_whoever_needs_its_memory() -> None:
    models = (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB), make_model("c", size=4 * GIB))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.fake.scripts[A] = [Script(ignores_term=True)]
    first = fleet.request("a")
    fleet.advance(5)
    first.done()
    fleet.advance(20)
    waits_for_a = fleet.request("b")
    fleet.advance(1)
    assert fleet.state("a") == "stopping"
    beside = fleet.request("c")
    fleet.advance(5)
    assert beside.lease is not None
    assert waits_for_a.open
    fleet.advance(30)
    assert waits_for_a.lease is not None


def test_nothing_is_started_before_the_memory_of_the_one_before_is_back() -> None:
    models = (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.fake.scripts[A] = [Script(stop_takes=6)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(20)
    fleet.request("b")
    fleet.advance(5.9)
    assert fleet.fake.spawns == 1
    fleet.advance(0.2)
    assert fleet.fake.spawns == 2
