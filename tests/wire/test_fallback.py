"""A virtual name's further models: asked in turn, as long as no byte was answered."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from registry.capability import NO_NEEDS, Endpoint, Needs
from registry.engine import Wire
from router.ports import Bytes, Chosen, FrontLimits, Holder, Outcome, Route
from tests.support.wire import BusyError, Run, UnknownError, World

ASK = b'{"model":"smart","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"smart","stream":true,"messages":[{"role":"user","content":"hi"}]}'
EITHER = frozenset({"failure", "overload"})


@dataclass(frozen=True)
class Given:
    """A choice that is always the same."""

    routes: tuple[Route, ...]
    on: frozenset[str] = EITHER

    def read(self, body: Bytes) -> Needs:
        return NO_NEEDS

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> Chosen:
        return Chosen(self.routes, self.on)


def route(name: str) -> Route:
    return Route(name, object(), Wire(name, frozenset({name})))


def serve(world: World, *names: str, on: frozenset[str] = EITHER) -> None:
    world.directory.routes["smart"] = Given(tuple(route(name) for name in names), on)


def test_the_first_one_answers_under_its_own_name(run: Run) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(ASK)
        request = await world.engine.next_request()
        assert json.loads(request.body)["model"] == "a"
        request.answer(b'{"model":"a"}')
        assert (await client.answer())[2] == b'{"model":"a"}'
        record = await world.record()
        assert (record.model, record.retried) == ("a", False)

    run(scenario)


@pytest.mark.parametrize("error", [BusyError("full"), UnknownError("gone")])
def test_one_that_cannot_be_had_is_replaced_by_the_next(run: Run, error: Exception) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        world.upstreams.broken["a"] = error
        client = await world.client()
        client.post(ASK)
        if isinstance(error, UnknownError):
            assert await client.error() == (
                404,
                "model_not_found",
            )  # the client's fault: nobody else is asked
            return
        request = await world.engine.next_request()
        assert json.loads(request.body)["model"] == "b"
        request.answer(b'{"model":"b"}')
        assert (await client.answer())[0] == 200
        record = await world.record()
        assert (record.model, record.retried, record.outcome) == ("b", True, "served")

    run(scenario)


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad", "503 Full", "429 Slow Down"])
def test_an_engines_own_refusal_is_not_passed_on_while_there_is_another(run: Run, status: str) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(ASK)
        (await world.engine.next_request()).answer(b'{"error":"no"}', status=status)
        second = await world.engine.next_request()
        assert json.loads(second.body)["model"] == "b"
        second.answer(b'{"detail":"no more"}', status=status)
        code, _, body = await client.answer()
        assert (code, json.loads(body)["error"]["message"]) == (int(status[:3]), "no more")
        # Their engines have answered: none of them is in doubt.
        assert [lease.ended for lease in world.upstreams.leases] == [[Outcome.SERVED], [Outcome.SERVED]]

    run(scenario)


@pytest.mark.parametrize("status", ["400 Bad", "404 Not Found", "422 No"])
def test_what_the_client_did_wrong_is_answered_by_the_first(run: Run, status: str) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(ASK)
        (await world.engine.next_request()).answer(b'{"detail":"bad"}', status=status)
        assert (await client.answer())[0] == int(status[:3])

    run(scenario)


@pytest.mark.parametrize(("on", "status"), [("failure", "503 Full"), ("overload", "500 Oops")])
def test_the_operator_says_when(run: Run, on: str, status: str) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b", on=frozenset({on}))
        client = await world.client()
        client.post(ASK)
        (await world.engine.next_request()).answer(b'{"detail":"own words"}', status=status)
        code, _, body = await client.answer()
        assert (code, json.loads(body)["error"]["message"]) == (int(status[:3]), "own words")

    run(scenario)


def test_a_large_body_is_kept_for_the_next_one(run: Run) -> None:
    body = b'{"model":"smart","messages":[{"role":"user","content":"' + b"x" * 300_000 + b'"}]}'

    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(body)
        (await world.engine.next_request()).answer(b"{}", status="503 Full")
        request = await world.engine.next_request()
        assert request.body == body.replace(b'"smart"', b'"b"')
        request.answer(b"{}")
        assert (await client.answer())[0] == 200

    run(scenario)


def test_an_engine_that_dies_twice_is_replaced(run: Run) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(ASK)
        for _ in range(2):
            (await world.engine.next_request()).end()
        request = await world.engine.next_request()
        assert json.loads(request.body)["model"] == "b"
        request.answer(b"{}")
        assert (await client.answer())[0] == 200

    run(scenario)


def test_a_client_that_reads_comments_gets_the_next_ones_stream(run: Run) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        assert (await client.head())[0] == 200
        assert (await client.chunk()).startswith(b": loading a")
        world.upstreams.refuse(BusyError("full"))
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        assert (await client.chunk()).startswith(b": loading b")
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(b'data: {"model":"b"}\n\ndata: [DONE]\n\n')
        request.send(b"0\r\n\r\n")
        assert await client.chunks() == b'data: {"model":"b"}\n\ndata: [DONE]\n\n'

    run(scenario)


def test_an_answer_that_has_begun_is_not_begun_again(run: Run) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(b'data: {"model":"a"}\n\n')
        await client.head()
        assert await client.chunk() == b'data: {"model":"a"}\n\n'
        request.end()
        assert b'"answer_cut"' in await client.chunks()

    run(scenario)


def test_each_ones_share_of_waiting_bytes_is_given_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        serve(world, "a", "b")
        world.upstreams.hold()
        client = await world.client()
        client.post(ASK)
        await world.upstreams.next_waiter()
        world.upstreams.refuse(BusyError("full"))
        await world.upstreams.next_waiter()
        world.upstreams.refuse(BusyError("full"))
        assert await client.error() == (503, "queue_full")
        budget = world.front.shared.budget
        assert budget.held == 0
        assert all(budget.take_model(name, limits.buffered_bytes_per_model) for name in ("a", "b"))

    limits = FrontLimits()
    run(scenario, limits=limits)
