"""The values operators write, the committed schema and the example."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from config.diff import (
    TAKEN_OVER,
    TAKEN_OVER_WITHIN,
    changed_keys,
    changed_settings,
    left_for_restart,
)
from config.document import parse
from config.listening import reached_at
from config.load import load_settings
from config.places import engine_folder, engines_dir, state_dir
from config.schema import (
    ModelConfig,
    Settings,
    StartConfig,
    parse_budget,
    parse_duration,
    parse_listen,
    parse_memory,
    parse_size,
)
from config.schema_json import schema_text
from config.vocabulary import Capability, EngineName

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "modelyard.example.yaml"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (30, 30),
        (1.5, 1.5),
        ("30", 30),
        ("30s", 30),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("2d", 172800),
        ("0", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [-1, "", "s", "1x", "1h 30m", "inf", "nan", True, None, [1]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), ("1024", 1024), ("8GiB", 8 * 2**30), ("500 MB", 500_000_000), ("1.5kib", 1536), ("7B", 7)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


def test_memory_is_a_size_or_sizes_by_device() -> None:
    assert parse_memory("8GiB") == 8 * 2**30
    assert parse_memory({"gpu0": "20GiB", "host": 1}) == {"gpu0": 20 * 2**30, "host": 1}


@pytest.mark.parametrize("value", [{}, {"cpu": 1}, {0: 1}, {"gpu0": "much"}, {"gpu0": {"x": 1}}, ["8GiB"]])
def test_what_is_no_memory(value: object) -> None:
    with pytest.raises(ValueError, match=r"device|size"):
        parse_memory(value)


def test_only_a_command_is_given_its_memory_by_device() -> None:
    with pytest.raises(ValueError, match="choose their devices"):
        ModelConfig(source="a/b", memory={"gpu0": "8GiB"})


@pytest.mark.parametrize("text", [-1, "", "GiB", "0.8", "1.5B", "80%", 1.5, True, None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_size(text)


@pytest.mark.parametrize(("text", "budget"), [("auto", "auto"), ("80%", 0.8), ("8GiB", 8 * 2**30), (5, 5)])
def test_budgets(text: object, budget: object) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["0%", "101%", "x%", "most"])
def test_what_is_no_budget(text: object) -> None:
    with pytest.raises(ValueError, match=r"share|size"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("0.0.0.0", 80)),
        ("box:1", ("box", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["8080", "::1:80", "a:b", "a:65536", "a b:1", "a:", "http://a:1", "a:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        parse_listen(text)


@given(st.text(max_size=40))
def test_the_parsers_only_ever_raise_value_errors(text: str) -> None:
    for parser in (parse_duration, parse_size, parse_budget, parse_listen):
        with contextlib.suppress(ValueError):
            parser(text)


@pytest.mark.parametrize(
    "name", ["-x", "/x", "x/", "a//b", "a/../b", ".", "auto", "auto:fast", "{port}", "a\tb"]
)
def test_ids_that_no_model_can_have(name: str) -> None:
    with pytest.raises(ValueError, match=r"id|reserved"):
        Settings(models={name: ModelConfig(source="a/b")})


@pytest.mark.parametrize("name", ["https://yard.example.com", "yard.example.com:443", "a b", "", "a/b"])
def test_what_is_no_hosts_name(name: str) -> None:
    with pytest.raises(ValueError, match="host's name"):
        Settings(host_names=(name,))


@pytest.mark.parametrize("name", ["qwen3-8b", "org/name", "repo:Q4_K_M", "a@b", "Ünï", "autopilot"])
def test_ids_that_models_have(name: str) -> None:
    assert name in Settings(models={name: ModelConfig(source="a/b")}).models


def test_the_committed_schema_is_fresh() -> None:
    assert (ROOT / "config" / "schema.json").read_text() == schema_text(), (
        "run: python -m config.schema_json > config/schema.json"
    )


def test_every_setting_is_explained_in_the_schema() -> None:
    def fields(model: type[BaseModel]) -> list[str]:
        return [
            f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description
        ]

    from config import schema

    sections = [v for v in vars(schema).values() if isinstance(v, type) and issubclass(v, schema.Section)]
    unexplained = [name for section in sections for name in fields(section)]
    assert unexplained == []


def test_the_example_loads_and_shows_every_setting() -> None:
    settings = load_settings(EXAMPLE, {"HOME": "/home/me"}).settings
    assert settings.models["bge-m3"].capabilities == (Capability.EMBED,)
    value = parse(EXAMPLE.read_text()).value
    assert set(value) == set(Settings.model_fields)
    for section in ("discover", "memory", "admission", "start", "limits", "log"):
        kind = Settings.model_fields[section].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        assert set(value[section]) == set(kind.model_fields), section
    shown = {key for model in value["models"].values() for key in model}
    assert shown == set(ModelConfig.model_fields)


@pytest.mark.parametrize("section", ["admission", "start", "limits", "log", "memory"])
def test_what_the_example_says_is_the_default_is_the_default(section: str) -> None:
    assert getattr(load_settings(EXAMPLE, {}).settings, section) == getattr(Settings(), section)


def test_places_follow_the_environment() -> None:
    home = {"HOME": "/home/me"}
    assert state_dir(home) == Path("/home/me/.local/state/modelyard")
    assert state_dir({**home, "XDG_STATE_HOME": "/s"}) == Path("/s/modelyard")
    assert state_dir({**home, "XDG_STATE_HOME": "relative"}) == Path("/home/me/.local/state/modelyard")
    assert state_dir({**home, "STATE_DIRECTORY": "/var/lib/modelyard:/x"}) == Path("/var/lib/modelyard")
    assert engines_dir(home) == Path("/home/me/.local/share/modelyard/engines")
    assert engines_dir({**home, "XDG_DATA_HOME": "/d"}) == Path("/d/modelyard/engines")
    assert engines_dir({**home, "MODELYARD_ENGINES": "~/e"}) == Path("/home/me/e")
    assert engine_folder(Path("/e"), EngineName.VLLM_MLX) == Path("/e/vllm-mlx")


def test_a_reload_knows_what_changed_and_what_only_a_new_process_reads() -> None:
    old = Settings(models={"m": ModelConfig(source="a/a")})
    new = Settings(
        ttl=5,
        listen="127.0.0.1:1",
        start=StartConfig(stop_grace=3, crash_limit=2),
        models={"m": ModelConfig(source="b/b")},
    )
    assert changed_settings(old, new) == ("ttl", "start.stop_grace")
    assert left_for_restart(old, new) == ("listen", "start.crash_limit")
    assert changed_settings(old, old) == left_for_restart(old, old) == ()
    assert changed_keys(old.models["m"], new.models["m"]) == ("source",)


def test_what_a_reload_puts_into_force_is_named_as_it_is_in_the_file() -> None:
    assert set(Settings.model_fields) >= TAKEN_OVER
    assert all(fields <= set(StartConfig.model_fields) for fields in TAKEN_OVER_WITHIN.values())


@pytest.mark.parametrize(
    ("listen", "addresses"),
    [
        (":80", (":80",)),
        (["https://[::1]:443", "unix:/run/a b.sock"], ("https://[::1]:443", "unix:/run/a b.sock")),
    ],
)
def test_one_address_or_several(listen: Any, addresses: tuple[str, ...]) -> None:
    assert Settings(listen=listen).addresses == addresses


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ([], "1 to 16 addresses"),
        ([":80", ":80"], "each once"),
        ([f":{n}" for n in range(17)], "1 to 16"),
        ("unix:relative", "a whole path"),
        ("unix:/" + "x" * 101, "at most 100 bytes"),
        ("https://name/path:80", "is not an address"),
    ],
)
def test_what_is_no_address_is_refused(listen: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(listen=listen)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("0.0.0.0:80", ("http://127.0.0.1:80", None)),
        ("https://[::]:443", ("https://[::1]:443", None)),
        ("unix:/run/a.sock", ("http://localhost", "/run/a.sock")),
    ],
)
def test_where_an_address_is_reached_from_here(address: str, found: tuple[str, str | None]) -> None:
    assert reached_at(address) == found
