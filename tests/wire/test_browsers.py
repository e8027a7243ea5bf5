"""Web pages: who may ask from a browser, and who may read the answer."""

from __future__ import annotations

import pytest

from router.cors import Cors
from router.ports import Refusal
from tests.support.wire import CHAT, Run, World

OURS = "https://chat.example.com"
PREFLIGHT = (
    "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n"
    "Access-Control-Request-Headers: authorization, content-type\r\n\r\n"
)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_preflight_of_a_page_that_is_named_is_answered_without_a_key(run: Run, path: str) -> None:
    async def scenario(world: World) -> None:
        world.front.shared.cors = Cors([OURS])
        world.objection = Refusal(401, "missing_api_key", "a key, please")
        client = await world.client()
        client.send(PREFLIGHT.format(path=path, origin=OURS).encode())
        status, headers = await client.head()
        assert status == 204
        assert headers["access-control-allow-origin"] == OURS
        assert headers["access-control-allow-headers"] == "authorization, content-type"
        assert {"POST", "DELETE"} <= set(headers["access-control-allow-methods"].split(", "))
        record = await world.record()
        assert (record.outcome, record.code) == ("control", ""), "it is no refusal"
        assert world.front.counters.refused_total == 0
        assert "content-length" not in headers

    run(scenario)


@pytest.mark.parametrize(
    ("path", "origin"), [("/v1/models", "https://evil.example"), ("/api/models", OURS), ("/status", OURS)]
)
def test_other_pages_and_other_paths_get_no_leave(run: Run, path: str, origin: str) -> None:
    async def scenario(world: World) -> None:
        world.front.shared.cors = Cors([OURS])
        world.objection = Refusal(401, "missing_api_key", "a key, please")
        client = await world.client()
        client.send(PREFLIGHT.format(path=path, origin=origin).encode())
        status, headers, _ = await client.answer()
        assert status == 401
        assert not [name for name in headers if name.startswith("access-control")]

    run(scenario)


@pytest.mark.parametrize("given", [[OURS], ["*"], [OURS.upper() + "/"]])
def test_answers_and_refusals_say_that_the_page_may_read_them(run: Run, given: list[str]) -> None:
    async def scenario(world: World) -> None:
        world.front.shared.cors = Cors(given)
        client = await world.client()
        for body, status in ((CHAT, 200), (b"[1]", 400)):
            client.post(body, extra=f"Origin: {OURS}\r\n")
            if status == 200:
                (await world.engine.next_request()).answer(b"{}")
            got, headers, _ = await client.answer()
            assert (got, headers["access-control-allow-origin"], headers["vary"]) == (status, OURS, "origin")

    run(scenario)


LET_IN = [None, "http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173", "http://app.localhost",
          "http://modelyard", "https://modelyard", "app://obsidian.md", "tauri://localhost",
          "chrome-extension://abc"]  # fmt: skip


@pytest.mark.parametrize("origin", LET_IN)
def test_pages_of_this_machine_and_programs_may_ask_unnamed(run: Run, origin: str | None) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra=f"Origin: {origin}\r\n" if origin else "")
        (await world.engine.next_request()).answer(b"{}")
        status, headers, _ = await client.answer()
        assert status == 200
        assert "access-control-allow-origin" not in headers

    run(scenario)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "http://[bad", "null"]
)
def test_a_page_of_another_site_cannot_make_a_browser_ask(run: Run, origin: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra=f"Origin: {origin}\r\n")
        assert await client.error() == (403, "cross_origin")
        assert world.engine.requests.empty()

    run(scenario)
