"""The control app over its door: paths, envelopes, negotiation, readiness, guards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from config.schema import VirtualConfig
from registry.errors import EngineMissingError
from router.control.app import STATIC, build_app
from router.control.openapi import document
from router.ports import RequestRecord
from supervisor.lifecycle import State
from tests.support.control import Answer, ControlWorld, Served, endpoint_model, local_model
from tests.support.fake_fleet import instance_view


@pytest.fixture
def world() -> ControlWorld:
    made = ControlWorld()
    made.add(local_model("org/qwen:8b@q4", aliases=("qwen",)))
    made.add(local_model("llama"))
    return made


def get(world: ControlWorld, path: str, **headers: str) -> Answer:
    async def scenario(served: Served) -> Answer:
        return await served.get(path, **headers)

    return world.run(scenario)


def post(world: ControlWorld, path: str, **headers: str) -> Answer:
    async def scenario(served: Served) -> Answer:
        return await served.post(path, b"", **headers)

    return world.run(scenario)


# -- paths and envelopes


def test_health_says_alive_whatever_the_models_do(world: ControlWorld) -> None:
    world.fleet.stopping = True
    answer = get(world, "/health")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


def test_an_unknown_path_is_named_in_an_openai_envelope(world: ControlWorld) -> None:
    answer = get(world, "/v1/nonsense?x=secret")
    assert (answer.status, answer.code()) == (404, "unknown_path")
    assert "/v1/nonsense" in answer.json()["error"]["message"]
    assert b"secret" not in answer.body


def test_a_path_of_broken_utf8_is_answered_all_the_same(world: ControlWorld) -> None:
    assert get(world, "/%ff%fe").code() == "unknown_path"


def test_a_wrong_method_is_405_with_allow(world: ControlWorld) -> None:
    answer = post(world, "/v1/models")
    assert (answer.status, answer.code()) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_verb_at_the_end_of_a_path_is_no_part_of_the_id(world: ControlWorld) -> None:
    answer = get(world, "/api/models/org/qwen:8b@q4/load")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert post(world, "/api/models/llama/logs").headers["allow"] == "GET, HEAD"


def test_head_is_get_without_a_body(world: ControlWorld) -> None:
    async def scenario(served: Served) -> Answer:
        pair = await served.pair()
        head = await pair.ask("HEAD", "/api/status")
        assert (await pair.ask("GET", "/health")).status == 200
        return head

    assert world.run(scenario).status == 200


def test_one_connection_carries_many_requests(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await served.pair()
        for path in ("/health", "/nowhere", "/ready", "/v1/models"):
            await pair.ask("GET", path)
        assert served.door.lines == 1

    world.run(scenario)


def test_every_answer_forbids_what_the_page_does_not_need(world: ControlWorld) -> None:
    for path in ("/status", "/health", "/nowhere", "/static/status.js"):
        headers = get(world, path, Accept="text/html").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_bug_is_500_without_its_text(world: ControlWorld) -> None:
    def explode(*_: object) -> dict[str, str]:
        raise RuntimeError("the key is hunter2")

    original = world.deps
    world.deps = lambda: replace(original(), entry=explode)  # type: ignore[method-assign]  # a broken dependency
    answer = get(world, "/v1/models")
    assert (answer.status, answer.code()) == (500, "internal_error")
    assert b"hunter2" not in answer.body


def test_the_openapi_document_lists_exactly_what_is_served(world: ControlWorld) -> None:
    served = set()
    for resource in build_app(world.deps()).router.resources():
        for route in resource:
            if route.method != "HEAD" and not resource.canonical.startswith("/static/"):
                served.add((resource.canonical, route.method.lower()))
    described = {(path, verb) for path, verbs in document("1")["paths"].items() for verb in verbs}
    assert described == served


# -- readiness


def test_ready_when_a_model_could_be_loaded(world: ControlWorld) -> None:
    assert get(world, "/ready").json() == {"status": "ready"}


def test_not_ready_while_stopping(world: ControlWorld) -> None:
    world.fleet.stopping = True
    answer = get(world, "/ready")
    assert (answer.status, answer.code()) == (503, "not_ready")
    assert "shutting down" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "5"


def test_not_ready_without_models_says_what_to_do() -> None:
    answer = get(ControlWorld(), "/ready")
    assert answer.status == 503
    assert "models:" in answer.json()["error"]["message"]


def test_not_ready_when_everything_fails(world: ControlWorld) -> None:
    world.fleet.set("llama", State.FAILED)
    assert get(world, "/ready").status == 200
    world.fleet.set("org/qwen:8b@q4", State.BACKOFF)
    assert get(world, "/ready").status == 503


def test_not_ready_when_no_engine_is_installed_names_the_remedy() -> None:
    world = ControlWorld()
    world.add(local_model("m", problem=EngineMissingError("run `modelyard engine install mlx-lm`")))
    answer = get(world, "/ready")
    assert answer.status == 503
    assert "modelyard engine install mlx-lm" in answer.json()["error"]["message"]


def test_not_ready_when_nothing_could_be_started_says_why(world: ControlWorld) -> None:
    world.fleet.hindrance = "no model can be started: the disk is full"
    answer = get(world, "/ready")
    assert (answer.status, answer.code()) == (503, "not_ready")
    assert answer.json()["error"]["message"] == "no model can be started: the disk is full"
    world.add(endpoint_model("remote"))
    assert get(world, "/ready").status == 200


def test_an_endpoint_alone_makes_it_ready() -> None:
    world = ControlWorld()
    world.add(endpoint_model("remote"))
    assert get(world, "/ready").status == 200


# -- models


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_models_are_listed_loaded_or_not(world: ControlWorld, prefix: str) -> None:
    world.fleet.set("llama", State.READY)
    listing = get(world, f"{prefix}/models").json()
    assert listing["object"] == "list"
    assert {entry["id"]: entry["state"] for entry in listing["data"]} == {
        "org/qwen:8b@q4": "stopped",
        "llama": "ready",
    }


@pytest.mark.parametrize("spelling", ["org/qwen:8b@q4", "org%2Fqwen%3A8b%40q4", "org%2fqwen:8b@q4", "qwen"])
@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_an_id_in_a_path_may_be_encoded_or_not(world: ControlWorld, prefix: str, spelling: str) -> None:
    assert get(world, f"{prefix}/models/{spelling}").json()["id"] == "org/qwen:8b@q4"


def test_a_virtual_name_is_listed_and_shown_in_the_shape_of_a_model(world: ControlWorld) -> None:
    world.virtual["smart"] = VirtualConfig(models=("org/qwen:8b@q4", "auto"))
    listed = get(world, "/v1/models").json()["data"]
    entry = next(one for one in listed if one["id"] == "smart")
    assert entry == get(world, "/v1/models/smart").json()
    assert (entry["engine"], entry["state"]) == ("virtual", "virtual")
    assert entry["source"] == "org/qwen:8b@q4, auto"


def test_an_unknown_model_is_404_with_its_param(world: ControlWorld) -> None:
    answer = get(world, "/v1/models/gpt-9")
    assert (answer.status, answer.code()) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"


# -- status and the page


def test_the_default_model_is_that_of_the_catalog_now(world: ControlWorld) -> None:
    for name in ("a", None):
        world.default_model = name
        for path in ("/api/status", "/api/v1/inference/status"):
            assert get(world, path).json()["default_model"] == name


def test_a_browser_gets_the_page_and_a_program_the_json(world: ControlWorld) -> None:
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    assert get(world, "/status", Accept=browser).headers["content-type"].startswith("text/html")
    assert get(world, "/status", Accept="*/*").json()["version"] == "1.2.3"
    assert get(world, "/status").json()["pid"] == 77
    assert get(world, "/status?format=json", Accept=browser).json()["version"] == "1.2.3"
    assert get(world, "/status?format=html").headers["content-type"].startswith("text/html")
    assert get(world, "/status").headers["vary"] == "Accept"


def test_an_unknown_format_is_said(world: ControlWorld) -> None:
    answer = get(world, "/status?format=xml")
    assert (answer.status, answer.code()) == (400, "bad_query")


def test_the_root_sends_a_browser_on_and_tells_a_program(world: ControlWorld) -> None:
    answer = get(world, "/", Accept="text/html")
    assert (answer.status, answer.headers["location"]) == (302, "/status")
    assert get(world, "/").json()["chat"] == "POST /v1/chat/completions"


def files_of_the_page(world: ControlWorld) -> dict[str, str]:
    """Everything the page pulls in, by path, followed through its imports."""
    found: dict[str, str] = {}
    todo = ["/status?format=html"]
    while todo:
        path = todo.pop()
        answer = get(world, path)
        assert answer.status == 200, path
        text = found[path] = answer.body.decode()
        names = re.findall(r"""(?:src|href)="(/static/[^"]+)"|from "\./([^"]+)\"""", text)
        todo += [
            own or f"/static/{imported}"
            for own, imported in names
            if (own or f"/static/{imported}") not in found
        ]
    return found


def test_the_page_needs_nothing_from_elsewhere(world: ControlWorld) -> None:
    files = files_of_the_page(world)
    assert {Path(path).name for path in files if path.startswith("/static/")} == {
        path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css")
    }
    for path, text in files.items():
        assert "https://" not in text, path
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), path


def test_styles_and_scripts_have_types_browsers_insist_on(world: ControlWorld) -> None:
    assert get(world, "/static/status.css").headers["content-type"].startswith("text/css")
    assert get(world, "/static/status.js").headers["content-type"].startswith("text/javascript")


def test_the_page_never_writes_markup_or_inline_code(world: ControlWorld) -> None:
    for path, text in files_of_the_page(world).items():
        for danger in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
        ):
            assert danger not in text, path
        if path.startswith("/status"):
            assert not re.search(r"<style|style=| on[a-z]+=|<script(?![^>]* src=)", text)


def test_no_path_reaches_other_files(world: ControlWorld) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/",
        "/static/status.html",
    ):
        assert get(world, path).status == 404


# -- metrics


def test_metrics_show_requests_and_the_fleet(world: ControlWorld) -> None:
    world.metrics.record(
        RequestRecord("r", "POST", "/v1/chat/completions", "c", model="llama", status=200, outcome="served")
    )
    world.fleet.put(replace(instance_view("llama", State.READY), leases=3))
    answer = get(world, "/metrics")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = 'code="200",endpoint="/v1/chat/completions",model="llama",outcome="served"'
    assert f"modelyard_requests_total{{{labels}}} 1.0" in text
    assert 'modelyard_instance_state{model="llama",state="ready"} 1.0' in text
    assert 'modelyard_in_flight{model="llama"} 3.0' in text
    assert 'modelyard_build_info{version="1.2.3"} 1.0' in text


# -- guards


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.8.9.1:1", "[::1]:8080", "a.localhost"])
def test_loopback_names_are_answered(world: ControlWorld, host: str) -> None:
    assert get(world, "/health", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1"])
def test_other_names_are_refused_on_loopback(world: ControlWorld, host: str) -> None:
    answer = get(world, "/api/status", Host=host)
    assert (answer.status, answer.code()) == (403, "host_not_allowed")
    assert "http://127.0.0.1:8080" in answer.json()["error"]["message"]
    assert "host_names" in answer.json()["error"]["message"]


def test_a_reverse_proxys_name_is_answered_and_its_page_may_change_something(world: ControlWorld) -> None:
    world.host_names = frozenset({"Yard.example.com"})
    assert get(world, "/api/status", Host="yard.example.com").status == 200
    page = {"Host": "yard.example.com", "Origin": "https://yard.example.com", "Sec_Fetch_Site": "same-origin"}
    assert post(world, "/api/models/llama/pin", **page).status == 200
    # Whatever Host the proxy sends, the browser says where its page comes from.
    assert post(world, "/api/models/llama/pin", **{**page, "Host": "127.0.0.1:8080"}).status == 200
    assert get(world, "/api/status", Host="other.example.com").code() == "host_not_allowed"
    foreign = {**page, "Origin": "https://other.example.com"}
    assert post(world, "/api/models/llama/unload", **foreign).code() == "cross_origin"


def test_any_name_is_answered_where_we_listen_to_the_network(world: ControlWorld) -> None:
    world.listen = ("0.0.0.0:8080",)
    assert get(world, "/health", Host="models.lan").status == 200


def test_another_site_may_not_unload(world: ControlWorld) -> None:
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
    ):
        answer = post(world, "/api/models/llama/unload", **headers)
        assert (answer.status, answer.code()) == (403, "cross_origin")
    assert world.fleet.calls == []


def test_the_page_itself_and_programs_may(world: ControlWorld) -> None:
    for headers in (
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://127.0.0.1:8080"},
        {"Sec_Fetch_Site": "none"},
        {},
    ):
        assert post(world, "/api/models/llama/unload", **headers).status == 200
