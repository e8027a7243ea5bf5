"""`/upstream/<id>/…` of a real daemon: who may, what starts, and what stays."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from config.keys import hash_of, new_key
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process


def test_an_administrator_asks_a_models_own_server(tmp_path: Path) -> None:
    admin, other = new_key(), new_key()
    settings = {
        "models": {"org/a": scripted(), "b": scripted()},
        "keys": {
            "ops": {"hash": hash_of(admin), "scope": "admin"},
            "app": {"hash": hash_of(other), "scope": "inference"},
        },
    }
    with RunningDaemon(tmp_path, settings) as daemon:

        def get(path: str, key: str = admin, **fields: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}", **fields}
            return httpx.get(f"{daemon.url}{path}", headers=headers, timeout=30)

        assert get("/upstream/org/a/health", other).json()["error"]["code"] == "scope_missing"
        missing = httpx.get(f"{daemon.url}/upstream/org/a/health")
        assert (missing.status_code, missing.json()["error"]["code"]) == (401, "missing_api_key")
        states = {model["id"]: model["state"] for model in get("/api/status").json()["models"]}
        assert states == {"org/a": "stopped", "b": "stopped"}, "who may not starts nothing"
        # It starts for it, and answers with its own words, also those that are an error.
        assert get("/upstream/org/a/health").json() == {"status": "ok"}
        assert get("/upstream/org%2Fa/v1/models").json()["data"][0]["id"] == "org/a"
        nothing = get("/upstream/a/nothing/here")
        assert nothing.status_code == 404
        assert "unknown_path" not in nothing.text, "the engine says so, and not we"
        asked = {"model": "org/a", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(
            f"{daemon.url}/upstream/org/a/v1/chat/completions",
            json=asked,
            headers={"Authorization": f"Bearer {admin}"},
        )
        assert "served by org/a" in answer.text
        unknown = get("/upstream/org/aa/health").json()["error"]
        assert (unknown["code"], "org/a" in unknown["message"]) == ("model_not_found", True)
        assert get("/upstream/auto/health").json()["error"]["code"] == "invalid_virtual_model"
        assert get("/upstream/b/health", Host="evil.example").json()["error"]["code"] == "host_not_allowed"
        status = get("/api/status").json()
        states = {model["id"]: (model["state"], model["in_flight"]) for model in status["models"]}
        assert states == {"org/a": ("ready", 0), "b": ("stopped", 0)}
        assert status["requests"]["total"] == 0, "no request to a model"
        counted = 'endpoint="/upstream/{id}",model="org/a",outcome="served"'
        assert eventually(lambda: counted in get("/metrics").text)
