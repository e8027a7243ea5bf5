"""`GET /api/explain/{id}`."""

from __future__ import annotations

from registry.engine import ModelId
from supervisor.view import Explanation, Step
from tests.support.control import Answer, ControlWorld, Served


def ask(world: ControlWorld, path: str) -> Answer:
    async def scenario(served: Served) -> Answer:
        return await served.get(path)

    return world.run(scenario)


def test_the_explanation_is_answered_with_its_numbers() -> None:
    world = ControlWorld()
    step = Step(1.0, "evict", "a is stopped for m", {"leases": 0})
    world.fleet.explanations["client/1"] = Explanation("client/1", ModelId("m"), 1.0, 2.5, "served", (step,))
    for path in ("client/1", "client%2F1"):
        answer = ask(world, f"/api/explain/{path}")
        assert answer.status == 200
        assert answer.json() == {
            "request": "client/1",
            "model": "m",
            "asked": 1.0,
            "waited_seconds": 2.5,
            "outcome": "served",
            "steps": [{"at": 1.0, "kind": "evict", "text": "a is stopped for m", "data": {"leases": 0}}],
        }


def test_an_unknown_request_is_404_and_says_where_its_id_is() -> None:
    world = ControlWorld()
    answer = ask(world, "/api/explain/nobody")
    assert answer.status == 404
    assert answer.code() == "no_explanation"
