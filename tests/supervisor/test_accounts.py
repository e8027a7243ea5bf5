"""What is remembered of a request that waited."""

from __future__ import annotations

from registry.engine import HOST, ModelId
from supervisor import accounts
from supervisor.accounts import Accounts
from tests.support.fakes import GIB, FakeClock, FakeWorld, Fleet, Script, make_model

A, B = ModelId("a"), ModelId("b")


def two_that_do_not_fit() -> Fleet:
    models = (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB))
    return Fleet(models, fake=FakeWorld(budget=20 * GIB))


def test_a_request_is_told_who_was_in_its_way_and_what_was_stopped_for_it() -> None:
    fleet = two_that_do_not_fit()
    first = fleet.request("a")
    fleet.advance(20)
    waits = fleet.request("b", named="req-1")
    fleet.advance(10)
    now = fleet.supervisor.explain("req-1")
    assert now is not None
    assert (now.outcome, now.waited) == ("waiting", 10.0)
    first.done()
    fleet.advance(10)
    assert waits.lease is not None
    found = fleet.supervisor.explain("req-1")
    assert found is not None
    assert (found.model, found.outcome) == (B, "served")
    assert 14 < found.waited < 15
    assert [step.kind for step in found.steps] == ["asked", "waits", "evict", "waits", "start", "ready"]
    assert (
        found.steps[0].text
        == "b is not running; it needs 15.0 GiB on host, where 5.0 GiB of 20.0 GiB are free"
    )
    assert found.steps[0].data["free_bytes"] == {HOST: 5 * GIB}
    assert found.steps[1].text == "waiting for memory: a in use"
    assert found.steps[2].text == (
        "a is stopped for b: idle for 0 s, holds 15.0 GiB on host, takes 4 s to bring back, "
        "was asked 0.1 times a minute"
    )
    assert found.steps[2].data["frees_bytes"] == {HOST: 15 * GIB}
    assert found.steps[4].text == "started, with 15.0 GiB on host set aside"
    assert found.steps[5].text == "ready, 4.0 s after its start"


def test_a_refusal_and_a_client_that_left_are_told_apart() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=None, exit_after=2.0, tail=("no such flag",))]
    leaver = fleet.request("a", named="left").waiter
    fleet.request("a", named="stayed")
    fleet.advance(1)
    assert leaver is not None
    leaver.cancel()
    fleet.advance(5)
    left, stayed = fleet.supervisor.explain("left"), fleet.supervisor.explain("stayed")
    assert left is not None
    assert stayed is not None
    assert (left.outcome, left.waited) == ("gone", 1.0)
    assert stayed.outcome == "refused"
    assert "no such flag" in stayed.steps[-1].text
    assert all("no such flag" not in step.text for step in left.steps)


def test_who_is_served_at_once_is_not_remembered() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.request("a")
    fleet.advance(10)
    assert fleet.request("a", named="warm").lease is not None
    assert fleet.supervisor.explain("warm") is None


def test_it_is_bounded_and_says_nothing_twice() -> None:
    memory = Accounts(FakeClock())
    for number in range(accounts.REQUESTS + 5):
        memory.open(f"r{number}", A, "waits", {})
    assert memory.explain("r4") is None
    assert memory.explain("r5") is not None
    kept = memory.open("kept", B, "waits", {})
    for number in range(accounts.PER_MODEL * 2):
        memory.tell(B, "waits", f"note {number // 2}")
    memory.close(kept, "served")
    memory.close(kept, "refused")
    found = memory.explain("kept")
    assert found is not None
    assert found.outcome == "served"
    assert len(found.steps) == 1 + accounts.PER_MODEL
