"""The wheel: one top-level name, everything in it, at home beside PyPI's `supervisor` in a foreign folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelyard
from tests.support.eventually import eventually

ROOT = Path(modelyard.__file__).parent.parent
PACKAGES = ("router", "supervisor", "registry", "config", "cli")
FAKE_ENGINE = ROOT / "tests" / "support" / "fake_engine.py"

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def names(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="session")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the process manager `supervisor` first and our wheel after it."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    beside = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    python = str(folder / "bin" / "python")
    if uv is not None:
        steps = [[uv, "venv", "-q", "--python", sys.executable, str(folder)]]
        pip = [uv, "pip", "install", "-q", "--python", python]
    else:
        steps = [[sys.executable, "-m", "venv", str(folder)]]
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for step in (*steps, [*pip, "supervisor"], [*pip, str(wheel)]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step}: {done.stderr}"
    return folder


@pytest.fixture
def abroad(tmp_path: Path) -> Path:
    """A working directory with traps: folders that are named like our packages."""
    for name in PACKAGES:
        trap = tmp_path / name / "__init__.py"
        trap.parent.mkdir()
        trap.write_text("raise ImportError('imported from the working directory')\n")
    return tmp_path


def environment(home: Path, **more: str) -> dict[str, str]:
    keep = ("PATH", "LANG", "TMPDIR")
    return {
        **{name: os.environ[name] for name in keep if name in os.environ},
        "HOME": str(home),
        "VLLM_MLX_ENDPOINT": "http://127.0.0.1:9",
        **more,
    }


def run(prefix: Path, cwd: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    argv = [str(prefix / "bin" / words[0]), *words[1:]]
    env = environment(cwd, **more)
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_its_only_top_level_names_are_ours(names: frozenset[str]) -> None:
    assert {name.split("/")[0] for name in names} == {
        "modelyard",
        f"modelyard-{modelyard.__version__}.dist-info",
    }


def test_every_file_of_our_packages_is_in_it(names: frozenset[str]) -> None:
    expected = set()
    for package, place in [
        ("modelyard", "modelyard"),
        *((name, f"modelyard/_root/{name}") for name in PACKAGES),
    ]:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{place}/{path.relative_to(ROOT / package).as_posix()}")
    assert expected - names == set()
    assert {"modelyard/py.typed", "modelyard/_root/config/schema.json"} <= expected


def test_nothing_else_is_in_it(names: frozenset[str]) -> None:
    strange = [name for name in names if "/_root/" in name and name.split("/")[2] not in PACKAGES]
    assert strange == []


def test_the_licence_travels_with_it(names: frozenset[str]) -> None:
    assert f"modelyard-{modelyard.__version__}.dist-info/licenses/LICENSE" in names


def test_both_supervisors_work(prefix: Path, abroad: Path) -> None:
    ours = run(prefix, abroad, "modelyard", "--version")
    assert (ours.returncode, ours.stdout) == (0, f"modelyard {modelyard.__version__}\n"), ours.stderr
    theirs = run(prefix, abroad, "supervisord", "--version")
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout[0].isdigit()


def test_python_m_works_too(prefix: Path, abroad: Path) -> None:
    # `python -m` looks into the working directory first: the traps are met unless we come before it.
    done = run(prefix, abroad, "python", "-m", "modelyard", "--version")
    assert (done.returncode, done.stdout) == (0, f"modelyard {modelyard.__version__}\n"), done.stderr


def test_models_are_listed_without_a_daemon(prefix: Path, abroad: Path) -> None:
    done = run(
        prefix, abroad, "modelyard", "models", "--json", MODELYARD_CONFIG=str(configure(abroad, port=1))
    )
    assert done.returncode == 0, done.stderr
    assert "scripted" in [entry["id"] for entry in json.loads(done.stdout)["data"]]


def configure(folder: Path, *, port: int) -> Path:
    """A configuration with one model: the scripted engine, run by the interpreter of the tests."""
    file = folder / "yard.yaml"
    command = [sys.executable, str(FAKE_ENGINE), "--port", "{port}", "--model", "{model}"]
    file.write_text(
        json.dumps(
            {
                "listen": f"127.0.0.1:{port}",
                "state_dir": str(folder / "state"),
                "models": {"scripted": {"cmd": command}},
                "endpoints": [],
                "discover": {"hub_cache": False, "demo": False},
            }
        )
    )
    return file


@pytest.fixture
def serving(prefix: Path, abroad: Path) -> Iterator[str]:
    """The address of a daemon that runs from the wheel."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(prefix / "bin" / "modelyard"), "serve", "--config", str(configure(abroad, port=port))]
    with (abroad / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(argv, cwd=abroad, env=environment(abroad), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(f"{url}/health") or daemon.poll() is not None, within=30)
        assert daemon.poll() is None, (abroad / "daemon.log").read_text()
        yield url
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0, (abroad / "daemon.log").read_text()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_it_serves_and_chats_in_a_foreign_folder(prefix: Path, abroad: Path, serving: str) -> None:
    done = run(prefix, abroad, "modelyard", "chat", "scripted", "--once", "hello", "--url", serving)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("served by ")
    running = run(prefix, abroad, "modelyard", "ps", "--json", "--url", serving)
    assert [one["state"] for one in json.loads(running.stdout)] == ["ready"]
