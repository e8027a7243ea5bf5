"""What is known of names, folders and files, there or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import ModelConfig
from registry.engine import Machine
from registry.families import load_families
from registry.inspection import Inspection, inspect, report
from tests.support.checkpoints import write_checkpoint, write_hub_model
from tests.support.gguf_files import write_gguf

FAMILIES = load_families()
MACHINE = Machine("linux", "x86_64", 2**34)
KEYS = (
    "provider",
    "family",
    "capabilities",
    "parameters",
    "active_parameters",
    "quantization",
    "context_length",
)


def look(subject: str, home: Path, **entries: ModelConfig) -> Inspection:
    return inspect(subject, env={"HOME": str(home)}, families=FAMILIES, entries=entries)


def values(found: Inspection) -> dict[str, Any]:
    return {key: report(found, MACHINE)[key]["value"] for key in KEYS}


def test_a_name_of_what_is_not_there(tmp_path: Path) -> None:
    found = look("Qwen/Qwen3-30B-A3B-Instruct-2507", tmp_path)
    assert (found.kind, found.is_present, found.problem) == ("name", False, None)
    assert values(found) == {
        "provider": "Qwen",
        "family": "qwen3-moe",
        "capabilities": ["generate", "tool_use"],
        "parameters": 30_000_000_000,
        "active_parameters": 3_000_000_000,
        "quantization": None,
        "context_length": 262144,
    }
    assert report(found, MACHINE)["engines"] == {}


def test_an_unknown_name_is_unknown_in_everything(tmp_path: Path) -> None:
    assert set(values(look("acme/foo", tmp_path)).values()) == {None}


def test_a_model_in_the_hub_cache_is_its_files_and_its_name(tmp_path: Path) -> None:
    cache = tmp_path / ".cache" / "huggingface" / "hub"
    snapshot = write_hub_model(cache, "Qwen/Qwen3-8B")
    found = look("Qwen/Qwen3-8B", tmp_path)
    assert (found.kind, found.path) == ("hub-cache", snapshot)
    assert found.facts.context_length.value == 2048
    assert found.facts.context_length.others == ((40960, "name (its family)"),)
    assert report(found, MACHINE)["engines"]["mlx-lm"] is None


def test_a_folder_needs_no_name(tmp_path: Path) -> None:
    found = look(str(write_checkpoint(tmp_path / "x")), tmp_path)
    assert (found.kind, found.facts.family.value) == ("directory", "qwen3")
    assert found.facts.family.source == "config.json model_type"
    assert found.facts.provider.value is None  # anyone trains a model of their own on this architecture


@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("kimi_k25", "kimi-k2.5"),
        ("deepseek_v32", "deepseek-v3.2"),
        ("step3p7", "step-3.7"),
        ("glm_moe_dsa", "glm-5"),
        ("glm46v", "glm-4.6v"),
        ("qwen3_5_text", "qwen3.5"),
        ("phi3", "phi-3"),
        ("llama", None),
    ],
)
def test_a_model_type_is_read_as_its_house_writes_it(
    model_type: str, family: str | None, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "x", {"architectures": ["XForCausalLM"], "model_type": model_type})
    found = look(str(folder), tmp_path)
    assert found.facts.family.value == family


def test_a_gguf_file_and_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "Qwen3-4B-Q8_0.gguf", {"general.architecture": "qwen3", "general.file_type": 7}
    )
    found = look(str(path), tmp_path)
    assert (found.kind, found.facts.quantization.value) == ("file", "gguf-q8_0")
    assert report(found, MACHINE)["engines"]["vllm"] == (
        "vLLM does not read GGUF: give the model a cmd, for example llama-server"
    )
    (tmp_path / "notes.txt").write_text("x")
    assert look(str(tmp_path / "notes.txt"), tmp_path).problem is not None


def test_a_folder_that_only_has_the_name_of_a_model_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phi-4").mkdir()
    monkeypatch.chdir(tmp_path)
    assert look("phi-4", tmp_path).kind == "name"
    assert look("./phi-4", tmp_path).kind == "directory"


@pytest.mark.parametrize("name", ["mine", "nick"])
def test_an_entry_of_the_configuration_is_what_it_points_to(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "weights")
    options = ModelConfig(source=str(folder), aliases=("nick",), context=512)
    found = look(name, tmp_path, mine=options)
    assert (found.path, found.facts.context_length.value) == (folder, 512)
    remote = ModelConfig(source="google/gemma-3-4b-it")
    assert look("far", tmp_path, far=remote).facts.family.value == "gemma-3"


@given(st.text(max_size=120))
def test_nothing_raises(tmp_path_factory: pytest.TempPathFactory, subject: str) -> None:
    report(look(subject, tmp_path_factory.getbasetemp()), MACHINE)
