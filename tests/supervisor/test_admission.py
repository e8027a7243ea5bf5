"""`decide`: what is started, evicted and refused, on hand-made pictures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from registry.engine import HOST, DeviceId, ModelId
from supervisor.admission import Evict, FleetPicture, ModelPicture, Plan, Refuse, Start, decide
from supervisor.lifecycle import WITH_TREE, State
from supervisor.policy import Policy

GIB = 2**30
GPU0, GPU1 = DeviceId("gpu0"), DeviceId("gpu1")


def model(
    name: str,
    state: State = State.STOPPED,
    *,
    size: int = 10,
    device: DeviceId = HOST,
    waiting: int = 0,
    oldest: float = 0.0,
    leases: int = 0,
    idle: float = 0.0,
    resident: float = 100.0,
    pinned: bool = False,
    wanted: bool = False,
    alone: bool = False,
    load: float = 0.0,
    rate: float = 0.0,
) -> ModelPicture:
    need = {device: size * GIB}
    return ModelPicture(
        model=ModelId(name),
        state=state,
        need=need,
        reserved=need if state in WITH_TREE else {},
        leases=leases,
        waiting=waiting,
        oldest_wait=oldest,
        wanted=wanted,
        pinned=pinned,
        idle=idle,
        resident=resident,
        starts_alone=alone,
        load_seconds=load,
        rate=rate,
    )


def plan(*models: ModelPicture, budget: int = 20, policy: Policy | None = None) -> Plan:
    budgets = {HOST: budget * GIB, GPU0: budget * GIB}
    return decide(FleetPicture(models, budgets), policy or Policy())


def words(found: Plan) -> list[str]:
    out = []
    for decision in found.decisions:
        match decision:
            case Start(name, _):
                out.append(f"start {name}")
            case Evict(name, beneficiary, _, _):
                out.append(f"evict {name} for {beneficiary}")
            case Refuse(name, _):
                out.append(f"refuse {name}")
    return out


def test_what_fits_is_started() -> None:
    assert words(plan(model("a", waiting=1))) == ["start a"]


def test_nobody_waits_so_nothing_happens() -> None:
    assert words(plan(model("a"), model("b", State.READY))) == []


def test_two_that_fit_are_started_side_by_side_and_the_third_waits_for_a_start() -> None:
    found = plan(*(model(n, size=1, waiting=1, oldest=t) for n, t in [("a", 3), ("b", 2), ("c", 1)]))
    assert words(found) == ["start a", "start b"]
    assert found.notes == {"c": "waiting for a to start"}


def test_the_least_recently_used_idle_instance_makes_room() -> None:
    found = plan(
        model("new", waiting=1),
        model("old", State.READY, idle=50),
        model("older", State.READY, idle=90),
    )
    assert words(found) == ["evict older for new"]


def test_only_as_many_are_evicted_as_it_takes() -> None:
    found = plan(
        model("new", waiting=1, size=10),
        model("tiny", State.READY, idle=90, size=1),
        model("big", State.READY, idle=50, size=19),
    )
    assert words(found) == ["evict big for new"]


def test_nothing_is_evicted_in_vain() -> None:
    found = plan(
        model("new", waiting=1, size=20),
        model("idle", State.READY, idle=90, size=5),
        model("pinned", State.READY, idle=90, size=5, pinned=True),
    )
    assert words(found) == ["refuse new"]
    starting = plan(
        model("new", waiting=1, size=20),
        model("idle", State.READY, idle=90, size=5),
        model("s", State.STARTING, size=5),
    )
    assert words(starting) == []
    assert starting.notes == {"new": "waiting for memory that starting models hold"}


def test_a_busy_instance_is_waited_for_until_max_wait_is_over() -> None:
    busy = model("busy", State.READY, leases=1, size=20)
    early = plan(model("new", waiting=1, oldest=10), busy)
    assert words(early) == []
    assert early.ask_again_in == 50.0
    assert early.notes == {"new": "waiting for memory: busy in use"}
    late = plan(model("new", waiting=1, oldest=60), busy)
    assert words(late) == ["evict busy for new"]


def test_a_pinned_instance_is_never_evicted() -> None:
    pinned = model("pinned", State.READY, pinned=True, idle=500, size=20)
    found = plan(model("new", waiting=1, oldest=500), pinned).decisions
    assert [type(decision) for decision in found] == [Refuse]
    assert isinstance(found[0], Refuse)
    assert found[0].reason.endswith("whose budget is 20.0 GiB and where pinned (20.0 GiB) is pinned")


def test_a_starting_instance_is_no_victim() -> None:
    assert words(plan(model("new", waiting=1, oldest=500), model("s", State.STARTING, size=20))) == []


def test_memory_that_is_being_freed_is_waited_for_and_belongs_to_the_first() -> None:
    found = plan(
        model("first", waiting=1, oldest=9, size=15),
        model("second", waiting=1, oldest=1, size=8),
        model("leaving", State.STOPPING, size=12),
        model("idle", State.READY, idle=90, size=5),
    )
    # 3 GiB are free and 12 are coming: enough for `first` alone; `second` would need `idle` to go and
    # still not fit.
    assert words(found) == []


def test_a_small_model_does_not_overtake_into_room_that_is_being_made() -> None:
    found = plan(
        model("large", waiting=1, oldest=9, size=20),
        model("small", waiting=1, oldest=1, size=5),
        model("idle", State.READY, idle=90, size=10),
    )
    assert words(found) == ["evict idle for large"]


def test_a_small_model_uses_what_is_free_while_a_large_one_waits_for_busy_ones() -> None:
    busy = model("busy", State.READY, leases=1, size=10)
    large, small = model("large", waiting=1, oldest=9, size=15), model("small", waiting=1, size=5, load=20)
    assert words(plan(large, small, busy)) == ["start small"]
    slow = model("slow", waiting=1, size=5, load=40)
    found = plan(large, slow, busy)
    assert words(found) == [], "it would still be starting when the large one's patience ends"
    assert found.notes == {"large": "waiting for memory: busy in use", "slow": "waiting for its turn"}


def test_the_model_that_is_dear_to_bring_back_stays() -> None:
    popular = model("popular", State.READY, idle=50, load=60, rate=0.1)
    forgotten = model("forgotten", State.READY, idle=5, load=60)
    assert words(plan(model("new", waiting=1), popular, forgotten)) == ["evict forgotten for new"]


def test_a_busy_one_that_was_just_loaded_stays_for_its_residency_and_that_is_taken_off_its_grace() -> None:
    policy = Policy(max_wait=60, min_residency=10, drain_grace=30)
    waiter = model("new", waiting=1, oldest=70)
    fresh = plan(waiter, model("busy", State.READY, leases=1, resident=4, size=20), policy=policy)
    assert words(fresh) == []
    assert fresh.ask_again_in == 6.0
    later = plan(waiter, model("busy", State.READY, leases=1, resident=10, size=20), policy=policy)
    assert words(later) == ["evict busy for new"]
    assert isinstance(later.decisions[0], Evict)
    assert later.decisions[0].grace == 20.0


def test_an_idle_model_is_no_victim_twice() -> None:
    policy = Policy(min_residency=0)
    just_used = model("just-used", State.READY, idle=0.1, size=5)
    busy = model("busy", State.READY, leases=1, size=5)
    found = plan(model("new", waiting=1, oldest=99, size=20), just_used, busy, budget=25, policy=policy)
    assert words(found) == ["evict just-used for new"]


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    found = plan(model("huge", waiting=1, size=30))
    assert words(found) == ["refuse huge"]
    refusal = found.decisions[0]
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "needs 30.0 GiB on host, whose budget is 20.0 GiB"


def test_a_device_this_machine_lacks_is_named() -> None:
    refusal = plan(model("a", waiting=1, device=GPU1)).decisions[0]
    assert isinstance(refusal, Refuse)
    assert "gpu1" in refusal.reason


def test_a_model_just_loaded_stays_while_somebody_uses_it() -> None:
    fresh = model("fresh", State.READY, resident=2, idle=0.1, size=20)
    found = plan(model("new", waiting=1), fresh)
    assert words(found) == []
    assert found.ask_again_in == 0.4
    unused = model("fresh", State.READY, resident=2, idle=0.6, size=20)
    assert words(plan(model("new", waiting=1), unused)) == ["evict fresh for new"]


def test_one_that_measures_free_memory_starts_alone_on_its_device() -> None:
    found = plan(
        model("vllm", waiting=1, oldest=5, size=1, device=GPU0, alone=True),
        model("other", waiting=1, oldest=4, size=1, device=GPU0),
        model("elsewhere", waiting=1, oldest=3, size=1),
    )
    assert words(found) == ["start vllm", "start elsewhere"]
    after = plan(
        model("vllm", waiting=1, size=1, device=GPU0, alone=True),
        model("leaving", State.STOPPING, size=1, device=GPU0),
    )
    assert words(after) == []


def test_a_preload_starts_when_it_fits_and_evicts_nobody() -> None:
    assert words(plan(model("p", wanted=True))) == ["start p"]
    assert words(plan(model("p", wanted=True), model("idle", State.READY, idle=900, size=20))) == []


states = st.sampled_from(State)


@st.composite
def pictures(draw: st.DrawFn) -> FleetPicture:
    models = []
    for n in range(draw(st.integers(1, 7))):
        waiting = draw(st.integers(0, 2))
        models.append(
            model(
                f"m{n}",
                draw(states),
                size=draw(st.integers(0, 25)),
                device=draw(st.sampled_from([HOST, GPU0])),
                waiting=waiting,
                oldest=draw(st.floats(0, 200)) if waiting else 0.0,
                leases=draw(st.integers(0, 2)),
                idle=draw(st.floats(0, 100)),
                resident=draw(st.floats(0, 100)),
                pinned=draw(st.booleans()),
                wanted=draw(st.booleans()),
                alone=draw(st.booleans()),
            )
        )
    return FleetPicture(tuple(models), {HOST: 20 * GIB, GPU0: 20 * GIB})


@given(pictures())
def test_no_decision_breaks_an_invariant(picture: FleetPicture) -> None:
    found = decide(picture, Policy())
    by_id = {m.model: m for m in picture.models}
    reserved: dict[DeviceId, int] = {}
    for m in picture.models:
        for device, bytes_ in m.reserved.items():
            reserved[device] = reserved.get(device, 0) + bytes_
    for decision in found.decisions:
        subject = by_id[decision.model]
        match decision:
            case Start(_, reserve):
                assert subject.state is State.STOPPED  # I1
                for device, bytes_ in reserve.items():
                    reserved[device] = reserved.get(device, 0) + bytes_
                    assert reserved[device] <= picture.budgets[device]  # I2
            case Evict(_, beneficiary, _, _):
                assert subject.state is State.READY
                assert not subject.pinned
                waiter = by_id[beneficiary]
                assert waiter.waiting
                if subject.leases:
                    assert waiter.oldest_wait >= Policy().max_wait  # I3
            case Refuse():
                held = dict.fromkeys(picture.budgets, 0)
                for m in picture.models:
                    if m.pinned and m.state in (State.STARTING, State.READY):
                        for d, b in m.reserved.items():
                            held[d] += b
                assert any(b > picture.budgets.get(d, 0) - held[d] for d, b in subject.need.items())
    assert len({d.model for d in found.decisions}) == len(found.decisions)
    if found.ask_again_in is not None:
        assert found.ask_again_in > 0


@given(pictures(), st.data())
def test_a_model_that_rests_and_that_nobody_wants_changes_no_decision(
    picture: FleetPicture, data: st.DataObject
) -> None:
    """So the scheduler leaves such models out of its pictures: see `supervisor.picture.has_a_part`."""
    models = tuple(
        replace(one, group=data.draw(st.sampled_from(("", "g"))), exclusive=data.draw(st.booleans()))
        for one in picture.models
    )
    with_a_part = tuple(
        one for one in models if one.state is not State.STOPPED or one.waiting or one.wanted or one.reserved
    )
    whole, part = replace(picture, models=models), replace(picture, models=with_a_part)
    assert decide(whole, Policy()) == decide(part, Policy())
