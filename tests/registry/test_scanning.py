"""A cache of hundreds of models: found once, and then only looked at for what has changed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from config.schema import Settings
from registry.catalog import Catalog, build_catalog
from registry.discovery import Environment
from registry.engine import Machine, ModelId
from tests.support.architectures import read_published
from tests.support.checkpoints import write_hub_model

CPU = Machine("linux", "x86_64", 2**36)
REPOSITORIES = 500


class Home:
    """A user's folder with a hub cache."""

    def __init__(self, folder: Path) -> None:
        self.hub = folder / "hub"
        self.environment = Environment({"HF_HUB_CACHE": str(self.hub)}, folder / "engines")
        self.settings = Settings()

    def scan(self) -> Catalog:
        return build_catalog(self.settings, CPU, self.environment)


def test_only_what_has_changed_is_made_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in ("org/a", "org/b"):
        write_hub_model(home.hub, name)
    first = home.scan()
    write_hub_model(home.hub, "org/c")
    write_hub_model(home.hub, "org/b", commit="other")
    second = home.scan()
    assert list(second.models) == ["org/a", "org/b", "org/c"]
    assert second.models[ModelId("org/a")] is first.models[ModelId("org/a")]
    assert second.models[ModelId("org/b")] is not first.models[ModelId("org/b")]


def test_other_settings_make_everything_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_hub_model(home.hub, "org/a")
    first = home.scan()
    home.settings = Settings(ttl=7)
    second = home.scan()
    assert second.models[ModelId("org/a")].ttl == 7
    assert first.models[ModelId("org/a")].ttl != 7


def test_what_the_file_says_of_one_model_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    home = Home(tmp_path)
    command = {"cmd": ["serve", "{port}"]}
    home.settings = Settings.model_validate({"models": {"a": command, "b": command}})
    first = home.scan()
    home.settings = Settings.model_validate(
        {"models": {"a": {**command, "ttl": 7}, "b": command, "c": command}}
    )
    second = home.scan()
    assert second.models[ModelId("a")].ttl == 7
    assert second.models[ModelId("b")] is first.models[ModelId("b")]
    assert list(second.models) == ["a", "b", "c"]


def test_no_endpoint_makes_no_other_catalog(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_hub_model(home.hub, "org/a")
    catalog = home.scan()
    assert catalog.with_endpoints({}) is catalog


@pytest.mark.timeout(120)
def test_five_hundred_repositories_are_scanned_in_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    published = read_published()
    for number in range(REPOSITORIES):
        model = published[number % len(published)]
        files = {"tokenizer_config__json": {"chat_template": model.template}, **model.files}
        write_hub_model(home.hub, f"org{number}/Model-{number}-7B", config__json=model.config, **files)
    # Seconds of this process, and not of a clock: what else the machine does is not measured.
    cold, warm = (seconds(home) for _ in range(2))
    assert cold < 2.0
    assert warm < 0.1


def seconds(home: Home) -> float:
    before = time.process_time()
    assert len(home.scan().models) == REPOSITORIES
    return time.process_time() - before
