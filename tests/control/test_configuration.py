"""`/api/config`: what a reload would do, doing it, and how it is told."""

from __future__ import annotations

import json

import pytest

from config.errors import ConfigError, Problem
from config.load import MAX_FILE_BYTES
from registry.engine import HOST, ModelId
from router.reloading import Applied, ConfigStanding, Planned
from supervisor.changeover import Changeover, Outcome
from supervisor.lifecycle import State
from supervisor.reload import Action, DeviceChange, Difference, Rejected, ReloadPlan, ReloadStep
from tests.support.control import Answer, ControlWorld, Served, local_model

A, B, C = (ModelId(name) for name in "abc")


def step(name: ModelId, action: Action, *changed: str, refused: str = "") -> ReloadStep:
    model = local_model(name)
    return ReloadStep(action, Difference(name, model, model, changed), State.READY, True, refused)


def planned(*steps: ReloadStep, settings: tuple[str, ...] = (), left: tuple[str, ...] = ()) -> Planned:
    return Planned("/yard.yaml", ReloadPlan(steps, (DeviceChange(HOST, 9, 2, 3),)), settings, left)


def ask(world: ControlWorld, path: str, body: bytes = b"") -> Answer:
    async def scenario(served: Served) -> Answer:
        return await served.post(path, body)

    return world.run(scenario)


def test_a_plan_says_what_becomes_of_each_model_and_of_the_memory() -> None:
    world = ControlWorld()
    world.configuration.planned = planned(step(A, Action.KEEP), step(B, Action.RESTART, "args"))
    found = ask(world, "/api/config/plan").json()
    assert found["changes"] is True
    assert [(one["model"], one["action"], one["changed"]) for one in found["models"]] == [
        ("a", "keep", []),
        ("b", "restart", ["args"]),
    ]
    assert found["devices"] == [{"device": "host", "budget_bytes": 9, "before_bytes": 2, "after_bytes": 3}]
    assert world.configuration.drafts == [None]


@pytest.mark.parametrize(
    ("plan", "changes"),
    [
        (planned(step(A, Action.KEEP)), False),
        (planned(step(A, Action.KEEP, "args", refused="no such flag")), True),
        (planned(settings=("ttl",)), True),
        (planned(left=("listen",)), True),
    ],
)
def test_whether_anything_changes(plan: Planned, changes: bool) -> None:
    world = ControlWorld()
    world.configuration.planned = plan
    assert ask(world, "/api/config/plan").json()["changes"] is changes


def test_a_draft_of_the_largest_size_is_planned_with() -> None:
    world = ControlWorld()
    text = "# é\n" * (MAX_FILE_BYTES // 5)
    body = json.dumps({"file": "/somewhere/draft.yaml", "text": text}).encode()
    assert ask(world, "/api/config/plan", body).status == 200
    (draft,) = world.configuration.drafts
    assert draft is not None
    assert (str(draft.path), draft.raw.decode()) == ("/somewhere/draft.yaml", text)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"file": "/a"}', b'{"file": 7, "text": ""}', b'{"file": "a.yaml", "text": ""}', b"\xff",
     b'{"file": "/a\\u0000", "text": ""}'],
)  # fmt: skip
def test_what_is_no_draft_is_refused(body: bytes) -> None:
    world = ControlWorld()
    answer = ask(world, "/api/config/plan", body)
    assert (answer.status, answer.code(), world.configuration.drafts) == (400, "bad_draft", [])


@pytest.mark.parametrize("path", ["/api/config/plan", "/api/config/apply"])
def test_a_file_that_cannot_be_used_is_refused_with_file_line_and_key(path: str) -> None:
    world = ControlWorld()
    world.configuration.problem = ConfigError(Problem("/yard.yaml", "not a time", 3, "ttl"))
    answer = ask(world, path)
    assert (answer.status, answer.code()) == (400, "config_invalid")
    assert answer.json()["error"]["message"] == "/yard.yaml:3: ttl: not a time"


def test_an_applied_reload_tells_how_each_change_ended() -> None:
    world = ControlWorld()
    back = Changeover(local_model("b"), local_model("b"), ("args",))
    back.outcome, back.cause = Outcome.ROLLED_BACK, "no such flag"
    plan = planned(
        step(A, Action.KEEP),
        step(B, Action.RESTART, "args"),
        step(C, Action.KEEP, "env", refused="it has failed before"),
        step(ModelId("d"), Action.UPDATE, "ttl"),
    )
    world.configuration.applied = Applied(plan, {B: back})
    answer = ask(world, "/api/config/apply")
    found = answer.json()
    assert (answer.status, found["complete"], world.configuration.waits) == (200, False, 1)
    assert [(one["model"], one["outcome"], one["cause"]) for one in found["models"]] == [
        ("b", "rolled_back", "no such flag"),
        ("c", "rolled_back", "it has failed before"),
        ("d", "updated", ""),
    ]
    back.outcome, back.cause = Outcome.RESTARTED, ""
    world.configuration.applied = Applied(planned(step(B, Action.RESTART, "args")), {B: back})
    assert ask(world, "/api/config/apply").json()["complete"] is True


def test_without_a_wait_it_is_under_way() -> None:
    world = ControlWorld()
    under_way = Changeover(local_model("b"), local_model("b"), ("args",))
    world.configuration.applied = Applied(planned(step(B, Action.RESTART, "args")), {B: under_way})
    answer = ask(world, "/api/config/apply?wait=0")
    assert (answer.status, world.configuration.waits) == (202, 0)
    assert answer.json()["models"][0]["outcome"] == "pending"


def test_the_status_says_what_is_not_in_force_and_why() -> None:
    world = ControlWorld()
    rejected = {B: Rejected("f", "no such flag", ("args",), 1.7e9)}
    world.configuration.standing = ConfigStanding(
        "/yard.yaml", True, 1.6e9, "/yard.yaml:3: ttl: not a time", ("listen",), rejected
    )

    async def scenario(served: Served) -> Answer:
        return await served.get("/api/status")

    assert world.run(scenario).json()["configuration"] == {
        "file": "/yard.yaml",
        "watched": True,
        "applied_at": 1.6e9,
        "error": "/yard.yaml:3: ttl: not a time",
        "left_for_restart": ["listen"],
        "rolled_back": [{"model": "b", "changed": ["args"], "cause": "no such flag", "at": 1.7e9}],
    }
