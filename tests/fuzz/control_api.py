"""`python -m tests.fuzz.control_api [--seconds N]`: Schemathesis against a daemon's description of its API.

A real daemon with keys and scripted engines answers an admin; no answer may be a fault of its own, and at the
end nothing may be held that was not held at the beginning.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil

from config.keys import hash_of, new_key
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503]

[[operations]]
include-path = "/api/models/{id}/logs"
parameters = { "query.follow" = "0" }

[[operations]]
include-path = "/login"
checks.content_type_conformance.enabled = false
"""
"""501 is said of TRACE, and 503 of a model that cannot be loaded. A log that is followed has no end, and from
the form Schemathesis is sent on to the status."""

ENDLESS = ("/api/events", "/api/status/stream", "/api/restart")
"""Streams, which Schemathesis would read for ever, and a new process, which has other descriptors."""

MODELS = {"0": scripted(), "a/b": scripted(), "fails": scripted("--exit-after", "0", "--exit-code", "3")}
"""`0` is what generators like best."""

CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="control_api", description="fuzz the control API of a daemon")
    parser.add_argument("--seconds", type=int, default=60, help="in all (60)")
    seconds = parser.parse_args().seconds
    key = new_key()
    settings = {
        "models": MODELS,
        "keys": {"ops": {"hash": hash_of(key), "scope": "admin"}},
        "log": {"format": "json", "level": "warning"},
    }
    with tempfile.TemporaryDirectory() as folder, RunningDaemon(Path(folder), settings) as daemon:
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        asking = httpx.Client(base_url=daemon.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        with asking as client:
            _unload_all(client)
            before = _most_open(process)
            wrong = _ask(daemon, Path(folder), key, seconds)
            _unload_all(client)
            memory = process.memory_info().rss >> 20
            after = _open(process)
            print(f"descriptors: {before.total()} before, {after.total()} after; memory: {memory} MiB")
            print(f"of these more than before: {dict(after - before)}", flush=True)
            given_back = before.total()
            try:
                eventually(
                    lambda: _open(process).total() <= given_back,
                    within=10,
                    what="descriptors to be given back",
                )
            except AssertionError:
                print(*process.net_connections("all"), *process.open_files(), sep="\n", flush=True)
                raise
        faults = [line for line in daemon.log.splitlines() if "Traceback" in line or '"error"' in line]
        print(*faults[:20], sep="\n")
    return 1 if wrong or faults else 0


def _ask(daemon: RunningDaemon, folder: Path, key: str, seconds: int) -> int:
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings),
        "run", f"{daemon.url}/openapi.json", "--header", f"Authorization: Bearer {key}",
        "--max-time", str(seconds), "--request-timeout", "30",
        "--checks", CHECKS, "--continue-on-failure", "--no-color",
        *(word for path in ENDLESS for word in ("--exclude-path", path)),
    ]  # fmt: skip
    return subprocess.run(command, check=False, cwd=folder).returncode


def _open(process: psutil.Process) -> Counter[str]:
    """What its descriptors are of, by what they lead to."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        kind = target.partition(":[")[0]
        found[kind if kind in ("socket", "pipe") else target] += 1
    return found


def _most_open(process: psutil.Process) -> Counter[str]:
    """The most of three seconds: for a moment after a model has gone the next shim is not ready yet."""
    most, until, tick = _open(process), time.monotonic() + 3, threading.Event()
    while time.monotonic() < until:
        tick.wait(0.05)
        most = max(most, _open(process), key=Counter.total)
    return most


def _unload_all(client: httpx.Client) -> None:
    """Start one model, so that all that is opened once is open, and stop all; nothing may be in flight."""
    client.post("/api/models/0/load", params={"retry": "1"}).raise_for_status()
    for model in client.get("/api/status").json()["models"]:
        assert (model["in_flight"], model["waiting"]) == (0, 0), model
        client.post(f"/api/models/{model['id']}/unload").raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
