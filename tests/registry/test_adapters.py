"""LoRA adapters: read from their folder, served where an engine can, and never in their base's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.schema import ModelConfig, Settings
from config.vocabulary import EngineName
from registry.adapters import Adapter, read_adapter
from registry.capability import ENDPOINTS
from registry.catalog import Catalog, build_catalog, openai_entry
from registry.discovery import Environment
from registry.engine import Answers, Machine, ModelId
from registry.errors import ModelNotFoundError, ModelUnusableError
from registry.footprint import GIB
from registry.installed import EXECUTABLES, MARKER
from router.directory import CatalogDirectory
from router.ports import Route
from tests.support.checkpoints import write_checkpoint

CHAT = ENDPOINTS["/v1/chat/completions"]
PEFT = {"peft_type": "LORA", "r": 24, "base_model_name_or_path": "org/base"}
MLX = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}


def write_adapter(
    folder: Path, config: object = PEFT, *, weights: str | None = "adapter_model.safetensors"
) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        (folder / weights).write_bytes(b"x")
    return folder


def test_both_layouts_are_read(tmp_path: Path) -> None:
    peft, mlx = (
        write_adapter(tmp_path / "a"),
        write_adapter(tmp_path / "b", MLX, weights="adapters.safetensors"),
    )
    assert read_adapter("x", str(peft), tmp_path) == Adapter("x", peft, "peft", 24)
    assert read_adapter("x", str(mlx), tmp_path) == Adapter("x", mlx, "mlx", 8)


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        ("{", None, "not valid JSON"),
        ([1], None, "its peft_type is None"),
        ({"peft_type": "IA3"}, "adapter_model.safetensors", "its peft_type is 'IA3'"),
        (PEFT, None, "partial download"),
        (MLX, "adapter_model.safetensors", "partial download"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, config: object, weights: str | None, says: str) -> None:
    folder = write_adapter(tmp_path / "a", config, weights=weights)
    assert says in (read_adapter("x", str(folder), tmp_path).problem or "")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in (read_adapter("x", "/nowhere/at/all", tmp_path).problem or "")
    assert "hf download org/lora" in (read_adapter("x", "org/lora", tmp_path).problem or "")


def catalog(root: Path, engine: EngineName, **entry: Any) -> Catalog:
    """One model `base` on *engine*, with adapters; further ones are found below `found`."""
    script = root / "engines" / engine.value / "bin" / EXECUTABLES[engine]
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    (root / "engines" / engine.value / MARKER).touch()
    source = write_checkpoint(root / "base")
    model = ModelConfig(source=str(source), engine=engine.value, **entry)
    settings = Settings.model_validate(
        {
            "models": {"base": model},
            "endpoints": (),
            "discover": {"hub_cache": False, "demo": False, "directories": [root / "found"]},
        }
    )
    machine = Machine("linux", "x86_64", 24 * GIB)
    environment = Environment({"HOME": str(root)}, root / "engines")
    first, again = (build_catalog(settings, machine, environment) for _ in range(2))
    assert again.notices == first.notices  # also of models that were not made anew
    return again


def argv(found: Catalog, name: str) -> tuple[str, ...]:
    spec = found.models[ModelId(name)].spec
    assert spec is not None
    return spec.argv


def test_vllm_serves_them_from_the_instance_of_their_base(tmp_path: Path) -> None:
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two", {**PEFT, "r": 8})
    found = catalog(
        tmp_path, EngineName.VLLM, adapters={"one": str(one), "two": str(two)}, variants={"v": {}}
    )
    assert list(found.models) == ["base"]
    args = argv(found, "base")
    at = args.index("--enable-lora")
    assert args[at + 1 : at + 6] == ("--max-loras", "2", "--max-lora-rank", "32", "--lora-modules")
    assert json.loads(args[at + 6]) == {"name": "base:one", "path": str(one)}
    route = CatalogDirectory(found).route("base:two", CHAT)
    assert isinstance(route, Route)
    assert (route.model, route.wire.served_name) == ("base", "base:two")
    assert openai_entry(found.models[ModelId("base")], "stopped")["variants"] == ["one", "two", "v"]
    with pytest.raises(ModelNotFoundError, match="it has one, two, v"):
        found.resolve("base:three")


def test_a_broken_one_is_not_given_to_vllm_and_says_why(tmp_path: Path) -> None:
    good, bad = write_adapter(tmp_path / "good"), write_adapter(tmp_path / "bad", weights=None)
    mlx = write_adapter(tmp_path / "mlx", MLX, weights="adapters.safetensors")
    adapters = {"good": str(good), "bad": str(bad), "mlx": str(mlx)}
    found = catalog(tmp_path, EngineName.VLLM, adapters=adapters)
    assert [word for word in argv(found, "base") if "base:" in word] == [
        json.dumps({"name": "base:good", "path": str(good)})
    ]
    with pytest.raises(ModelUnusableError, match=r"partial download.*base is served without it"):
        found.resolve("base:bad", CHAT)
    with pytest.raises(ModelUnusableError, match="layout of peft"):
        found.resolve("base:mlx", CHAT)
    assert found.resolve("base", CHAT).problem is None


def test_mlx_lm_has_an_instance_for_each(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "one", MLX, weights="adapters.safetensors")
    found = catalog(
        tmp_path, EngineName.MLX_LM, adapters={"one": str(adapter)}, aliases=["nick"], pin=True, preload=True
    )
    assert list(found.models) == ["base", "base:one"]
    model = found.resolve("base:one", CHAT)
    assert (model.aliases, model.pin, model.preload) == ((), False, False)
    args = argv(found, "base:one")
    assert args[args.index("--adapter-path") + 1] == str(adapter)
    assert "--adapter-path" not in argv(found, "base")
    # By any other name it would load the model again, without the adapter.
    assert (model.wire.served_name, model.wire.accepted_names) == (
        "default_model",
        frozenset({"default_model"}),
    )
    assert model.spec is not None
    answers = model.spec.readiness[-1]
    assert isinstance(answers, Answers)
    assert json.loads(answers.body)["model"] == "default_model"


def test_an_engine_without_adapters_says_so(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "one")
    found = catalog(tmp_path, EngineName.VLLM_MLX, adapters={"one": str(adapter)})
    with pytest.raises(ModelUnusableError, match="vllm-mlx serves no adapters"):
        found.resolve("base:one", CHAT)


def test_a_name_is_a_variant_or_an_adapter() -> None:
    with pytest.raises(ValueError, match="names a variant and an adapter"):
        ModelConfig(source="a/b", adapters={"x": "/x"}, variants={"x": {}})


def test_one_that_was_found_belongs_to_the_model_it_was_trained_on(tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    write_adapter(tmp_path / "found" / "mine", {**PEFT, "base_model_name_or_path": base})
    write_adapter(tmp_path / "found" / "other")
    found = catalog(tmp_path, EngineName.VLLM)
    assert list(found.models) == ["base", "base:mine"]
    # Its base is started as it would be without it; it has an instance of its own.
    assert "--enable-lora" not in argv(found, "base")
    args = argv(found, "base:mine")
    assert args[args.index("--served-model-name") + 1] == "base:mine:base"
    module = {"name": "base:mine", "path": str(tmp_path / "found" / "mine")}
    assert json.loads(args[args.index("--lora-modules") + 1]) == module
    assert found.resolve("base:mine", CHAT).wire.served_name == "base:mine"
    assert [(notice.model, "serve org/base with it" in notice.what) for notice in found.notices] == [
        ("other", True)
    ]


def test_one_that_was_found_and_does_not_fit_is_only_told_of(tmp_path: Path) -> None:
    write_adapter(tmp_path / "found" / "mine", {**PEFT, "base_model_name_or_path": str(tmp_path / "base")})
    found = catalog(tmp_path, EngineName.MLX_LM)
    assert list(found.models) == ["base"]
    (notice,) = found.notices
    assert (notice.model, "layout of mlx" in notice.what) == ("base:mine", True)
