"""The two small networks, written out: Qwen3 and Llama in plain torch.

The weights are a dictionary under the names that a checkpoint gives them, so that what was trained is
what an engine loads: no conversion stands between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of one network, under the names that `config.json` gives them."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6

    @property
    def normalises_heads(self) -> bool:
        """Qwen3 normalises the queries and keys of every head; Llama does not."""
        return self.model_type == "qwen3"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight; the output layer shares the embedding's."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        if self.normalises_heads:
            layer |= {"self_attn.q_norm": (self.head_dim,), "self_attn.k_norm": (self.head_dim,)}
        return {
            "model.embed_tokens.weight": (self.vocab_size, hidden),
            "model.norm.weight": (hidden,),
            **{
                f"model.layers.{number}.{name}.weight": size
                for number in range(self.num_hidden_layers)
                for name, size in layer.items()
            },
        }


class Network:
    """A causal language model with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.weights: dict[str, Tensor] = {}
        for name, size in shape.tensors().items():
            if len(size) == 1:
                weight = torch.ones(size)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                # What writes into the residual stream starts silent: layers fade in as they learn.
                weight = torch.zeros(size)
            else:
                weight = torch.randn(size) * size[1] ** -0.5
            self.weights[name] = weight.requires_grad_()

    def hidden(self, ids: Tensor) -> Tensor:
        """The last hidden state of every position; `logits` turns a selection of them into scores."""
        x = functional.embedding(ids, self.weights["model.embed_tokens.weight"])
        turns = self._turns(ids.shape[1])
        for number in range(self.shape.num_hidden_layers):
            layer = f"model.layers.{number}"
            x = x + self._attend(f"{layer}.self_attn", self._norm(f"{layer}.input_layernorm", x), turns)
            x = x + self._think(f"{layer}.mlp", self._norm(f"{layer}.post_attention_layernorm", x))
        return self._norm("model.norm", x)

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.weights["model.embed_tokens.weight"])

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return functional.rms_norm(x.float(), weight.shape, weight, self.shape.rms_norm_eps)

    def _attend(self, name: str, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, _ = x.shape
        heads = (rows, length, -1, self.shape.head_dim)
        q = self._linear(f"{name}.q_proj", x).view(heads)
        k = self._linear(f"{name}.k_proj", x).view(heads)
        v = self._linear(f"{name}.v_proj", x).view(heads).transpose(1, 2)
        if self.shape.normalises_heads:
            q, k = self._norm(f"{name}.q_norm", q), self._norm(f"{name}.k_norm", k)
        mixed = functional.scaled_dot_product_attention(
            turn(q.transpose(1, 2), *turns).to(v.dtype),
            turn(k.transpose(1, 2), *turns).to(v.dtype),
            v,
            is_causal=True,
            enable_gqa=True,
        )
        return self._linear(f"{name}.o_proj", mixed.transpose(1, 2).reshape(rows, length, -1))

    def _think(self, name: str, x: Tensor) -> Tensor:
        gate = functional.silu(self._linear(f"{name}.gate_proj", x))
        return self._linear(f"{name}.down_proj", gate * self._linear(f"{name}.up_proj", x))

    def _turns(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary embedding, per position."""
        steps = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float32)
        frequencies = self.shape.rope_theta ** (-steps / self.shape.head_dim)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, by halves as in Hugging Face checkpoints, not interleaved."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin
