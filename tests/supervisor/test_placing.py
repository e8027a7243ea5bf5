"""Several GPUs: where a model goes, and who makes room for it there."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.engine import HOST, DeviceId, Footprint, ModelId
from registry.model import Model
from supervisor.admission import Evict, FleetPicture, ModelPicture, Plan, Refuse, Start, decide
from supervisor.lifecycle import State
from supervisor.placing import moved
from supervisor.policy import Policy
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

GPUS = tuple(DeviceId(f"gpu{number}") for number in range(4))
G0, G1, G2, G3 = GPUS


def on(*devices: DeviceId, gib: int) -> dict[DeviceId, int]:
    return dict.fromkeys(devices, gib * GIB)


def waiting(name: str, *places: dict[DeviceId, int], oldest: float = 1.0, **over: object) -> ModelPicture:
    need, *others = places
    made = ModelPicture(
        ModelId(name), State.STOPPED, need, {}, waiting=1, oldest_wait=oldest, others=tuple(others)
    )
    return replace(made, **over)  # type: ignore[arg-type]  # keywords of a test


def ready(name: str, held: dict[DeviceId, int], **over: object) -> ModelPicture:
    made = ModelPicture(ModelId(name), State.READY, held, held, idle=100.0, resident=100.0)
    return replace(made, **over)  # type: ignore[arg-type]  # keywords of a test


def plan(*models: ModelPicture, gib: int = 24, count: int = 2, policy: Policy | None = None) -> Plan:
    budgets = dict.fromkeys(GPUS[:count], gib * GIB) | {HOST: 100 * GIB}
    return decide(FleetPicture(models, budgets), policy or Policy())


def anywhere(gib: int, count: int = 2) -> list[dict[DeviceId, int]]:
    return [on(device, gib=gib) for device in GPUS[:count]]


def done(found: Plan) -> list[str]:
    words = []
    for decision in found.decisions:
        match decision:
            case Start(model, reserve, place):
                words.append(f"start {model} at {place} on {' '.join(sorted(reserve))}")
            case Evict(model, beneficiary):
                words.append(f"evict {model} for {beneficiary}")
            case Refuse(model):
                words.append(f"refuse {model}")
    return words


def test_it_goes_where_it_fits_best() -> None:
    held = ready("a", on(G1, gib=12))
    assert done(plan(held, waiting("b", *anywhere(10)))) == ["start b at 1 on gpu1"]
    assert done(plan(held, waiting("b", *anywhere(20)))) == ["start b at 0 on gpu0"]


def test_nobody_goes_while_there_is_room_elsewhere() -> None:
    found = plan(
        ready("a", on(G0, gib=20)), ready("b", on(G1, gib=20)), waiting("c", *anywhere(10, 3)), count=3
    )
    assert done(found) == ["start c at 2 on gpu2"]


def test_where_nobody_has_room_the_cheapest_goes() -> None:
    dear = ready("dear", on(G0, gib=20), load_seconds=60.0, rate=1.0)
    cheap = ready("cheap", on(G1, gib=20), load_seconds=2.0, rate=1.0)
    assert done(plan(dear, cheap, waiting("c", *anywhere(10)))) == ["evict cheap for c"]


def test_an_idle_one_goes_before_a_busy_one_whatever_it_costs() -> None:
    busy = ready("busy", on(G0, gib=20), leases=1, idle=0.0)
    idle = ready("idle", on(G1, gib=20), load_seconds=600.0, rate=1.0)
    assert done(plan(busy, idle, waiting("c", *anywhere(10), oldest=99.0))) == ["evict idle for c"]


def test_room_that_is_on_its_way_is_waited_for_before_anybody_else_goes() -> None:
    leaving = replace(ready("a", on(G1, gib=20)), state=State.STOPPING)
    found = plan(leaving, ready("b", on(G0, gib=20)), waiting("c", *anywhere(10)))
    assert done(found) == []
    assert found.notes == {ModelId("c"): "waiting for a to stop"}


def test_a_pinned_ones_device_is_none_to_wait_for() -> None:
    pinned = ready("p", on(G0, gib=20), pinned=True)
    busy = ready("b", on(G1, gib=20), leases=1, idle=0.0)
    found = plan(pinned, busy, waiting("c", *anywhere(10)))
    assert found.notes == {ModelId("c"): "waiting for memory: b in use"}
    assert done(plan(pinned, busy, waiting("c", *anywhere(10), oldest=99.0))) == ["evict b for c"]


def test_a_model_that_holds_nowhere_is_refused_and_who_pins_comes_first() -> None:
    pinned = ready("p", on(G0, gib=20), pinned=True)
    found = plan(pinned, waiting("c", on(G0, gib=10), on(G1, gib=30)))
    (refusal,) = found.decisions
    assert isinstance(refusal, Refuse)
    assert refusal.reason.endswith("and where p (20.0 GiB) is pinned")
    assert done(plan(waiting("c", on(G0, gib=30), on(G1, gib=30)))) == ["refuse c"]


def test_two_that_measure_free_memory_start_on_two_devices_at_once() -> None:
    both = [waiting(name, *anywhere(22), starts_alone=True) for name in "ab"]
    assert done(plan(*both)) == ["start a at 0 on gpu0", "start b at 1 on gpu1"]


def test_several_devices_are_one_place() -> None:
    pairs = [on(*pair, gib=20) for pair in combinations(GPUS[:3], 2)]
    held = ready("a", on(G0, gib=10), leases=1)
    assert done(plan(held, waiting("b", *pairs), count=3)) == ["start b at 2 on gpu1 gpu2"]


def test_a_group_holds_on_every_device() -> None:
    first = ready("a", on(G0, gib=10), group="one", leases=1)
    found = plan(first, waiting("b", *anywhere(10), group="one"))
    assert done(found) == []
    assert found.notes == {ModelId("b"): "waiting for memory: a in use"}


@pytest.mark.parametrize(
    ("sizes", "need", "there"),
    [
        ({G0: 5, HOST: 1}, {G1: 9, HOST: 2}, {G1: 5, HOST: 1}),
        ({G0: 5, G1: 6}, {G1: 9, G2: 9}, {G1: 5, G2: 6}),
        ({G0: 5}, {G0: 9, HOST: 2}, {G0: 5}),
        ({G0: 5, HOST: 1}, {HOST: 9}, {HOST: 1}),
        ({}, {G0: 9}, {}),
    ],
)
def test_what_was_learned_on_one_device_goes_for_another(
    sizes: dict[DeviceId, int], need: dict[DeviceId, int], there: dict[DeviceId, int]
) -> None:
    assert moved(sizes, need) == there


# -- any picture


@st.composite
def pictures(draw: st.DrawFn) -> FleetPicture:
    count = draw(st.integers(2, 4))
    devices = GPUS[:count]
    models: list[ModelPicture] = []
    room = dict.fromkeys(devices, 24)
    for number in range(draw(st.integers(0, 5))):
        held = draw(st.sets(st.sampled_from(devices), min_size=1, max_size=2))
        gib = draw(st.integers(1, 20))
        if any(room[device] < gib for device in held):
            continue
        for device in held:
            room[device] -= gib
        busy = draw(st.booleans())
        state = draw(st.sampled_from([State.READY, State.READY, State.STARTING, State.STOPPING]))
        models.append(
            ready(
                f"held{number}",
                on(*sorted(held), gib=gib),
                state=state,
                leases=int(busy),
                idle=0.0 if busy else 50.0,
                pinned=draw(st.integers(0, 5)) == 0,
                load_seconds=draw(st.floats(0, 60)),
                rate=draw(st.floats(0, 1)),
            )
        )
    for number in range(draw(st.integers(1, 4))):
        gib, size = draw(st.integers(1, 26)), draw(st.integers(1, 2))
        places = [on(*some, gib=gib) for some in combinations(devices, size)]
        oldest = draw(st.sampled_from([1.0, 30.0, 70.0, 90.0]))
        models.append(waiting(f"new{number}", *places, oldest=oldest))
    return FleetPicture(tuple(models), dict.fromkeys(devices, 24 * GIB))


@given(pictures())
def test_no_device_is_over_committed_and_nobody_goes_for_a_first_one_that_fits_somewhere(
    picture: FleetPicture,
) -> None:
    found = decide(picture, Policy(max_parallel_starts=9))
    by_id = {model.model: model for model in picture.models}
    taken = dict.fromkeys(picture.budgets, 0)
    for model in picture.models:
        for device, bytes_ in model.reserved.items():
            taken[device] += bytes_
    free = {device: picture.budgets[device] - taken[device] for device in taken}
    for decision in found.decisions:
        if isinstance(decision, Start):
            assert dict(decision.reserve) == dict(by_id[decision.model].needs[decision.place])
            for device, bytes_ in decision.reserve.items():
                taken[device] += bytes_
                assert taken[device] <= picture.budgets[device]  # I2, per device
        if isinstance(decision, Refuse):
            for need in by_id[decision.model].needs:
                pinned = {
                    device: sum(
                        m.reserved.get(device, 0)
                        for m in picture.models
                        if m.pinned and m.state in (State.READY, State.STARTING)
                    )
                    for device in need
                }
                assert any(need[d] > picture.budgets[d] - pinned[d] for d in need)  # I7, nowhere
    new = [model for model in picture.models if model.waiting]
    first = min(new, key=lambda m: (m.oldest_wait < Policy().max_wait, -m.oldest_wait, m.model))
    if any(all(free[d] >= b for d, b in need.items()) for need in first.needs):
        assert ModelId(first.model) in [d.model for d in found.decisions if isinstance(d, Start)]
        assert not [d for d in found.decisions if isinstance(d, Evict) and d.beneficiary == first.model]


# -- in the fleet


def placed_model(name: str, gib: int, count: int = 2, **over: object) -> Model:
    """One that may go on any of *count* GPUs."""
    model = make_model(name, need=on(G0, gib=gib))
    assert model.spec is not None
    specs = [
        replace(model.spec, footprint=Footprint(on(device, gib=gib)), env={"CUDA_VISIBLE_DEVICES": device})
        for device in GPUS[:count]
    ]
    return replace(model, spec=specs[0], elsewhere=tuple(specs[1:]), **over)  # type: ignore[arg-type]


def two_gpus(*models: Model, policy: Policy | None = None) -> Fleet:
    fake = FakeWorld(devices={G0: 24 * GIB, G1: 24 * GIB})
    return Fleet(models, policy or Policy(), fake)


def test_two_models_share_two_gpus_and_are_started_for_their_own() -> None:
    fleet = two_gpus(placed_model("a", 20), placed_model("b", 20))
    fleet.request("a")
    fleet.request("b")
    fleet.advance(5)
    instances = fleet.supervisor.instances
    assert [instances[ModelId(name)].reserved for name in "ab"] == [on(G0, gib=20), on(G1, gib=20)]
    started = [instances[ModelId(name)].spec for name in "ab"]
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in started if spec is not None] == [G0, G1]
    assert {child.record.fingerprint for child in fleet.fake.live} == {s.fingerprint for s in started if s}


def test_what_it_took_on_one_gpu_is_known_on_the_other() -> None:
    fleet = two_gpus(placed_model("a", 20), placed_model("b", 20))
    fleet.fake.scripts[ModelId("a")] = [Script(uses=10 * GIB, uses_of=G0)]
    fleet.request("a").waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    a = fleet.supervisor.instances[ModelId("a")]
    a.stop()
    fleet.advance(5)
    assert list(fleet.supervisor.forecast.needs(a.model)) == [
        {G0: int(10 * GIB * 1.05)},
        {G1: int(10 * GIB * 1.05)},
    ]
    assert fleet.supervisor.forecast.load_seconds(a.model) == pytest.approx(4.01)


def test_a_tree_of_an_earlier_daemon_is_taken_over_where_it_is() -> None:
    model = placed_model("a", 20)
    fleet = two_gpus(model, placed_model("b", 20))
    fleet.fake.leave_behind(model.elsewhere[0], Script(ready_after=0.5))
    with pytest.raises(StopIteration):
        fleet.supervisor.begin().send(None)
    fleet.advance(2)
    assert fleet.state("a") == "ready"
    assert fleet.supervisor.instances[ModelId("a")].reserved == on(G1, gib=20)
    fleet.reload(*fleet.models)
    assert fleet.state("a") == "ready"  # it runs as one of its places says
    fleet.request("b")
    fleet.advance(5)
    assert fleet.supervisor.instances[ModelId("b")].reserved == on(G0, gib=20)


def test_more_memory_for_a_second_try_is_looked_for_on_any_device() -> None:
    fleet = two_gpus(placed_model("a", 12), make_model("b", need=on(G0, gib=8)))
    fleet.fake.scripts[ModelId("a")] = [
        Script(ready_after=None, exit_after=1.0, tail=("CUDA out of memory",)),
        Script(),
    ]
    held = fleet.request("b")
    fleet.advance(5)
    assert held.lease is not None
    request = fleet.request("a")  # fits best beside `b`
    assert fleet.supervisor.instances[ModelId("a")].reserved == on(G0, gib=12)
    fleet.advance(10)
    assert request.lease is not None
    assert fleet.supervisor.instances[ModelId("a")].reserved == on(G1, gib=18)
