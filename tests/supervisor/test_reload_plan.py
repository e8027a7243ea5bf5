"""What another catalog means, decided without touching anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from config.schema import ModelConfig
from registry.engine import HOST, DeviceId, ModelId
from registry.errors import ModelUnusableError
from registry.model import Model
from supervisor.lifecycle import State
from supervisor.reload import Action, Rejected, ReloadPlan, Standing, compare, plan_reload
from tests.support.fakes import GIB, make_model

A = ModelId("a")
READY = Standing(State.READY, proved=True, reserved={HOST: 10 * GIB})
LAUNCHED_OTHERWISE = make_model("a", argv=("engine", "--other", "{port}"), size=30 * GIB)


def needs(model: Model) -> tuple[Mapping[DeviceId, int], ...]:
    return tuple(spec.footprint.bytes_by_device for spec in model.places)


def planned(
    before: Model | None,
    after: Model | None,
    standing: Standing | None = READY,
    *,
    rejected: Mapping[ModelId, Rejected] | None = None,
) -> ReloadPlan:
    differences = compare(
        {before.id: before} if before is not None else {}, {after.id: after} if after is not None else {}
    )
    return plan_reload(
        differences,
        {A: standing} if standing is not None else {},
        needs=needs,
        budgets={HOST: 100 * GIB},
        rejected=rejected or {},
    )


def action(plan: ReloadPlan) -> Action:
    (step,) = plan.steps
    return step.action


def test_each_row_of_the_table() -> None:
    a = make_model("a")
    assert action(planned(a, make_model("a"))) is Action.KEEP
    assert action(planned(a, replace(a, ttl=5.0))) is Action.UPDATE
    assert action(planned(None, a, None)) is Action.ADD
    assert action(planned(a, None)) is Action.REMOVE
    for state in State:
        runs = state in (State.STARTING, State.READY)
        expected = Action.RESTART if runs else Action.UPDATE
        assert action(planned(a, LAUNCHED_OTHERWISE, replace(READY, state=state))) is expected, state


def test_the_keys_that_changed_are_named() -> None:
    said = ModelConfig(source="a/a", args=("--x",), ttl=5.0)
    before = replace(make_model("a"), options=said, ttl=5.0)
    after = replace(before, options=said.model_copy(update={"args": ("--y",), "env": {"K": "v"}}))
    assert planned(before, after).steps[0].difference.changed == ("args", "env")
    # Not in its own entry, but the global `ttl`, and what an engine's defaults make of the command line.
    assert planned(before, replace(before, ttl=9.0)).steps[0].difference.changed == ("ttl",)
    assert planned(make_model("a"), LAUNCHED_OTHERWISE).steps[0].difference.changed == ("command line",)
    assert before.spec is not None
    patient = replace(before, spec=replace(before.spec, start_timeout=1.0))
    assert planned(before, patient).steps[0].difference.changed == ("start",)


def test_the_memory_before_and_after() -> None:
    (host,) = planned(make_model("a"), LAUNCHED_OTHERWISE).devices
    assert (host.device, host.before_bytes, host.after_bytes) == (HOST, 10 * GIB, 30 * GIB)
    (host,) = planned(make_model("a"), None).devices
    assert (host.before_bytes, host.after_bytes) == (10 * GIB, 0)
    (host,) = planned(None, make_model("a", preload=True), None).devices
    assert (host.before_bytes, host.after_bytes) == (0, 10 * GIB)


def test_a_running_model_is_not_stopped_for_a_definition_that_cannot_be_launched() -> None:
    broken = replace(make_model("a"), spec=None, problem=ModelUnusableError("a: /models/a is not there"))
    plan = planned(make_model("a"), broken)
    assert action(plan) is Action.KEEP
    assert plan.steps[0].refused == "a: /models/a is not there"
    assert action(planned(make_model("a"), broken, Standing())) is Action.UPDATE


def test_nor_for_one_that_has_failed_or_can_never_fit() -> None:
    assert LAUNCHED_OTHERWISE.spec is not None
    rejected = {A: Rejected(LAUNCHED_OTHERWISE.spec.fingerprint, "no such flag")}
    plan = planned(make_model("a"), LAUNCHED_OTHERWISE, rejected=rejected)
    assert (action(plan), plan.steps[0].refused) == (Action.KEEP, "no such flag")
    plan = planned(make_model("a"), LAUNCHED_OTHERWISE, Standing(), rejected=rejected)
    assert action(plan) is Action.KEEP, "not behind one's back either, when it has been idle"
    huge = make_model("a", argv=("engine", "--other"), size=101 * GIB)
    assert "whose budget is 100.0 GiB" in planned(make_model("a"), huge).steps[0].refused


def test_a_tree_at_one_of_its_places_is_one_of_the_new_definition() -> None:
    one = make_model("a")
    assert one.spec is not None
    there = replace(one.spec, env={"CUDA_VISIBLE_DEVICES": "1"})
    both = replace(one, elsewhere=(there,))
    assert action(planned(one, both)) is Action.KEEP
    more = replace(both, elsewhere=(there, replace(there, env={"CUDA_VISIBLE_DEVICES": "2"})))
    assert action(planned(both, more)) is Action.KEEP
    assert action(planned(both, one)) is Action.RESTART  # it may be at the place that is gone
    changed = replace(both, spec=replace(one.spec, argv=("other",)))
    assert action(planned(both, changed)) is Action.RESTART
