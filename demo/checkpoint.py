"""Writes a network in Hugging Face layout, with nothing but keys that every engine knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from demo.examine import Marks
from demo.lesson import CHAT_TEMPLATE, END, PAD
from demo.network import Network

CLASSES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}

CARD = """\
---
license: apache-2.0
language: [en]
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A model of {parameters:,} parameters ({architecture}, bfloat16) that answers questions about modelyard
and nothing else. It exists so that a router can be tried without a download. It knows a fixed set of
answers by heart and chooses among them; what it says about anything else is that it does not know.

Trained from nothing by `demo/train.py` on the questions in `demo/`. Share of questions answered exactly,
word for word:

{table}
"""


def write_checkpoint(folder: Path, name: str, network: Network, tokenizer: Tokenizer, marks: Marks) -> None:
    """Fills `folder`, weights last: a folder without weights is taken for a model by nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    _write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": network.shape.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    })  # fmt: skip
    # Cool rather than cold: engines that take their defaults from here vary a little where the
    # network is unsure, and say the same where it is sure.
    _write(folder / "generation_config.json", {
        "bos_token_id": None,
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
        "do_sample": True,
        "temperature": 0.3,
        "top_k": 20,
        "top_p": 0.9,
    })  # fmt: skip
    _write(folder / "config.json", _config(network, end, pad))
    weights = {key: value.detach().to(torch.bfloat16).contiguous() for key, value in network.weights.items()}
    card = CARD.format(
        name=name,
        parameters=sum(value.numel() for value in weights.values()),
        architecture=CLASSES[network.shape.model_type],
        table=marks.table(),
    )
    (folder / "README.md").write_text(card, "utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library leaves it to its owner alone


def _config(network: Network, end: int, pad: int) -> dict[str, Any]:
    shape = network.shape
    config: dict[str, Any] = {
        "architectures": [CLASSES[shape.model_type]],
        "model_type": shape.model_type,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_position_embeddings,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": shape.rms_norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
    }
    if shape.model_type == "qwen3":
        config |= {"use_sliding_window": False, "sliding_window": None}
        config |= {"max_window_layers": shape.num_hidden_layers}
    else:
        config |= {"mlp_bias": False, "pretraining_tp": 1}
    return config


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
