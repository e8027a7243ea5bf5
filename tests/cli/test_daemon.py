"""Finding the daemon, and what its failures look like in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from cli.daemon import Daemon, find_url, model_path, refusal, url_of
from cli.errors import CliError, RefusedError, Status
from tests.support.daemon_stub import DaemonStub, Reply


def test_the_option_wins_over_the_environment() -> None:
    assert find_url("http://a:1", {"MODELYARD_URL": "http://b:2"}) == "http://a:1"
    assert find_url(None, {"MODELYARD_URL": "http://b:2/v1/"}) == "http://b:2"
    assert find_url("unix:///run/yard.sock") == find_url("unix:/run/yard.sock") == "unix:/run/yard.sock"


def test_without_either_the_configuration_says_where(tmp_path: Path) -> None:
    file = tmp_path / "modelyard.yaml"
    file.write_text("listen: 0.0.0.0:9000\n")
    assert find_url(None, {"MODELYARD_CONFIG": str(file)}) == "http://127.0.0.1:9000"


def test_a_wrong_configuration_does_not_hide_a_running_daemon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "modelyard.yaml"
    file.write_text("lisen: 0.0.0.0:9000\n")
    assert find_url(None, {"MODELYARD_CONFIG": str(file)}) == "http://127.0.0.1:8080"
    assert "modelyard.yaml:1" in capsys.readouterr().err


def test_an_address_without_a_scheme_is_understood() -> None:
    assert find_url("127.0.0.1:9", {}) == "http://127.0.0.1:9"


@pytest.mark.parametrize("wrong", ["ftp://x", "http://", "://"])
def test_what_is_no_address_is_wrong_usage(wrong: str) -> None:
    with pytest.raises(CliError) as caught:
        find_url(wrong, {})
    assert caught.value.status is Status.USAGE


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("router.lan:80", "http://router.lan:80"),
    ],
)
def test_a_listening_address_becomes_one_to_connect_to(listen: str, url: str) -> None:
    assert url_of(listen) == url


def test_an_id_is_one_segment_of_the_path() -> None:
    assert model_path("org/name:4bit@x", "load") == "/api/models/org%2Fname%3A4bit%40x/load"


def test_the_encoded_id_arrives_as_it_was_sent() -> None:
    with DaemonStub({"POST /api/models/org%2Fname/load": Reply({"state": "ready"})}) as stub:
        assert Daemon(stub.url).post(model_path("org/name", "load")) == {"state": "ready"}


def test_nobody_there_is_status_69_and_says_how_to_start_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        with pytest.raises(CliError, match="modelyard serve") as caught:
            Daemon(f"http://127.0.0.1:{taken.getsockname()[1]}").get("/api/status")
    assert caught.value.status is Status.UNREACHABLE


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with DaemonStub({"GET /api/status": Reply({})}) as stub:
        assert Daemon(stub.url).get("/api/status") == {}


def test_another_server_on_the_port_is_recognised() -> None:
    stub = DaemonStub({"GET /api/status": Reply(b"<html>")})
    with stub, pytest.raises(CliError, match="not modelyard"):
        Daemon(stub.url).get("/api/status")


def test_a_refusal_keeps_message_and_code() -> None:
    body = {"error": {"message": "no model is called x", "code": "model_not_found"}}
    stub = DaemonStub({"GET /v1/models": Reply(body, 404)})
    with stub, pytest.raises(RefusedError, match=r"^no model is called x$") as caught:
        Daemon(stub.url).get("/v1/models")
    assert (caught.value.code, caught.value.http_status) == ("model_not_found", 404)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": "plain text"}', "answered 502: plain text"),
        (b"gateway gone", "answered 502: gateway gone"),
        (b"", "answered 502: Bad Gateway"),
        (b'["list"]', 'answered 502: ["list"]'),
    ],
)
def test_answers_of_other_shapes_still_make_one_line(content: bytes, words: str) -> None:
    request = httpx.Request("GET", "http://h/v1/models")
    message = str(refusal(httpx.Response(502, content=content, request=request)))
    assert words in message
    assert "\n" not in message


def test_a_daemon_that_breaks_the_connection_is_not_taken_for_an_answer() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("peer closed connection", request=request)

    daemon = Daemon("http://h", transport=httpx.MockTransport(broken))
    with pytest.raises(CliError, match="broke the connection"):
        daemon.get("/api/status")
