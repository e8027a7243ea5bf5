"""Ring 4: the real daemon, real shims, children that run a scripted engine."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import FAKE_ENGINE, RunningDaemon, events, free_port, scripted

pytestmark = pytest.mark.process


def test_a_request_starts_the_model_and_a_stop_leaves_nothing(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        assert daemon.model("a")["state"] == "stopped"
        answer = daemon.chat("a")
        assert answer.status_code == 200
        assert answer.json()["model"] == "a"
        assert "served by a" in answer.json()["choices"][0]["message"]["content"]
        shown = daemon.model("a")
        assert shown["state"] == "ready"
        assert psutil.pid_exists(shown["pid"])
        assert daemon.stop() == 0
        assert daemon.descendants() == []


def test_ten_requests_at_once_cause_one_start(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--ready-after", "0.5")}}) as daemon:
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: daemon.chat("a"), range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
        assert daemon.model("a")["starts"] == 1


def test_a_request_that_a_forced_unload_cuts_does_not_start_the_model_again(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--hang-at", "headers")}}) as daemon:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(daemon.chat, "a")
            eventually(lambda: daemon.model("a")["in_flight"] == 1)
            stopped = httpx.post(f"{daemon.url}/api/models/a/unload", params={"force": "1"}, timeout=30)
            assert stopped.status_code == 200, stopped.text
            refused = answer.result(30)
        assert refused.status_code == 503
        assert "unloaded by the operator" in refused.json()["error"]["message"]
        assert (daemon.model("a")["state"], daemon.model("a")["starts"]) == ("stopped", 1)


def test_a_request_says_how_long_its_model_stays(tmp_path: Path) -> None:
    models = {"a": scripted(), "b": {**scripted(), "ttl_max": "1s"}}
    with RunningDaemon(tmp_path, {"models": models, "ttl": "10m"}) as daemon:
        assert daemon.chat("a", keep_alive=-1).status_code == 200
        assert (daemon.model("a")["state"], daemon.model("a")["keep_alive_seconds"]) == ("ready", -1)
        assert daemon.chat("a", keep_alive="0").status_code == 200
        eventually(lambda: daemon.model("a")["state"] == "stopped")
        assert daemon.chat("b", keep_alive="2h").status_code == 200
        assert daemon.model("b")["keep_alive_seconds"] == 1
        eventually(lambda: daemon.model("b")["state"] == "stopped")
        refused = daemon.chat("a", keep_alive="soon")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_keep_alive")


def test_a_streaming_client_sees_comments_while_the_model_loads(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--ready-after", "2.5")}}) as daemon:
        with daemon.stream("a") as answer:
            assert answer.status_code == 200
            lines = list(answer.iter_lines())
        comments = [line for line in lines if line.startswith(": loading a")]
        assert comments
        assert lines[-2:] == ["data: [DONE]", ""]


def test_a_model_that_exits_at_start_is_spawned_rarely_and_says_why(tmp_path: Path) -> None:
    knobs = ("--exit-at-start", "--stderr-line", "ValueError: no such quantisation: q3_zz")
    with RunningDaemon(tmp_path, {"models": {"bad": scripted(*knobs)}}) as daemon:
        for _ in range(6):
            answer = daemon.chat("bad")
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert error["code"] == "model_failed"
            assert "ValueError: no such quantisation: q3_zz" in error["message"]
        assert daemon.model("bad")["starts"] == 1
        assert "retry-after" in answer.headers


def test_an_engine_killed_before_its_first_byte_is_replaced_and_the_request_succeeds(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--slow-first-byte", "1.5")}}) as daemon:
        daemon.chat("a")
        victim = daemon.model("a")["pid"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pending = pool.submit(daemon.chat, "a")
            eventually(lambda: daemon.model("a")["in_flight"] == 1, what="the request to be in flight")
            os.kill(victim, signal.SIGKILL)
            answer = pending.result(30)
        assert answer.status_code == 200, answer.text
        assert daemon.model("a")["pid"] != victim
        assert daemon.model("a")["starts"] == 2


def test_a_stream_whose_engine_dies_ends_with_a_typed_error_and_the_next_request_works(
    tmp_path: Path,
) -> None:
    slow = scripted("--chunks", "200", "--chunk-interval", "0.05")
    with RunningDaemon(tmp_path, {"models": {"a": slow}}) as daemon:
        daemon.chat("a", max_tokens=1)
        victim = daemon.model("a")["pid"]
        with daemon.stream("a") as answer:
            lines = answer.iter_lines()
            next(line for line in lines if line.startswith("data: "))
            os.kill(victim, signal.SIGKILL)
            rest = list(lines)
        assert "data: [DONE]" not in rest
        last = [line for line in rest if line.startswith("data: ")][-1]
        assert '"error"' in last
        assert daemon.chat("a", max_tokens=1).status_code == 200


def test_a_killed_daemon_s_models_are_adopted_with_their_pids_and_answer(tmp_path: Path) -> None:
    settings = {"models": {"a": scripted("--setsid-child")}, "adopt_within": "30s"}
    daemon = RunningDaemon(tmp_path, settings).start()
    daemon.chat("a")
    pid = daemon.model("a")["pid"]
    daemon.kill()
    assert psutil.pid_exists(pid)
    with RunningDaemon(tmp_path, settings) as heir:
        answer = heir.chat("a")
        assert answer.status_code == 200
        assert f"pid {pid}" in answer.json()["choices"][0]["message"]["content"]
        assert heir.model("a")["pid"] == pid
        assert heir.model("a")["starts"] == 0


def test_without_a_next_daemon_everything_is_gone_after_adopt_within(tmp_path: Path) -> None:
    settings = {"models": {"a": scripted("--setsid-child", "--ignore-term")}, "adopt_within": "1s"}
    settings["start"] = {"stop_grace": "1s"}
    daemon = RunningDaemon(tmp_path, settings).start()
    daemon.chat("a")
    assert len(daemon.descendants()) >= 3
    daemon.kill()
    eventually(lambda: not daemon.descendants(), within=20, what="shim, engine and grandchild to be gone")


def test_a_second_daemon_on_the_same_state_directory_is_refused_with_75(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {}) as first:
        second = RunningDaemon(tmp_path, {"state_dir": str(tmp_path / "state")})
        process = second.spawn()
        assert process.wait(20) == 75
        assert first.process is not None
        assert f"{first.process.pid}" in second.log.splitlines()[-1]
        assert first.status()["models"] == []


def test_models_are_reaped_when_idle_for_their_ttl(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted(ttl="1s")}}) as daemon:
        daemon.chat("a")
        pid = daemon.model("a")["pid"]
        eventually(lambda: daemon.model("a")["state"] == "stopped", within=10)
        assert not psutil.pid_exists(pid)


def test_two_models_share_a_budget_that_holds_one_and_every_answer_is_right(tmp_path: Path) -> None:
    settings = {
        "models": {"a": scripted(memory="600MiB"), "b": scripted(memory="600MiB")},
        "memory": {"host": "1GiB"},
        "admission": {"min_residency": "0.5s"},
    }
    with RunningDaemon(tmp_path, settings) as daemon:

        def client(order: str) -> list[str]:
            return [daemon.chat(name).json()["choices"][0]["message"]["content"] for name in order]

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = pool.map(client, ["ababab", "bababa"])
        assert [text.split()[2] for text in first] == list("ababab")
        assert [text.split()[2] for text in second] == list("bababa")
        shown = daemon.status()["models"]
        assert sum(model["state"] in ("ready", "starting") for model in shown) <= 1


def test_preload_default_model_load_and_unload(tmp_path: Path) -> None:
    settings = {"models": {"a": scripted(preload=True), "b": scripted()}, "default_model": "b"}
    with RunningDaemon(tmp_path, settings) as daemon:
        eventually(lambda: daemon.model("a")["state"] == "ready")
        body = {"messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{daemon.url}/v1/chat/completions", json=body, timeout=20)
        assert "served by b" in answer.text
        assert httpx.post(f"{daemon.url}/api/models/a/unload", timeout=20).status_code == 200
        assert daemon.model("a")["state"] == "stopped"
        assert httpx.post(f"{daemon.url}/api/models/a/load", timeout=20).status_code == 200
        assert daemon.model("a")["state"] == "ready"


def test_what_a_ready_engine_says_is_a_fact_until_it_is_gone(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:

        def rank() -> str:
            shown = httpx.get(f"{daemon.url}/v1/models/a", timeout=20).json()
            return str(shown["facts"]["context_length"]["rank"])

        assert rank() == "None"
        assert daemon.chat("a").status_code == 200
        eventually(lambda: rank() == "engine")
        httpx.post(f"{daemon.url}/api/models/a/unload", timeout=20)
        eventually(lambda: rank() == "None")


def test_unknown_models_and_missing_capabilities_are_refused_before_any_load(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted(capabilities=["generate"])}}) as daemon:
        answer = daemon.chat("nobody")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        embed = httpx.post(f"{daemon.url}/v1/embeddings", json={"model": "a", "input": "x"}, timeout=20)
        assert (embed.status_code, embed.json()["error"]["code"]) == (400, "capability_missing")
        assert daemon.model("a")["starts"] == 0


def test_a_client_that_leaves_stops_the_generation(tmp_path: Path) -> None:
    slow = scripted("--chunks", "2000", "--chunk-interval", "0.02")
    with RunningDaemon(tmp_path, {"models": {"a": slow}}) as daemon:
        with daemon.stream("a") as answer:
            next(line for line in answer.iter_lines() if line.startswith("data: "))
        shown = daemon.model("a")
        stats = f"http://127.0.0.1:{shown['port']}/_stats"
        eventually(lambda: httpx.get(stats).json()["disconnects"] == 1, within=10)
        eventually(lambda: daemon.model("a")["in_flight"] == 0)


def test_an_http_1_0_engine_is_served_to_http_1_1_clients(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--http10")}}) as daemon:
        assert daemon.chat("a").json()["model"] == "a"
        with daemon.stream("a") as answer:
            found = events(answer)
        assert found[-1] == "[DONE]"


def test_engines_find_nothing_of_ours_on_their_import_path(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--try-import", "supervisor.ports")}}) as daemon:
        assert daemon.chat("a").status_code == 200


def test_a_reload_adds_and_removes_models_without_touching_the_others(tmp_path: Path) -> None:
    models = {"a": scripted(), "b": scripted()}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        daemon.chat("a")
        pid = daemon.model("a")["pid"]
        config = tmp_path / "modelyard.yaml"
        config.write_text(config.read_text().replace("  b:\n", "  c:\n"))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: {m["id"] for m in daemon.status()["models"]} == {"a", "c"})
        assert daemon.chat("c").status_code == 200
        assert daemon.model("a")["pid"] == pid


def test_a_broken_configuration_exits_with_78_and_names_the_line(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, {"modells": {}})
    assert daemon.spawn().wait(20) == 78
    assert "modelyard.yaml:" in daemon.log
    assert "modells" in daemon.log


def test_a_taken_port_is_one_line_and_not_a_traceback(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "one", {}) as first:
        second = RunningDaemon(tmp_path / "two", {}, port=first.port)
        assert second.spawn().wait(20) == 1
        assert "Traceback" not in second.log
        assert str(first.port) in second.log


def test_ctrl_c_with_an_open_stream_ends_within_the_grace(tmp_path: Path) -> None:
    slow = scripted("--chunks", "2000", "--chunk-interval", "0.05")
    settings = {"models": {"a": slow}, "shutdown_grace": "1s"}
    with RunningDaemon(tmp_path, settings) as daemon, daemon.stream("a") as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        began = time.monotonic()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGINT)
        rest = list(lines)
        assert '"error"' in [line for line in rest if line.startswith("data: ")][-1]
        assert daemon.process.wait(20) == 0
        assert time.monotonic() - began < 15


def test_a_running_server_is_listed_used_when_named_and_refused_when_it_is_gone(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-S", str(FAKE_ENGINE), "--port", str(port), "--model", "outside"]
    with subprocess.Popen(command) as server:
        endpoint = {"name": "box", "url": f"http://127.0.0.1:{port}", "health_every": "0.3s"}
        with RunningDaemon(tmp_path, {"endpoints": [endpoint]}) as daemon:

            def listed() -> set[str]:
                return {m["id"] for m in httpx.get(f"{daemon.url}/v1/models").json()["data"]}

            eventually(lambda: listed() == {"outside"})
            assert "served by outside" in daemon.chat("outside").text
            assert "served by outside" in daemon.chat("outside@box").text
            server.kill()
            server.wait()
            eventually(lambda: daemon.chat("outside").status_code in (404, 503))
            error = daemon.chat("outside").json()["error"]
            assert error["code"] in ("endpoint_down", "model_not_found")


def test_an_endpoint_that_is_the_daemon_itself_is_not_listed(tmp_path: Path) -> None:
    port = free_port()
    endpoint = {"name": "me", "url": f"http://127.0.0.1:{port}", "health_every": "0.1s"}
    settings = {"endpoints": [endpoint], "models": {"a": scripted()}}
    with RunningDaemon(tmp_path, settings, port=port) as daemon:
        eventually(lambda: "it is this daemon itself" in daemon.log)
        ids = {m["id"] for m in httpx.get(f"{daemon.url}/v1/models").json()["data"]}
        assert ids == {"a"}


def test_a_model_whose_engine_is_missing_names_the_command_that_installs_it(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    settings = {"models": {"a": {"source": str(folder), "engine": "mlx-lm"}}}
    with RunningDaemon(tmp_path, settings, env={"MODELYARD_ENGINES": str(tmp_path / "none")}) as daemon:
        error = daemon.chat("a").json()["error"]
        assert error["code"] == "engine_not_installed"
        assert "modelyard engine install mlx-lm" in error["message"]


def test_health_ready_metrics_and_the_status_page_answer(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        daemon.chat("a")
        assert httpx.get(f"{daemon.url}/ready").status_code == 200
        metrics = httpx.get(f"{daemon.url}/metrics").text
        assert 'modelyard_instance_state{model="a",state="ready"} 1.0' in metrics
        page = httpx.get(f"{daemon.url}/status", headers={"accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        assert httpx.get(f"{daemon.url}/status").json()["models"][0]["id"] == "a"
