"""Ring 4: names that are served by one of several models, and variants, through a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process


def test_auto_takes_what_is_loaded_and_else_what_is_cheapest(tmp_path: Path) -> None:
    models = {
        "large": scripted(capabilities=["generate", "tool_use"], memory="200MB"),
        "small": scripted(capabilities=["generate"], memory="50MB"),
    }
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        assert daemon.chat("auto:loaded").json()["error"]["code"] == "nothing_loaded"
        assert daemon.chat("auto:tools").json()["model"] == "large"
        assert daemon.chat("auto").json()["model"] == "large"  # loaded now
        assert daemon.chat("auto:loaded").json()["model"] == "large"
        assert daemon.model("small")["starts"] == 0
        assert daemon.chat("auto:vision").status_code == 400


def test_a_model_that_cannot_be_started_is_replaced_by_the_next(tmp_path: Path) -> None:
    models = {"bad": scripted("--exit-at-start"), "good": scripted()}
    virtual = {"smart": {"models": ["bad", "good"]}}
    with RunningDaemon(tmp_path, {"models": models, "virtual": virtual}) as daemon:
        answer = daemon.chat("smart")
        assert (answer.status_code, answer.json()["model"]) == (200, "good")
        # The next request knows, and asks the one that is well.
        assert daemon.chat("smart").json()["model"] == "good"
        assert daemon.model("bad")["starts"] == 1
        with daemon.stream("smart") as stream:
            assert list(stream.iter_lines())[-2:] == ["data: [DONE]", ""]


def test_a_variant_is_served_by_its_base_under_the_name_that_was_asked_for(tmp_path: Path) -> None:
    models = {"base": scripted(variants={"calm": {"set": {"temperature": 0}}})}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        answer = daemon.chat("base:calm")
        assert (answer.status_code, answer.json()["model"]) == (200, "base:calm")
        assert daemon.chat("base:wild").json()["error"]["code"] == "model_not_found"
