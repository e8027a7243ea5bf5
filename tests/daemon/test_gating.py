"""Ring 4: what a model cannot serve is refused before anything is started for it, and at once."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_wrong_request_is_refused_in_under_five_milliseconds_and_starts_nothing(tmp_path: Path) -> None:
    models = {
        "text": scripted(capabilities=["generate"], context=2048),
        "vectors": scripted(capabilities=["embed"]),
    }
    content = [{"type": "text", "text": "what is it?"}, IMAGE]
    wrong = [
        ("/v1/embeddings", {"model": "text", "input": "hi"}, "capability_missing"),
        ("/v1/chat/completions", {"model": "vectors", "messages": []}, "capability_missing"),
        (
            "/v1/chat/completions",
            {"model": "text", "messages": [{"role": "user", "content": content}]},
            "capability_missing",
        ),
        (
            "/v1/chat/completions",
            {"model": "text", "messages": [], "max_tokens": 9999},
            "context_length_exceeded",
        ),
    ]
    with RunningDaemon(tmp_path, {"models": models}) as daemon, httpx.Client(base_url=daemon.url) as client:
        client.get("/health")
        for path, body, code in wrong:
            took = []
            for _ in range(20):
                began = time.perf_counter()
                answer = client.post(path, json=body)
                took.append(time.perf_counter() - began)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
            # With the client's own share; the best, because this machine does other things too.
            assert min(took) < 0.005, took
        assert [daemon.model(name)["starts"] for name in models] == [0, 0]
