"""Ring 5: what a sequence costs by our formulas, and what the engines' own caches take of tiny models."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest

from config.places import engine_folder
from config.vocabulary import EngineName
from registry.checkpoint_reader import read_checkpoint
from registry.engines.mlx_cache import mlx_cache
from registry.engines.vllm_placement import CPU_BLOCK, reserved
from tests.support.architectures import TinyShape, read_tiny
from tests.support.checkpoints import write_checkpoint
from tests.support.real_engines import ENGINES, YARD_SOURCE, daemon_in, load, real
from tests.support.running_daemon import ROOT

SHAPES: Final = {shape.name: shape for shape in read_tiny()}
TOKENS: Final = 256
"""Of the sequence: more than any of the windows, and what mlx-lm allocates at once."""


def written(folder: Path, shape: TinyShape) -> Path:
    """A checkpoint with the demo model's tokenizer, and weights that nobody loads."""
    tokenizer = {
        name.replace(".", "__"): (Path(YARD_SOURCE) / name).read_text()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    }
    config = {**shape.config, "torch_dtype": shape.dtype}
    return write_checkpoint(folder / shape.name, config, **tokenizer)


@pytest.mark.parametrize("_", [pytest.param(0, marks=real(EngineName.MLX_LM, timeout=600))])
def test_mlx_lm_keeps_of_every_shape_what_the_formulas_say(tmp_path: Path, _: int) -> None:
    orders = [{"config": shape.config, "dtype": shape.dtype, "tokens": TOKENS} for shape in SHAPES.values()]
    python = engine_folder(ENGINES, EngineName.MLX_LM) / "bin" / "python"
    done = subprocess.run(
        [python, ROOT / "tests" / "support" / "cached.py"],
        input=json.dumps(orders), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    kept = dict(zip(SHAPES, (int(line) for line in done.stdout.split()), strict=True))
    ours = {}
    for name, shape in SHAPES.items():
        kv = mlx_cache(read_checkpoint(written(tmp_path, shape)))
        assert kv is not None, name
        ours[name] = kv.bytes_for(TOKENS)
    assert ours == kept


# -- vLLM: through a daemon, so that the flags are ours

BY_VLLM: Final = ("llama_mqa", "qwen3_headdim", "gemma3_text", "deepseek_v3")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=real(EngineName.VLLM, timeout=900)) for name in BY_VLLM]
)
def test_vllm_holds_as_many_tokens_as_the_formulas_say(tmp_path: Path, name: str) -> None:
    shape = replace(SHAPES[name], dtype="bfloat16")
    folder = written(tmp_path, shape)
    entry = {"source": str(folder), "engine": "vllm", "args": ["--load-format", "dummy"]}
    with daemon_in(tmp_path / "daemon", {name: entry}) as daemon:
        shown = load(daemon, name)
        page = httpx.get(f"http://127.0.0.1:{shown['port']}/metrics", timeout=20).text
        context = shown["context_length"]
    line = next(line for line in page.splitlines() if line.startswith("vllm:cache_config_info{"))
    said = dict(_LABEL.findall(line))
    space, tokens = int(said["kv_cache_memory_bytes"]), int(said["kv_cache_size_tokens"])
    kv = read_checkpoint(folder).kv
    assert kv is not None
    print(f"{name}: {space} bytes hold {tokens} tokens at a context of {context}")
    if kv.sliding_layers:
        # With a window it says how many requests of full length there is room for, in tokens.
        assert 0.9 < space / (tokens / context) / reserved(kv).bytes_for(context + CPU_BLOCK) <= 1
    else:
        assert 0 <= space - tokens * kv.bytes_per_token < CPU_BLOCK * kv.bytes_per_token
