"""What is measured: the engine asked directly, the proxies beside us, and the daemon itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.machine import HERE, Machine, Subject, free_port

KEY = "sk-1234"
"""What the load generator shows."""
CONFIG = "modelyard.yaml"
"""The daemon's, in the run's folder."""
ROUTERS = ("sglang-router==0.3.2", "vllm-router==0.1.17")
"""The two Rust routers on PyPI, at the versions our claims speak of."""
COLD_SECONDS = 3.0
"""How long the model of the cold path takes to be ready."""


def cache() -> Path:
    """Where the routers are installed: nothing of them comes near our own environment."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelyard" / "bench" / "peers"


def install_routers() -> None:
    """Make their environment, once."""
    folder = cache()
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", *ROUTERS], check=True)


def _found(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def nginx_config(folder: Path, port: int, upstream: int) -> Path:
    """nginx as a reverse proxy with everything off that costs, and bodies in memory."""
    path = folder / "nginx.conf"
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{
          access_log off; client_max_body_size 64m; client_body_buffer_size 8m; keepalive_requests 1000000000;
          {places}
          upstream engine {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
          server {{ listen 127.0.0.1:{port};
            location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                          proxy_buffering off; }} }}
        }}"""
    )
    return path


def haproxy_config(folder: Path, port: int, upstream: int) -> Path:
    """haproxy on one thread, without a log."""
    path = folder / "haproxy.cfg"
    path.write_text(
        f"""global
            maxconn 8192
            nbthread 1
        defaults
            mode http
            timeout connect 5s
            timeout client 120s
            timeout server 120s
            option http-no-delay
            http-reuse always
        frontend front
            bind 127.0.0.1:{port}
            default_backend engine
        backend engine
            server one 127.0.0.1:{upstream}
"""
    )
    return path


def daemon_settings(machine: Machine, engine: Path) -> dict[str, object]:
    """The daemon as it runs by default, with a key, two models of the engine, and 300 names besides."""
    pin = [] if machine.cores is None else ["taskset", "-c", str(machine.cores[1])]
    report = machine.folder / "cold.json"
    slow = f"sleep {COLD_SECONDS}; exec {engine} {{port}} {report}"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    models: dict[str, object] = {
        "mock": {"cmd": [*pin, str(engine), "{port}"], "memory": "64MiB", "preload": True},
        "cold": {"cmd": [*pin, "sh", "-c", slow], "memory": "64MiB", "identity": "none"},
    }
    for n in range(300):
        models[f"org/model-{n}"] = {"cmd": ["false", "{port}"], "memory": "64MiB"}
    return {
        "models": models,
        "endpoints": [],
        "discover": {
            "hub_cache": False,
            "demo": False,
            "directories": [str(machine.folder / "repositories")],
        },
        "state_dir": str(machine.folder / "state"),
        "log": {"format": "json"},
        "keys": {"bench": {"hash": f"sha256:{digest}", "scope": "admin"}},
        "admission": {"queue_per_model": 2048, "queue_total": 4096},
        "limits": {"connections_per_client": 4096},
    }


def daemon(machine: Machine, engine: Path) -> Subject:
    """The daemon: its own process only, since its children are engines."""
    port = free_port()
    config = machine.folder / CONFIG
    config.write_text(json.dumps(daemon_settings(machine, engine)))  # JSON is YAML
    command: list[str | Path] = [sys.executable, "-m", "modelyard", "serve", "--config", config]
    command += ["--listen", f"127.0.0.1:{port}"]
    env = {"HOME": str(machine.folder / "home"), "PYTHONPATH": str(HERE.parent)}
    return Subject("modelyard", port, machine.start(command, core=0, port=port, env=env), tree=False)


def routers(machine: Machine, upstream: int) -> Iterator[Subject]:
    """The two Rust routers, if they were installed."""
    python = cache() / "bin" / "python"
    for name, module in (("sglang-router", "sglang_router"), ("vllm-router", "vllm_router")):
        if not (cache() / "bin" / name).exists():
            machine.notes.append(f"no {name}: `python -m bench --install` puts it into {cache()}")
            continue
        port, metrics = free_port(), free_port()
        command: list[str | Path] = [python, "-m", f"{module}.launch_router"]
        command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
        yield Subject(name, port, machine.start(command, core=0, port=port))


def subjects(machine: Machine, engine: Path) -> Iterator[Subject]:
    """Everything that is measured, started."""
    upstream = free_port()
    yield Subject("direct", upstream, machine.start([engine, str(upstream)], core=1, port=upstream))
    for name, configure, options in (
        ("nginx", nginx_config, ("-c",)),
        ("haproxy", haproxy_config, ("-db", "-f")),
    ):
        binary = _found(name)
        if binary is None:
            machine.notes.append(f"no {name} here: that row is left out (Debian: apt-get install {name})")
            continue
        port = free_port()
        config = configure(machine.folder, port, upstream)
        yield Subject(name, port, machine.start([binary, *options, config], core=0, port=port))
    port = free_port()
    proxy: list[str | Path] = [sys.executable, HERE / "aiohttp_proxy.py", str(port), str(upstream)]
    yield Subject("aiohttp", port, machine.start(proxy, core=0, port=port))
    yield from routers(machine, upstream)
    yield daemon(machine, engine)


def check_answer(subject: Subject) -> None:
    """It answers as the engine does, before anything is measured."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{subject.port}/v1/chat/completions",
        b'{"model":"mock","stream":false,"messages":[{"role":"user","content":"hi"}]}',
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        if b"chatcmpl-0001" not in answer.read():
            raise SystemExit(f"{subject.name} does not pass the engine's answer on")
