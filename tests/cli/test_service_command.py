"""`modelyard service` on a machine whose service manager is a script."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli import service
from cli.errors import CliError
from cli.main import run
from cli.service import installed_plan
from cli.service_host import Host, install, state_of, this_host, uninstall
from cli.units import LABEL, Kind, Plan, Scope, install_command, unit_files


@dataclass
class ScriptedManager:
    """systemctl and launchctl: keeps what it was told, and what state that makes."""

    refuses: str = ""
    """A word; commands with it fail."""
    told: list[list[str]] = field(default_factory=list)
    active: bool = False
    enabled: bool = False
    loaded: bool = False

    def __call__(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.told.append(list(words))
        if self.refuses and self.refuses in words:
            return subprocess.CompletedProcess(words, 1, "", "Failed to connect to bus\n")
        out, code = "", 0
        if "show" in words:
            state = "active" if self.active else "inactive"
            out = (
                f"ActiveState={state}\nSubState=running\nMainPID={4711 if self.active else 0}\nNRestarts=2\n"
            )
            out += f"StatusText=1 ready of 3 models\nUnitFileState={'enabled' if self.enabled else ''}\n"
        elif "enable" in words:
            self.enabled = True
            self.active = self.active or "modelyard.service" in words
        elif "disable" in words:
            self.enabled = self.active = False
        elif "bootstrap" in words:
            self.loaded = True
        elif "bootout" in words:
            self.loaded = False
        elif "print" in words:
            code, out = (0, "\tstate = running\n") if self.loaded else (113, "")
        return subprocess.CompletedProcess(words, code, out, "")

    def did(self, *words: str) -> bool:
        """Whether it was told a command with all of *words*."""
        return any(set(words) <= set(told) for told in self.told)


@pytest.fixture
def manager() -> ScriptedManager:
    return ScriptedManager()


@pytest.fixture
def host(manager: ScriptedManager, tmp_path: Path) -> Host:
    return Host(Kind.SYSTEMD, manager, tmp_path / "root")


def plan(**changes: object) -> Plan:
    return Plan(("/opt/modelyard/bin/modelyard",), **changes)  # type: ignore[arg-type]  # as the test says


def test_installing_writes_the_files_and_opens_the_port_before_the_daemon_starts(
    host: Host, manager: ScriptedManager
) -> None:
    said = install(plan(), host)
    assert [file.text for file in unit_files(plan(), Kind.SYSTEMD)] == [
        host.place(file.path).read_text() for file in unit_files(plan(), Kind.SYSTEMD)
    ]
    assert "/etc/systemd/system/modelyard.service written" in said
    verbs = [" ".join(words) for words in manager.told if "show" not in words and "sysusers" not in words[0]]
    assert verbs == [
        "systemctl daemon-reload",
        "systemctl enable --now modelyard.socket",
        "systemctl enable --now modelyard.service",
    ]
    assert manager.did("systemd-sysusers")


def test_installing_again_changes_nothing(host: Host, manager: ScriptedManager) -> None:
    install(plan(), host)
    manager.told.clear()
    assert install(plan(), host)[0] == "the files are as they should be"
    assert not manager.did("daemon-reload")


def test_a_changed_unit_does_not_restart_a_daemon_that_runs(host: Host, manager: ScriptedManager) -> None:
    install(plan(), host)
    said = install(plan(listen="127.0.0.1:9000"), host)
    assert "/etc/systemd/system/modelyard.socket written" in said
    assert "systemctl restart modelyard" in said[-1]
    assert not manager.did("restart")


def test_without_its_socket_an_earlier_one_is_taken_back(host: Host, manager: ScriptedManager) -> None:
    install(plan(), host)
    install(plan(socket=False), host)
    assert not host.place(Path("/etc/systemd/system/modelyard.socket")).exists()
    assert manager.did("disable", "modelyard.socket")


def test_a_person_has_a_manager_of_their_own(host: Host, manager: ScriptedManager) -> None:
    said = install(plan(scope=Scope.USER, home=Path("/home/me")), host)
    assert host.place(Path("/home/me/.config/systemd/user/modelyard.service")).exists()
    assert all(words[:2] == ["systemctl", "--user"] for words in manager.told)
    assert "enable-linger" in said[-1]


def test_a_manager_that_refuses_is_one_line(tmp_path: Path) -> None:
    host = Host(Kind.SYSTEMD, ScriptedManager(refuses="daemon-reload"), tmp_path)
    with pytest.raises(CliError, match="`systemctl daemon-reload` failed: Failed to connect to bus"):
        install(plan(), host)


def test_a_folder_that_cannot_be_written_says_what_to_do(host: Host) -> None:
    host.root.mkdir()
    (host.root / "etc").write_text("a file where a folder should be")
    with pytest.raises(CliError, match="was not changed"):
        install(plan(), host)


def test_uninstalling_stops_it_and_removes_the_files(host: Host, manager: ScriptedManager) -> None:
    install(plan(), host)
    assert len(uninstall(plan(), host)) == 3
    assert manager.did("disable", "--now", "modelyard.service", "modelyard.socket")
    assert [path for path in host.root.rglob("*") if path.is_file()] == []
    assert uninstall(plan(), host) == ["it is not installed"]


def test_the_state_of_what_is_not_there(host: Host) -> None:
    found = state_of(plan(), host)
    assert (found["installed"], found["running"], found["pid"]) == (False, False, None)
    assert service.lines_of(found) == ["not installed: `modelyard service install --system`"]


def test_the_state_of_a_running_service(host: Host) -> None:
    install(plan(), host)
    found = state_of(plan(), host)
    assert (found["running"], found["enabled"], found["pid"], found["restarts"]) == (True, True, 4711, 2)
    assert found["differs"] == []
    assert service.lines_of(found) == ["running, pid 4711, restarted 2 times", "1 ready of 3 models"]


def test_an_address_that_was_changed_since_is_noticed(host: Host) -> None:
    install(plan(), host)
    found = state_of(plan(listen="127.0.0.1:9000"), host)
    assert found["differs"] == ["/etc/systemd/system/modelyard.socket"]
    assert "`modelyard service install --system`" in service.lines_of(found)[-1]


def test_what_was_chosen_is_remembered(host: Host, tmp_path: Path) -> None:
    config = tmp_path / "odd name.yaml"
    config.write_text("listen: 127.0.0.1:9000\n")
    chosen = service.make_plan(Scope.SYSTEM, config=config, account="root", socket=False)
    install(chosen, host)
    again = installed_plan(Scope.SYSTEM, host)
    assert again == chosen
    assert state_of(again, host)["differs"] == []
    command = install_command(again)
    assert command == f"modelyard service install --system --config '{config}' --run-as root --no-socket"


def test_an_unknown_account_is_wrong_usage() -> None:
    with pytest.raises(CliError, match="no account 'nobody-here'"):
        service.make_plan(Scope.SYSTEM, account="nobody-here")


@pytest.mark.parametrize("program", ["/root/.local/bin/modelyard", "/home/me/venv/bin/modelyard"])
def test_a_program_in_a_home_is_not_for_another_account(program: str) -> None:
    assert "where the account 'modelyard' cannot run it" in service.unreachable_program(Plan((program,)))
    mine = Plan((program,), account="me", home=Path(program).parents[2])
    assert service.unreachable_program(mine) == ""
    assert service.unreachable_program(Plan((program,), scope=Scope.USER)) == ""


# -- launchd


def test_launchd_is_given_its_property_list_once(manager: ScriptedManager, tmp_path: Path) -> None:
    host = Host(Kind.LAUNCHD, manager, tmp_path)
    mine = plan(scope=Scope.USER, home=Path("/Users/me"))
    install(mine, host)
    path = tmp_path / "Users/me/Library/LaunchAgents" / f"{LABEL}.plist"
    assert path.exists()
    assert manager.did("launchctl", "bootstrap", str(path))
    assert install(mine, host) == ["the files are as they should be", "it is loaded already"]
    assert state_of(mine, host)["running"]
    assert uninstall(mine, host) == [f"/Users/me/Library/LaunchAgents/{LABEL}.plist removed"]
    assert not state_of(mine, host)["running"]


# -- the command


def test_printing_shows_every_file_and_writes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["service", "install", "--user", "--print"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "home/.config/systemd/user"
    assert f"# {folder}/modelyard.service\n[Unit]\n" in out
    assert "ListenStream=127.0.0.1:8080\n" in out
    assert not folder.exists()


@pytest.mark.skipif(this_host().kind is not None, reason="this machine has a service manager")
@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_without_a_service_manager_it_is_one_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", verb, "--user"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: neither systemd nor launchd runs this machine")
    assert err.count("\n") == 1


def test_a_wrong_configuration_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("listen: nowhere\n")
    assert run(["service", "install", "--user", "--print", "--config", str(wrong)]) == 78
    assert "listen" in capsys.readouterr().err


def test_a_state_is_json_for_programs(host: Host) -> None:
    shown = json.loads(json.dumps(state_of(plan(), host)))
    assert {"manager", "scope", "installed", "enabled", "running", "differs", "files"} <= set(shown)
