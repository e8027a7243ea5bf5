"""`ps`, `status`, `load`, `unload` and `logs` against a stand-in daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.main import run
from tests.support.daemon_stub import Asked, DaemonStub, Reply


def entry(*, measured: int | None = 83 * 2**20, **changes: Any) -> dict[str, Any]:
    return {
        "id": "yard-demo",
        "aliases": ["demo"],
        "engine": "mlx-lm",
        "state": "ready",
        "incarnation": 1,
        "pid": 4711,
        "port": 49152,
        "in_flight": 2,
        "waiting": 1,
        "note": "",
        "idle_seconds": None,
        "ttl_seconds": 600.0,
        "pinned": False,
        "memory": {"estimated_bytes": None, "reserved_bytes": 200 * 2**20, "measured_bytes": measured},
        "last_error": None,
        **changes,
    }


STOPPED = entry(
    id="yard-foreman", state="stopped", pid=None, port=None, in_flight=0, waiting=0, measured=None
)
DEVICE = {"id": "host", "reserved_bytes": 2**28, "budget_bytes": 2**34, "free_bytes": 2**33}
STATUS = {"version": "0.1.0", "pid": 99, "models": [entry(), STOPPED], "devices": [DEVICE]}


def test_ps_shows_what_is_active_and_not_what_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(STATUS)}) as stub:
        assert run(["ps", "--url", stub.url]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading == ("MODEL      STATE  ENGINE   PID   PORT    MEMORY  BUSY  WAIT  IDLE  TTL  NOTE")
    assert row == "yard-demo  ready  mlx-lm  4711  49152  83.0 MiB     2     1     -  10m"


def test_ps_all_shows_the_stopped_ones_too(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(STATUS)}) as stub:
        assert run(["ps", "--all", "--url", stub.url]) == 0
    assert "yard-foreman" in capsys.readouterr().out


def test_ps_json_is_the_instances(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(STATUS)}) as stub:
        assert run(["ps", "--json", "--url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == [entry()]


def test_ps_with_nothing_running_says_so_and_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply({**STATUS, "models": [STOPPED]})}) as stub:
        assert run(["ps", "--url", stub.url]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "nothing runs" in err


def test_a_failed_model_shows_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"cause": "No module named mlx", "remedy": "", "code": "engine_failed"}
    failed = entry(state="failed", pid=None, port=None, last_error=failure)
    with DaemonStub({"GET /api/status": Reply({"models": [failed]})}) as stub:
        run(["ps", "--url", stub.url])
    assert "No module named mlx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"ttl_seconds": 0.0}, "never"),
        ({"pinned": True}, "pinned"),
        ({"measured": None}, "~200 MiB"),
        ({"state": "starting", "note": "loading weights 42%"}, "loading weights 42%"),
    ],
)
def test_ps_says_what_a_number_alone_would_not(
    changes: dict[str, Any], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with DaemonStub({"GET /api/status": Reply({"models": [entry(**changes)]})}) as stub:
        run(["ps", "--url", stub.url])
    assert shown in capsys.readouterr().out


def test_status_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(STATUS)}) as stub:
        assert run(["status", "--url", stub.url]) == 0
        first, memory, counts, *_ = capsys.readouterr().out.splitlines()
        assert first == f"modelyard 0.1.0, at {stub.url}, pid 99"
    assert memory == "host: 256 MiB of 16.0 GiB reserved, 8.0 GiB free"
    assert counts == "2 models, 1 active, 2 requests in flight, 1 waiting"


def test_status_json_is_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(STATUS)}) as stub:
        run(["status", "--json", "--url", stub.url])
    assert json.loads(capsys.readouterr().out) == STATUS


def test_load_posts_the_encoded_id_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    routes = {
        "POST /api/models/org%2Fname/load": Reply(entry(id="org/name")),
        "GET /api/status": Reply(STATUS),
    }
    with DaemonStub(routes) as stub:
        assert run(["load", "org/name", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "org/name: ready, pid 4711, port 49152\n"


def test_unload_force_is_asked_for_in_the_query() -> None:
    with DaemonStub({"POST /api/models/m/unload": Reply(entry(id="m", state="stopped", pid=None))}) as stub:
        assert run(["unload", "m", "--force", "--url", stub.url]) == 0
        assert stub.asked == [Asked("POST", "/api/models/m/unload?force=1")]


def test_a_load_that_fails_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"error": {"message": "m exited 1:\nCUDA out of memory", "code": "model_failed"}}
    routes = {"POST /api/models/m/load": Reply(body, 503), "GET /api/status": Reply(STATUS)}
    with DaemonStub(routes) as stub:
        assert run(["load", "m", "--url", stub.url]) == 1
    assert capsys.readouterr().err == "error: m exited 1: CUDA out of memory\n"


def test_logs_prints_the_lines_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/models/m/logs": Reply({"lines": ["one [red]two[/]", "three"]})}) as stub:
        assert run(["logs", "m", "-n", "2", "--url", stub.url]) == 0
        assert stub.asked == [Asked("GET", "/api/models/m/logs?tail=2&format=json")]
    assert capsys.readouterr().out == "one [red]two[/]\nthree\n"


def test_a_server_of_another_kind_is_a_failure_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/status": Reply(["what"])}) as stub:
        assert run(["ps", "--url", stub.url]) == 1
    assert "no models" in capsys.readouterr().err
