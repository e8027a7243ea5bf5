"""The files for service managers: what they say, and that their readers accept them."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import modelyard
from cli.errors import Status
from cli.serve import serve
from cli.units import (
    ACCOUNT,
    LABEL,
    OPEN_FILES,
    Choices,
    Kind,
    Plan,
    Scope,
    choices_in,
    deployed,
    exec_word,
    launchd_plist,
    listen_stream,
    systemd_service,
    systemd_socket,
    unit_files,
)
from router.service import LAUNCHD_LABEL

ROOT = Path(modelyard.__file__).parent.parent
TRUE = (shutil.which("true") or "/bin/true",)
SYSTEM = Plan(TRUE)
USER = Plan(TRUE, scope=Scope.USER, home=Path("/home/me"))
ODD = Plan((*TRUE, "50% off", "$HOME", 'a"b'), config=Path("/etc/my yard/100%.yaml"), account="me")


def settings(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line and line[0] != "#")


# -- what they say


def test_the_committed_files_are_what_is_installed() -> None:
    committed = {name: (ROOT / "deploy" / name).read_text(encoding="utf-8") for name in deployed()}
    assert committed == deployed(), "run `python -m cli.units deploy`"


def test_a_crash_leaves_the_engines_alone_and_brings_the_daemon_back() -> None:
    for plan in (SYSTEM, USER):
        said = settings(systemd_service(plan))
        assert said["Type"] == "notify"
        assert said["KillMode"] == "process"
        assert said["Restart"] == "on-failure"
        assert said["OOMPolicy"] == "continue"
        assert float(said["WatchdogSec"]) > 0
        assert said["RestartPreventExitStatus"].split() == [
            str(int(Status.ALREADY_RUNNING)),
            str(int(Status.CONFIG)),
        ]


def test_the_hardening_lets_gpus_work_and_engines_outlive_a_restart() -> None:
    said = settings(systemd_service(SYSTEM))
    assert said["ProtectSystem"] == "strict"
    assert said["StateDirectory"] == "modelyard"
    harmful = {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "MemoryDenyWriteExecute"}
    assert harmful & set(said) == set()
    assert {"PrivateTmp", "DynamicUser", "RuntimeDirectory", "SystemCallFilter"} & set(said) == set()


def test_a_persons_service_keeps_to_what_a_persons_manager_can() -> None:
    said = settings(systemd_service(USER))
    assert {"User", "StateDirectory", "ProtectSystem", "ExecStartPre"} & set(said) == set()
    assert said["WantedBy"] == "default.target"


def test_somebodys_own_account_may_write_its_home() -> None:
    said = systemd_service(Plan(TRUE, account="me", home=Path("/home/me")))
    assert "User=me\n" in said
    assert "ReadWritePaths=-/home/me\n" in said
    assert "ProtectHome" not in said


def test_the_socket_listens_where_the_configuration_says() -> None:
    assert "ListenStream=[::1]:9000\n" in systemd_socket(Plan(TRUE, listen="[::1]:9000"))
    several = systemd_socket(Plan(TRUE, listen=("https://:8443", "unix:/run/modelyard/front.sock")))
    assert "ListenStream=0.0.0.0:8443\nListenStream=/run/modelyard/front.sock\n" in several
    assert "SocketMode=0600\n" in several
    assert listen_stream(":8080") == "0.0.0.0:8080"
    assert "Also=" not in systemd_service(Plan(TRUE, socket=False))


def test_files_go_where_the_manager_looks() -> None:
    def paths(plan: Plan, kind: Kind) -> list[str]:
        return [str(file.path) for file in unit_files(plan, kind)]

    assert paths(SYSTEM, Kind.SYSTEMD) == [
        "/etc/sysusers.d/modelyard.conf",
        "/etc/systemd/system/modelyard.service",
        "/etc/systemd/system/modelyard.socket",
    ]
    assert paths(Plan(TRUE, account="me", socket=False), Kind.SYSTEMD) == [
        "/etc/systemd/system/modelyard.service"
    ]
    assert paths(USER, Kind.SYSTEMD)[0] == "/home/me/.config/systemd/user/modelyard.service"
    assert paths(USER, Kind.LAUNCHD) == [f"/home/me/Library/LaunchAgents/{LABEL}.plist"]
    assert paths(SYSTEM, Kind.LAUNCHD) == [f"/Library/LaunchDaemons/{LABEL}.plist"]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("serve", "serve"),
        ("a b", '"a b"'),
        ("50%", '"50%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("", '""'),
    ],
)
def test_words_mean_what_they_say(word: str, written: str) -> None:
    assert exec_word(word) == written


@pytest.mark.parametrize("kind", list(Kind))
def test_what_was_chosen_can_be_read_back(kind: Kind) -> None:
    write = launchd_plist if kind is Kind.LAUNCHD else systemd_service
    assert choices_in(write(ODD), kind) == Choices(ODD.config, "me")
    assert choices_in(write(SYSTEM), kind) == Choices(None, ACCOUNT)
    assert choices_in("ExecStart='unbalanced", kind) == Choices()


# -- what their readers say


def verify(folder: Path, *words: str) -> str:
    """What systemd-analyze finds wrong."""
    done = subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.process
@pytest.mark.parametrize("plan", [SYSTEM, ODD, Plan(TRUE, account="me", home=Path("/home/me"))])
def test_systemd_understands_every_line_of_the_system_units(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "modelyard.service").write_text(systemd_service(plan))
    (tmp_path / "modelyard.socket").write_text(systemd_socket(plan))
    assert verify(tmp_path, "verify", "./modelyard.service", "./modelyard.socket") == ""


@needs_systemd
@pytest.mark.process
def test_systemd_understands_every_line_of_a_persons_unit(tmp_path: Path) -> None:
    (tmp_path / "modelyard.service").write_text(systemd_service(USER))
    (tmp_path / "modelyard.socket").write_text(systemd_socket(USER))
    assert verify(tmp_path, "--user", "verify", "./modelyard.service", "./modelyard.socket") == ""


@needs_systemd
@pytest.mark.process
def test_systemd_would_say_what_is_wrong(tmp_path: Path) -> None:
    # The tests above cannot fail if a wrong line goes unnoticed.
    wrong = systemd_service(SYSTEM).replace("KillMode=process", "KillModus=process")
    (tmp_path / "modelyard.service").write_text(wrong)
    assert "KillModus" in verify(tmp_path, "verify", "./modelyard.service")


def test_launchd_can_read_its_property_list() -> None:
    job = plistlib.loads(launchd_plist(ODD).encode())
    assert job["Label"] == LABEL == LAUNCHD_LABEL
    assert job["ProgramArguments"] == [
        *ODD.command,
        "serve",
        "--config",
        "/etc/my yard/100%.yaml",
    ]
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["AbandonProcessGroup"] is True
    assert job["UserName"] == "me"


def test_a_persons_agent_logs_into_their_library() -> None:
    job = plistlib.loads(launchd_plist(USER).encode())
    assert job["StandardErrorPath"] == "/home/me/Library/Logs/modelyard.log"
    assert "UserName" not in job


def test_the_committed_property_list_is_one() -> None:
    job = plistlib.loads((ROOT / "deploy" / f"{LABEL}.plist").read_bytes())
    assert job["ProgramArguments"] == ["/usr/local/bin/modelyard", "serve"]


# -- containers: text that is not built here, held to what it says


def test_the_container_starts_what_there_is() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    name, *words = json.loads(command)
    options = {option for parameter in serve.params for option in parameter.opts}
    assert name == serve.name
    assert {word for word in words if word.startswith("--")} <= options
    assert "We do not build this image" in text


def test_the_compose_file_builds_that_container_for_this_machine_only() -> None:
    yard = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"][
        "modelyard"
    ]
    assert (ROOT / "deploy" / yard["build"]["context"] / yard["build"]["dockerfile"]).is_file()
    assert yard["ports"] == ["127.0.0.1:8080:8080"]
    assert yard["ulimits"]["nofile"] == OPEN_FILES
