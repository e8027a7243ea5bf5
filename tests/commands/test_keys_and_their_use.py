"""`key` against a real daemon: scopes, models, requests at once, expiry, usage, and what is kept."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process

MODELS = {"a": scripted(), "b": scripted(), "slow": scripted("--chunks", "400", "--chunk-interval", "0.05")}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """One whose keys file nobody else writes; asking it needs a key once there is one."""
    with RunningDaemon(tmp_path / "yard", {"models": MODELS}) as running:
        yield running


@pytest.fixture
def cli(daemon: RunningDaemon, tmp_path: Path) -> CommandLine:
    """The command line of the daemon's operator, who has its configuration."""
    home = tmp_path / "operator"
    home.mkdir()
    return CommandLine(home, daemon, {"MODELYARD_CONFIG": str(daemon.folder / "modelyard.yaml")})


def ask(daemon: RunningDaemon, key: str, model: str = "a") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{daemon.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def known(daemon: RunningDaemon, key: str) -> None:
    """Wait until the daemon has read the key: before the first one, everybody is let in."""
    models, headers = f"{daemon.url}/v1/models", {"Authorization": f"Bearer {key}"}
    eventually(lambda: httpx.get(models).status_code == 401)
    eventually(lambda: httpx.get(models, headers=headers).status_code == 200)


@pytest.mark.command("key add", "key list", "key revoke")
def test_a_key_lets_in_is_counted_and_is_taken_back(cli: CommandLine, daemon: RunningDaemon) -> None:
    assert ask(daemon, "").status_code == 200, "without keys everybody gets in"
    done = cli.run("key", "add", "boss", "--scope", "admin")
    boss = done.stdout.strip()
    assert done.returncode == 0
    assert "nobody gets in without a key" in done.stderr
    known(daemon, boss)
    added = cli.json("key add", "app", "--model", "a")
    app = added["key"]
    known(daemon, app)

    assert (ask(daemon, "").status_code, ask(daemon, "myk-wrong").status_code) == (401, 401)
    assert ask(daemon, app).status_code == 200
    assert ask(daemon, app, "b").status_code == 403
    assert (
        httpx.post(f"{daemon.url}/api/models/b/load", headers={"Authorization": f"Bearer {app}"}).status_code
        == 403
    )

    cli.env["MODELYARD_API_KEY"] = boss
    found = {one["name"]: one for one in cli.json("key list")["keys"]}
    assert found["app"]["models"] == ["a"]
    used = next(one for one in found["app"]["usage"] if one["model"] == "a")
    assert (used["requests"], used["completion_tokens"]) == (1, 8)
    heading, *rows = cli.lines("key", "list")
    assert heading.split()[:3] == ["NAME", "SCOPE", "MODELS"]
    assert [row.split()[0] for row in rows] == ["app", "boss"]

    assert cli.json("key revoke", "app") == {"name": "app", "file": added["file"], "last": False}
    eventually(lambda: ask(daemon, app).status_code == 401)
    assert "no key 'app'" in cli.refused("key", "revoke", "app")
    last = cli.run("key", "revoke", "boss")
    assert last.returncode == 0
    assert "nobody gets in now" in last.stderr
    eventually(lambda: ask(daemon, boss).status_code == 401)


@pytest.mark.command("key add")
def test_only_hashes_are_kept_and_only_for_the_owner(cli: CommandLine) -> None:
    added = cli.json("key add", "one")
    file = Path(added["file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert added["key"] not in text
    assert json.loads(text)["keys"]["one"]["hash"] == added["hash"]
    assert added["key"].startswith("myk-")
    kept = cli.json("key add", "two", "--print")
    assert kept["file"] is None
    assert "two" not in file.read_text()


@pytest.mark.command("key add")
def test_more_requests_at_once_than_a_key_may_have_are_refused(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    key = cli.json("key add", "one-at-a-time", "--concurrency", "1")["key"]
    known(daemon, key)
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "slow", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with httpx.stream(
        "POST", f"{daemon.url}/v1/chat/completions", json=body, headers=headers, timeout=30
    ) as answer:
        lines = answer.iter_lines()  # kept: one that is collected closes the stream
        next(line for line in lines if line.startswith("data: "))
        assert ask(daemon, key).status_code == 429
    eventually(lambda: ask(daemon, key).status_code == 200)


@pytest.mark.command("key add")
def test_a_key_ends_when_it_expires(cli: CommandLine, daemon: RunningDaemon) -> None:
    key = cli.json("key add", "soon", "--expires", "3s")["key"]
    began = time.monotonic()
    known(daemon, key)
    eventually(lambda: ask(daemon, key).status_code == 401, within=20)
    assert time.monotonic() - began > 1
    assert "expired" in ask(daemon, key).json()["error"]["message"]


@pytest.mark.command("key add", "key revoke", "key list")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "a b"], 2, "cannot name a key"),
        (["add", "x", "--expires", "soon"], 2, "30d"),
        (["add", "x", "--concurrency", "0"], 2, "not in the range"),
        (["revoke", "nobody"], 1, "no key 'nobody'"),
        (["list", "--config", "/nowhere.yaml"], 78, "not a file"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    cli: CommandLine, words: list[str], status: int, said: str
) -> None:
    assert said in cli.refused("key", *words, status=status)
