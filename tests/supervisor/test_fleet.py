"""The real supervisor on fakes and a fake clock: what a request sees, and what it costs."""

from __future__ import annotations

import asyncio

from registry.engine import HOST, DeviceId, ModelId
from supervisor.errors import (
    ModelFailedError,
    ModelTooLargeError,
    QueueFullError,
    WaitTimeoutError,
)
from supervisor.policy import Policy
from supervisor.ports import EventKind
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

A, B = ModelId("a"), ModelId("b")


def test_the_first_request_starts_the_model_and_is_served_when_it_is_ready() -> None:
    fleet = Fleet((make_model("a"),))
    first = fleet.request("a")
    assert fleet.state("a") == "starting"
    fleet.advance(3.9)
    assert first.open
    fleet.advance(0.2)
    assert first.lease is not None
    assert first.lease.port == 40001
    assert fleet.fake.transcript == ["launch a/1", "ready a/1"]


def test_ten_clients_cause_one_start_and_one_that_leaves_does_not_stop_it() -> None:
    fleet = Fleet((make_model("a"),))
    requests = [fleet.request("a") for _ in range(10)]
    leaver = requests[0].waiter
    assert leaver is not None
    leaver.cancel()
    fleet.advance(5)
    assert fleet.fake.spawns == 1
    assert requests[0].open
    assert all(request.lease is not None for request in requests[1:])
    assert fleet.supervisor.instances[A].leases == 9


def test_a_start_that_nobody_waits_for_any_more_completes_and_then_idles() -> None:
    fleet = Fleet((make_model("a", ttl=60),))
    waiter = fleet.request("a").waiter
    assert waiter is not None
    waiter.cancel()
    fleet.advance(5)
    assert fleet.state("a") == "ready"
    fleet.advance(61)
    assert fleet.state("a") == "stopped"


def test_a_warm_request_gets_its_lease_at_once() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.request("a")
    fleet.advance(5)
    assert fleet.supervisor.lease_now(A) is not None


def test_a_word_about_work_it_has_needs_no_free_slot_but_that_very_process() -> None:
    fleet = Fleet((make_model("a", concurrency=1),))
    pool = fleet.supervisor.pool
    assert pool.lease_of(A, 1) is None, "nothing is started for it"
    assert fleet.state("a") == "stopped"
    fleet.request("a")
    fleet.advance(5)
    pid = fleet.child("a").record.pid
    assert fleet.supervisor.lease_now(A) is None, "its slot is taken"
    lease = pool.lease_of(A, pid)
    assert lease is not None
    lease.release("served")
    assert pool.lease_of(A, pid + 1) is None


def test_an_idle_instance_makes_room_and_starts_only_when_the_memory_is_back() -> None:
    fleet = Fleet(
        (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB)), fake=FakeWorld(budget=20 * GIB)
    )
    first = fleet.request("a")
    fleet.advance(20)
    first.done()
    second = fleet.request("b")
    assert fleet.state("a") == "stopping"
    assert fleet.state("b") == "stopped"
    fleet.advance(10)
    assert second.lease is not None
    assert fleet.fake.transcript == ["launch a/1", "ready a/1", "exit a/1", "launch b/1", "ready b/1"]


def test_a_busy_instance_is_not_killed_for_another_and_the_other_waits() -> None:
    fleet = Fleet(
        (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB)), fake=FakeWorld(budget=20 * GIB)
    )
    first = fleet.request("a")
    fleet.advance(10)
    second = fleet.request("b")
    fleet.advance(30)
    assert fleet.state("a") == "ready"
    assert fleet.supervisor.phase(B) == "waiting for memory: a in use"
    first.done()
    fleet.advance(10)
    assert second.lease is not None


def test_steady_traffic_to_one_model_cannot_starve_another() -> None:
    fleet = Fleet(
        (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB)), fake=FakeWorld(budget=20 * GIB)
    )
    holder = fleet.request("a")
    fleet.advance(5)
    starved = fleet.request("b")
    served = 0
    while starved.open and served < 500:
        following = fleet.request("a")  # the next one always comes before the last has gone
        fleet.advance(1)
        if holder.lease is not None:
            holder.done()
        holder = following
        served += 1
    assert starved.lease is not None
    assert served < 90
    starved.done()
    fleet.advance(30)
    assert holder.lease is not None, "and a's own waiters are served after b"


def test_a_model_that_can_never_fit_is_refused_at_once_with_the_numbers() -> None:
    fleet = Fleet((make_model("a", size=30 * GIB),), fake=FakeWorld(budget=20 * GIB))
    request = fleet.request("a")
    assert isinstance(request.error, ModelTooLargeError)
    assert "needs 30.0 GiB on host, whose budget is 20.0 GiB" in str(request.error)
    assert fleet.fake.spawns == 0


def test_a_failed_start_answers_with_the_cause_and_is_not_repeated_by_every_request() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=0.5, tail=("x", "ValueError: bad weights"))]
    spawns_after = []
    for _ in range(60):
        request = fleet.request("a")
        fleet.advance(1)
        assert isinstance(request.error, ModelFailedError)
        assert "ValueError: bad weights" in str(request.error)
        assert request.error.retry_after is not None
        spawns_after.append(fleet.fake.spawns)
    assert spawns_after[0] == 1
    assert spawns_after[-1] <= 5


def test_a_crash_loop_fails_the_model_and_one_try_is_allowed_later() -> None:
    fleet = Fleet((make_model("a"),), policy=Policy(crash_limit=3))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=0.1)] * 3 + [Script()]
    for _ in range(60):
        fleet.request("a")
        fleet.advance(1)
    assert fleet.state("a") == "failed"
    assert fleet.fake.spawns == 3
    fleet.advance(300)
    last = fleet.request("a")
    fleet.advance(5)
    assert last.lease is not None


def test_one_more_failure_in_the_half_open_try_fails_it_again() -> None:
    fleet = Fleet((make_model("a"),), policy=Policy(crash_limit=2, crash_window=30))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=0.1)]
    for _ in range(20):
        fleet.request("a")
        fleet.advance(1)
    assert fleet.state("a") == "failed"
    fleet.advance(300)
    assert fleet.state("a") == "stopped"
    fleet.request("a")
    fleet.advance(1)
    assert fleet.state("a") == "failed"


def test_a_crash_under_load_brings_it_back_at_once_for_those_who_wait() -> None:
    fleet = Fleet((make_model("a"),))
    running = fleet.request("a")
    fleet.advance(5)
    fleet.child("a").crash()
    fleet.advance(0)
    running.done("upstream_failed")
    retry = fleet.request("a")
    assert retry.open
    fleet.advance(5)
    assert retry.lease is not None
    assert retry.lease.port == 40002
    assert fleet.fake.spawns == 2


def test_a_request_that_fails_before_the_exit_is_known_is_not_sent_to_the_dead_again() -> None:
    fleet = Fleet((make_model("a"),))
    running = fleet.request("a")
    fleet.advance(5)
    child = fleet.child("a")
    child.crash()  # its news are still on the way
    running.done("upstream_failed")
    retry = fleet.request("a")
    assert retry.open, "in doubt: nobody is sent there before it has proved itself"
    fleet.advance(5)
    assert retry.lease is not None
    assert retry.lease.port == 40002


def test_a_doubted_instance_that_proves_itself_serves_on() -> None:
    fleet = Fleet((make_model("a"),))
    running = fleet.request("a")
    fleet.advance(5)
    running.done("upstream_failed")
    assert fleet.state("a") == "starting"
    again = fleet.request("a")
    fleet.advance(0.1)
    assert again.lease is not None
    assert again.lease.port == 40001
    assert fleet.fake.spawns == 1


def test_a_hanging_start_is_ended_blamed_and_counted() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=None, not_ready_after=30, tail=("loading shard 3",))]
    request = fleet.request("a")
    fleet.advance(31)
    assert isinstance(request.error, ModelFailedError)
    assert "scripted stall; it said: loading shard 3" in str(request.error)
    assert fleet.state("a") == "backoff"
    assert fleet.fake.live == []


def test_a_port_that_was_taken_is_replaced_without_failing_anybody() -> None:
    fleet = Fleet((make_model("a"),))
    from registry.engine import Diagnosis

    object.__setattr__(fleet.fake.world, "diagnose", lambda m, r: Diagnosis("in use", code="port_taken"))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=0.1), Script(ready_after=1)]
    request = fleet.request("a")
    fleet.advance(2)
    assert request.lease is not None
    assert request.lease.port == 40002
    assert fleet.supervisor.instances[A].crashes.count(fleet.fake.clock.now()) == 0


def test_a_stranger_on_the_port_costs_nobody_an_answer() -> None:
    fleet = Fleet((make_model("a"),))
    stranger = Script(ready_after=None, not_ready_after=0.5, not_ready_code="port_taken")
    fleet.fake.scripts[A] = [stranger, stranger, Script(ready_after=1)]
    request = fleet.request("a")
    fleet.advance(5)
    assert request.lease is not None
    assert request.lease.port == 40003


def test_a_port_that_is_taken_again_and_again_fails_the_start() -> None:
    fleet = Fleet((make_model("a"),), policy=Policy(port_retries=2))
    fleet.fake.scripts[A] = [Script(ready_after=None, not_ready_after=0.5, not_ready_code="port_taken")]
    request = fleet.request("a")
    fleet.advance(4)
    assert isinstance(request.error, ModelFailedError)
    assert fleet.fake.spawns == 3


def test_a_child_that_ignores_term_is_gone_after_the_grace() -> None:
    fleet = Fleet((make_model("a", ttl=10),))
    fleet.fake.scripts[A] = [Script(ignores_term=True)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5 + 10)
    assert fleet.state("a") == "stopping"
    fleet.advance(21)
    assert fleet.state("a") == "stopped"
    assert fleet.fake.ports_out == set()


def test_idle_means_no_lease_and_nobody_waiting() -> None:
    fleet = Fleet((make_model("a", ttl=60),))
    request = fleet.request("a")
    fleet.advance(500)
    assert fleet.state("a") == "ready"
    request.done()
    fleet.advance(59)
    assert fleet.state("a") == "ready"
    fleet.advance(62)
    assert fleet.state("a") == "stopped"
    assert [e.model for e in fleet.fake.events if e.kind is EventKind.REAPED] == ["a"]


def test_a_request_that_comes_while_it_stops_starts_it_again_afterwards() -> None:
    fleet = Fleet((make_model("a", ttl=10),))
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(4.05 + 10)
    assert fleet.state("a") == "stopping"
    request = fleet.request("a")
    fleet.advance(10)
    assert request.lease is not None
    assert fleet.fake.transcript == ["launch a/1", "ready a/1", "exit a/1", "launch a/2", "ready a/2"]


def test_a_concurrency_limit_queues_in_order_and_lets_nobody_overtake() -> None:
    fleet = Fleet((make_model("a", concurrency=1),))
    first, second, third = (fleet.request("a") for _ in range(3))
    fleet.advance(5)
    assert first.lease is not None
    assert (second.open, third.open) == (True, True)
    first.done()
    assert second.lease is not None
    late = fleet.request("a")
    assert late.open
    second.done()
    assert third.lease is not None
    assert late.open


def test_queues_are_bounded_per_model_and_in_all() -> None:
    fleet = Fleet((make_model("a"), make_model("b")), policy=Policy(queue_per_model=2, queue_total=3))
    waiting = [fleet.request("a"), fleet.request("a"), fleet.request("b")]
    assert all(request.open for request in waiting)
    refused = [fleet.request("a"), fleet.request("b")]
    assert all(isinstance(request.error, QueueFullError) for request in refused)


def test_a_wait_ends_at_its_deadline_and_says_in_which_phase() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=None)]
    request = fleet.request("a", timeout=30)
    fleet.advance(31)
    assert isinstance(request.error, WaitTimeoutError)
    assert "loading a" in str(request.error)


def test_a_lease_released_twice_counts_once() -> None:
    fleet = Fleet((make_model("a"),))
    request = fleet.request("a")
    fleet.advance(5)
    request.done()
    request.done()
    assert fleet.supervisor.instances[A].leases == 0


def test_a_cancelled_wait_gives_back_a_lease_that_had_just_come() -> None:
    fleet = Fleet((make_model("a"),))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(fleet.supervisor.lease(A))
        await loop.run_in_executor(None, lambda: None)
        fleet.advance(5)  # granted: the future has its result, the task has not run yet
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(scenario())
    assert fleet.supervisor.instances[A].leases == 0


def test_the_measured_peak_is_reserved_from_the_second_start_on() -> None:
    fleet = Fleet((make_model("a", size=10 * GIB),))
    fleet.fake.scripts[A] = [Script(uses=4 * GIB)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    assert fleet.supervisor.instances[A].reserved == {HOST: 10 * GIB}
    fleet.supervisor.instances[A].stop()
    fleet.advance(5)
    fleet.request("a")
    fleet.advance(5)
    assert fleet.supervisor.instances[A].reserved == {HOST: int(4 * GIB * 1.05)}


def test_memory_that_was_measured_where_nobody_expected_it_is_reserved_there() -> None:
    gpu = DeviceId("gpu0")
    fleet = Fleet((make_model("a", size=2 * GIB),), fake=FakeWorld(devices={HOST: 20 * GIB, gpu: 20 * GIB}))
    fleet.fake.scripts[A] = [Script(uses=4 * GIB, uses_of=gpu)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    fleet.supervisor.instances[A].stop()
    fleet.advance(5)
    fleet.request("a")
    fleet.advance(5)
    assert fleet.supervisor.instances[A].reserved == {HOST: 2 * GIB, gpu: int(4 * GIB * 1.05)}


def test_what_the_operator_says_a_model_needs_is_not_replaced_by_what_was_measured() -> None:
    fleet = Fleet((make_model("a", size=10 * GIB, given=True),))
    fleet.fake.scripts[A] = [Script(uses=4 * GIB)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    fleet.supervisor.instances[A].stop()
    fleet.advance(5)
    fleet.request("a")
    fleet.advance(5)
    assert fleet.supervisor.instances[A].reserved == {HOST: 10 * GIB}


def test_progress_and_eta_come_from_what_the_last_start_took() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.request("a")
    assert fleet.supervisor.phase(A) == "loading a: starting"
    fleet.advance(5)
    fleet.supervisor.instances[A].stop(drain_grace=0)
    fleet.advance(5)
    fleet.request("a")
    fleet.advance(1.01)
    assert fleet.supervisor.phase(A).startswith("loading a 25% eta 3s")


def test_a_model_pinned_by_hand_is_neither_reaped_nor_evicted_until_it_is_let_go() -> None:
    models = (make_model("a", size=15 * GIB, ttl=60), make_model("b", size=15 * GIB))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    assert fleet.supervisor.pin(A, pinned=True).pinned
    other = fleet.request("b")
    assert isinstance(other.error, ModelTooLargeError), "waiting would be waiting for the operator"
    assert "where a (15.0 GiB) is pinned" in str(other.error)
    fleet.advance(120)
    assert fleet.state("a") == "ready"
    assert not fleet.supervisor.pin(A, pinned=False).pinned
    other = fleet.request("b")
    fleet.advance(10)
    assert other.lease is not None


def test_views_show_what_is() -> None:
    fleet = Fleet((make_model("a"), make_model("b")))
    fleet.request("a")
    fleet.advance(5)
    view = fleet.supervisor.view()
    assert [(i.model, i.state.value, i.leases) for i in view.instances] == [
        ("a", "ready", 1),
        ("b", "stopped", 0),
    ]
    assert view.devices[0].reserved_bytes == 10 * GIB
    device = view.devices[0].id
    assert [(share.device, share.reserved_bytes) for share in view.instances[0].shares] == [
        (device, 10 * GIB)
    ]
    assert view.instances[1].shares == ()
