"""What is done to each subject, and what is done to the daemon alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx

from bench.machine import Machine, Subject
from bench.subjects import COLD_SECONDS, CONFIG, KEY

STREAMS = 512
EVENTS = 50
PAUSE_US = 100_000
BIG_BYTES = 4 * 2**20
BIG_CLIENTS = 8
COLD_CLIENTS = 1000
WATCHERS = 50
_BUCKET = re.compile(r'^modelyard_loop_lag_distribution_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
CONTROL_SECONDS = 15.0
REPOSITORIES = 500


def requests(machine: Machine, load: Path, subject: Subject, *, clients: int, seconds: float) -> None:
    """1 KB in, 600 bytes out, keep-alive."""
    before = subject.cpu_seconds()
    result = machine.load(load, subject.port, clients=clients, seconds=seconds, mode=["json"])
    subject.note("request_us", (subject.cpu_seconds() - before) / max(result["requests"], 1) * 1e6)
    subject.note("rate", result["requests"] / result["seconds"])
    subject.note("p50_ms", result["p50_us"] / 1000)
    subject.errors += int(result["errors"])


def streams(machine: Machine, load: Path, subject: Subject) -> None:
    """512 streams at once, each an event a tenth of a second."""
    rest, before = subject.rss(), subject.cpu_seconds()
    with subject.peak_rss() as peak:
        mode = ["sse", str(EVENTS), str(PAUSE_US)]
        result = machine.load(load, subject.port, clients=STREAMS, seconds=0, mode=mode)
    subject.note("event_us", (subject.cpu_seconds() - before) / max(result["events"], 1) * 1e6)
    subject.note("streams_mib", (peak[0] - rest) / 2**20)
    subject.errors += int(result["errors"])


def pictures(machine: Machine, load: Path, subject: Subject, *, seconds: float) -> None:
    """4 MB of base64, the model named after it."""
    before = subject.cpu_seconds()
    mode = ["big", str(BIG_BYTES)]
    result = machine.load(load, subject.port, clients=BIG_CLIENTS, seconds=seconds, mode=mode)
    subject.note("big_ms", (subject.cpu_seconds() - before) / max(result["requests"], 1) * 1e3)
    subject.errors += int(result["errors"])


# -- the daemon alone ------------------------------------------------------------------------------


def stalled_reader(subject: Subject) -> None:
    """A client asks for a stream as fast as it comes, and reads none of it."""
    body = b'{"model":"mock","stream":true,"max_tokens":200000,"seed":0,"messages":[]}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    rest = subject.rss()
    with socket.create_connection(("127.0.0.1", subject.port)) as client:
        client.sendall(head.encode() + body)
        with subject.peak_rss() as peak:
            time.sleep(3)
    subject.note("stalled_mib", (peak[0] - rest) / 2**20)
    time.sleep(0.5)


def cold_path(machine: Machine, load: Path, subject: Subject) -> None:
    """1,000 requests while their model loads."""
    rest = subject.rss()
    with subject.peak_rss() as peak:
        mode = ["json", "50", "0", "cold"]
        result = machine.load(load, subject.port, clients=COLD_CLIENTS, seconds=0, mode=mode)
    report = json.loads((machine.folder / "cold.json").read_text())
    subject.note("cold_first_ms", report["first_after_ms"])
    subject.note("cold_mib", (peak[0] - rest) / 2**20)
    subject.note("cold_seconds", result["seconds"])
    subject.errors += int(result["errors"])
    if result["requests"] < COLD_CLIENTS or result["seconds"] < COLD_SECONDS * 0.5:
        raise SystemExit(f"the cold path was not one: {result}")


def repositories(folder: Path) -> None:
    """Checkpoints for the daemon to look at again and again."""
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "max_position_embeddings": 2048, "torch_dtype": "float32"}  # fmt: skip
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    for n in range(REPOSITORIES):
        place = folder / f"qwen3-{n}"
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config))
        (place / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
        (place / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def busy_control(machine: Machine, subject: Subject) -> None:
    """50 clients poll /status, the configuration is reloaded each second, 500 repositories are looked at."""
    before = _lag(subject.port)
    config = machine.folder / CONFIG
    asked = asyncio.run(_poll(subject, config, json.loads(config.read_text())))
    after = _lag(subject.port)
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    subject.note("lag_p95_ms", _quantile(counts, 0.95) * 1000)
    subject.note("polls", asked)


async def _poll(subject: Subject, config: Path, settings: dict[str, Any]) -> int:
    asked = 0
    end = time.monotonic() + CONTROL_SECONDS
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=WATCHERS)

    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=30) as client:

        async def watch() -> None:
            nonlocal asked
            while time.monotonic() < end:
                answer = await client.get(f"http://127.0.0.1:{subject.port}/api/status")
                answer.raise_for_status()
                asked += 1
                await asyncio.sleep(1)

        async def reload() -> None:
            for one in itertools.count():
                if time.monotonic() >= end:
                    break
                # Never the same twice: a model comes, and the one that came before it goes.
                extra = {f"org/new-{one}": {"cmd": ["false", "{port}"], "memory": "64MiB"}}
                draft = config.with_suffix(".draft")
                draft.write_text(json.dumps({**settings, "models": {**settings["models"], **extra}}))
                draft.replace(config)
                with contextlib.suppress(ProcessLookupError):
                    subject.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(1)

        await asyncio.gather(reload(), *(watch() for _ in range(WATCHERS)))
    return asked


def _lag(port: int) -> dict[float, float]:
    """The loop's lag so far: cumulated counts by upper bound in seconds."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
    request.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    found = _BUCKET.findall(text)
    return {float(bound): float(count) for bound, count in found}


def _quantile(counts: dict[float, float], share: float) -> float:
    """The upper bound of the bucket where *share* of all is reached."""
    total = counts[float("inf")]
    return min(bound for bound, count in counts.items() if count >= share * total)
