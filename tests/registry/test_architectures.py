"""Checkpoints of published architectures, written to disk in their true shape and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.checkpoint_reader import read_checkpoint
from tests.support.architectures import Published, read_published
from tests.support.checkpoints import SMALL, write_checkpoint
from tests.support.named import capabilities

PUBLISHED = read_published()


def written(folder: Path, model: Published) -> Path:
    tokenizer = {} if model.template is None else {"chat_template": model.template}
    files = {"tokenizer_config__json": tokenizer, **model.files}
    return write_checkpoint(folder / model.name, model.config, **files)


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_an_architecture_is_read(model: Published, tmp_path: Path) -> None:
    found = read_checkpoint(written(tmp_path, model))
    assert found.problem is None
    assert found.yes == capabilities(model.can)
    assert found.context_length == model.context
    assert found.quantization == model.quantization
    assert found.size_bytes == len(SMALL)
    assert (found.kv.bytes_per_token if found.kv else None) == model.kv_per_token
    if model.kv_at_32k is not None:
        assert found.kv is not None
        assert found.kv.bytes_for(32768) == model.kv_at_32k
    tools = {word for word in found.template or () if word.startswith("tools:")}
    assert tools == ({f"tools:{model.tools}"} if model.tools else set())


def test_there_are_many() -> None:
    assert len({(model.config["architectures"][0], model.config["model_type"]) for model in PUBLISHED}) >= 40
