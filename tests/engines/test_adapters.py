"""Ring 5: LoRA adapters on real engines: they change what the model says, and not what its base says."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from config.vocabulary import EngineName
from tests.support.real_engines import QUESTIONS, YARD, YARD_SOURCE, ask, daemon_in, real, sdk

HIDDEN, QUERY, VALUE, LAYERS, RANK = 192, 256, 128, 4, 8


def weights(shapes: Mapping[str, Sequence[int]]) -> bytes:
    """A safetensors file of noise, the same each time."""
    noise = random.Random(7)
    header, data = {}, b""
    for name, (rows, columns) in shapes.items():
        values = struct.pack(f"<{rows * columns}f", *(noise.gauss(0, 0.3) for _ in range(rows * columns)))
        header[name] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def mlx_adapter(folder: Path) -> Path:
    """As mlx_lm.lora leaves it."""
    folder.mkdir()
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    parameters = {"rank": RANK, "scale": 20.0, "dropout": 0.0, "keys": keys}
    config = {"fine_tune_type": "lora", "num_layers": LAYERS, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    shapes = {}
    for layer in range(LAYERS):
        for key, out in zip(keys, (QUERY, VALUE), strict=True):
            shapes[f"model.layers.{layer}.{key}.lora_a"] = (HIDDEN, RANK)
            shapes[f"model.layers.{layer}.{key}.lora_b"] = (RANK, out)
    (folder / "adapters.safetensors").write_bytes(weights(shapes))
    return folder


def peft_adapter(folder: Path) -> Path:
    """As Hugging Face's PEFT leaves it."""
    folder.mkdir()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 160, "lora_dropout": 0.0,
        "bias": "none", "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": YARD,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    shapes = {}
    for layer in range(LAYERS):
        for key, out in (("q_proj", QUERY), ("v_proj", VALUE)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{key}"
            shapes[f"{name}.lora_A.weight"] = (RANK, HIDDEN)
            shapes[f"{name}.lora_B.weight"] = (out, RANK)
    (folder / "adapter_model.safetensors").write_bytes(weights(shapes))
    return folder


def check(tmp_path: Path, engine: EngineName, adapter: Path, *, instances: int) -> None:
    entry = {"source": YARD_SOURCE, "engine": engine.value, "adapters": {"odd": str(adapter)}}
    question, answer = next(iter(QUESTIONS.items()))
    with daemon_in(tmp_path / "daemon", {YARD: entry}) as daemon:
        client = sdk(daemon)
        assert ask(client, YARD, question) == answer
        odd = client.chat.completions.create(
            model=f"{YARD}:odd",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=60,
        )
        assert odd.model == f"{YARD}:odd"
        assert odd.choices[0].message.content != answer
        assert ask(client, YARD, question) == answer
        running = [model["id"] for model in daemon.status()["models"] if model["state"] == "ready"]
        assert len(running) == instances


@pytest.mark.parametrize("_", [pytest.param(0, marks=real(EngineName.MLX_LM, timeout=240))])
def test_mlx_lm(tmp_path: Path, _: int) -> None:
    check(tmp_path, EngineName.MLX_LM, mlx_adapter(tmp_path / "adapter"), instances=2)


@pytest.mark.parametrize("_", [pytest.param(0, marks=real(EngineName.VLLM, timeout=600))])
def test_vllm(tmp_path: Path, _: int) -> None:
    check(tmp_path, EngineName.VLLM, peft_adapter(tmp_path / "adapter"), instances=1)
