"""`modelyard doctor` on this machine, and its readers on folders that are made for them."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from cli import readings
from cli.checks import Finding, Level
from cli.doctor import print_findings, summary
from cli.facts import PortFacts
from cli.main import run
from cli.readings import cpu_flags, holder_of, nvidia_on_bus, offline_by, read_folder, read_port
from registry.machine import read_machine
from tests.support.daemon_stub import DaemonStub, Reply
from tests.support.running_daemon import RunningDaemon, free_port, scripted


@pytest.fixture
def free(tmp_path: Path) -> str:
    """A configuration with an address that nobody has."""
    file = tmp_path / "yard.yaml"
    file.write_text(json.dumps({"listen": f"127.0.0.1:{free_port()}", "discover": {"demo": False}}))
    return str(file)


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """The report, and its findings by check."""
    report = json.loads(capsys.readouterr().out)
    by_check: dict[str, list[dict[str, str]]] = {}
    for one in report["findings"]:
        assert set(one) == {"check", "level", "what", "remedy"}
        by_check.setdefault(one["check"], []).append(one)
    return report, by_check


def configure(tmp_path: Path, **settings: object) -> str:
    file = tmp_path / "yard.yaml"
    settings = {"listen": f"127.0.0.1:{free_port()}", "discover": {"demo": False}, **settings}
    file.write_text(json.dumps(settings))
    return str(file)


def test_an_empty_machine_lacks_a_model_and_an_engine(free: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json", "--config", free]) == 1
    report, by_check = findings(capsys)
    assert report["healthy"] is False
    assert report["counts"]["fail"] == sum(
        one["level"] == "fail" for found in by_check.values() for one in found
    )
    assert by_check["models"][0]["what"] == "no model was found"
    assert by_check["engine"][0]["what"] == "no engine is installed"
    assert by_check["hub"][0]["level"] == "warn"


@pytest.mark.skipif(bool(read_machine().gpus) or sys.platform == "darwin", reason="this machine has a GPU")
def test_this_machine_has_no_gpu_and_hears_what_runs_anyway(
    free: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["doctor", "--config", free])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("gpu"))
    assert "what runs anyway: mlx-lm (on the CPU)" in row


def test_with_a_model_that_runs_the_status_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = configure(tmp_path, models={"a": scripted()})
    assert run(["doctor", "--config", file]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["CHECK", "LEVEL", "FINDING", "WHAT", "TO", "DO"]
    assert "models   ok     1 can be served: a" in out
    assert err.startswith("0 to mend, ")


def test_a_wrong_configuration_is_a_finding_and_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("lisen: 1\nttl: soon\n")
    assert run(["doctor", "--json", "--config", str(file)]) == 1
    _, by_check = findings(capsys)
    assert [one["what"].partition("wrong.yaml:")[2][:8] for one in by_check["config"]] == [
        "1: lisen",
        "2: ttl: ",
    ]
    assert {"state", "memory", "gpu"} <= set(by_check)


def test_a_missing_engine_and_a_missing_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 8}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    models = {
        "a": {"source": str(checkpoint), "engine": "mlx-lm"},
        "b": {"cmd": "no-such-server --port {port}"},
    }
    assert run(["doctor", "--json", "--config", configure(tmp_path, models=models)]) == 1
    _, by_check = findings(capsys)
    assert {"modelyard engine install mlx-lm"} <= {one["remedy"] for one in by_check["engine"]}
    assert "'no-such-server'" in by_check["models"][0]["what"]


def test_an_engine_path_without_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = configure(tmp_path, engines={"vllm": {"path": str(tmp_path / "nothing")}})
    assert run(["doctor", "--json", "--config", file]) == 1
    _, by_check = findings(capsys)
    assert "engines.vllm.path: there is no vllm" in by_check["engine"][0]["what"]


def test_half_an_installation(free: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home" / "modelyard" / "engines" / "mlx-lm").mkdir(parents=True)
    run(["doctor", "--json", "--config", free])
    _, by_check = findings(capsys)
    assert "was never finished" in by_check["engine"][0]["what"]


def test_a_taken_port_names_its_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub() as stranger:
        file = configure(tmp_path, listen=stranger.url.removeprefix("http://"))
        assert run(["doctor", "--json", "--config", file]) == 1
    _, by_check = findings(capsys)
    assert by_check["port"][0]["level"] == "fail"
    assert f"(pid {os.getpid()})" in by_check["port"][0]["what"]


def test_our_own_daemon_on_the_port_is_fine() -> None:
    with DaemonStub({"GET /api/status": Reply({"version": "9", "pid": 5})}) as stub:
        found = read_port(stub.url.removeprefix("http://"))
    assert (found.state, found.holder) == ("ours", "modelyard 9 runs there (pid 5)")


def test_our_own_daemon_with_keys_is_fine_too() -> None:
    locked = Reply({"error": {"code": "missing_api_key"}}, 401)
    answers = {"GET /api/status": locked, "GET /": Reply({"name": "modelyard", "version": "9"})}
    with DaemonStub(answers) as stub:
        found = read_port(stub.url.removeprefix("http://"))
    assert (found.state, found.holder) == ("ours", "modelyard 9 runs there")


def test_a_socket_file_is_free_stale_taken_or_impossible(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path: a socket's has 104 bytes
        path = Path(folder) / "yard.sock"
        assert read_port(f"unix:{path}").state == "free"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert read_port(f"unix:{path}").state == "free", "nobody listens: it is replaced"
            listener.listen()
            listener.settimeout(5)

            def hang_up() -> None:
                for _ in range(2):
                    listener.accept()[0].close()

            closing = threading.Thread(target=hang_up)
            closing.start()
            assert read_port(f"unix:{path}") == PortFacts("taken", "another process")
            closing.join()
    (tmp_path / "file").write_text("mine")
    assert "no socket" in read_port(f"unix:{tmp_path}/file").holder
    assert read_port(f"unix:{tmp_path}/none/yard.sock").holder == f"there is no folder {tmp_path}/none"


def test_an_address_of_another_machine_cannot_be_had() -> None:
    found = read_port("192.0.2.1:8080")
    assert found.state == "impossible"
    assert found.holder


def test_a_port_that_nobody_has_has_no_holder() -> None:
    port = free_port()
    assert holder_of(port) == (None, "")
    with socket.create_server(("127.0.0.1", port)):
        assert holder_of(port)[0] == os.getpid()


def test_a_state_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["doctor", "--json", "--config", configure(tmp_path, state_dir=f"{tmp_path}/file/state")]) == 1
    _, by_check = findings(capsys)
    assert "cannot be made" in by_check["state"][0]["what"]


def test_a_folder_is_read_as_this_account_sees_it(tmp_path: Path) -> None:
    here = read_folder(tmp_path)
    assert (here.exists, here.is_ours, here.readable, here.writable) == (True, True, True, True)
    assert here.free_bytes
    deep = read_folder(tmp_path / "a" / "b")
    assert (deep.exists, deep.writable) == (False, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not read_folder(tmp_path).writable
    tmp_path.chmod(0o700)


def test_a_folder_of_somebody_else_is_not_ours() -> None:
    if os.geteuid() != 0:
        assert not read_folder(Path("/")).is_ours


def test_nvidia_is_found_on_the_bus(tmp_path: Path) -> None:
    def device(name: str, vendor: str, kind: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")

    assert not nvidia_on_bus(tmp_path / "none")
    device("0", "0x10de", "0x040300")  # its sound
    device("1", "0x8086", "0x030000")
    assert not nvidia_on_bus(tmp_path)
    device("2", "0x10de", "0x030200")
    assert nvidia_on_bus(tmp_path)


def test_the_cpus_instructions() -> None:
    assert cpu_flags("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n") == {"fpu", "avx2", "avx512f"}
    assert cpu_flags("Processor: ARM\n") == frozenset()


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, ""),
        ({"HF_HUB_OFFLINE": "0"}, ""),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "yes"}, "TRANSFORMERS_OFFLINE"),
    ],
)
def test_what_keeps_the_hub_offline(env: dict[str, str], name: str) -> None:
    assert offline_by(env) == name


def test_a_library_is_there_or_not() -> None:
    assert not readings._has_library("libno-such-thing.so.9")


# -- how it looks


def test_what_to_do_stands_below_for_people_and_beside_for_grep(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("port", Level.FAIL, "8080 is taken", "stop it"), Finding("hub", Level.OK, "fine")]
    print_findings(found, is_terminal=False)
    assert capsys.readouterr().out == (
        "CHECK  LEVEL  FINDING        WHAT TO DO\nport   fail   8080 is taken  stop it\nhub    ok     fine\n"
    )
    print_findings(found, is_terminal=True)
    assert "8080 is taken\n→ stop it" in capsys.readouterr().out


def test_the_last_line_counts() -> None:
    assert summary([Finding("x", Level.OK, "fine")]) == "nothing is wrong"
    found = [Finding("x", level, "y") for level in (Level.OK, Level.WARN, Level.FAIL, Level.FAIL)]
    assert summary(found) == "2 to mend, 1 to know about, 1 fine"


# -- ring 4


@pytest.mark.process
def test_beside_a_running_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        file = configure(tmp_path / "home", listen=f"127.0.0.1:{daemon.port}", models={"a": scripted()})
        assert run(["doctor", "--json", "--config", file]) == 0
        _, by_check = findings(capsys)
        assert daemon.process is not None
        assert f"runs there (pid {daemon.process.pid})" in by_check["port"][0]["what"]
