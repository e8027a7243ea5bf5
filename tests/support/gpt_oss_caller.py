"""gpt-oss among `tool_callers`: with a vocabulary of its own, and with the one that vLLM carries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from config.places import engine_folder
from config.vocabulary import EngineName
from tests.support.real_engines import ENGINES
from tests.support.scripted_model import HEAD, HIDDEN, Shape
from tests.support.scripted_tokens import HEADS, Voice
from tests.support.tool_callers import Saying, ToolCaller, as_json


def _harmony(saying: Saying) -> str:
    said = _in_channels(saying)
    # What is said before a call has a message of its own.
    first = ("analysis", said.thought) if said.thought else ("commentary", said.text)
    begun = f"<|channel|>{first[0]}<|message|>{first[1]}<|end|><|start|>assistant<|channel|>"
    if not said.calls:
        return f"{begun}final<|message|>{said.text}<|return|>"
    ((name, arguments),) = said.calls
    return f"{begun}commentary to=functions.{name} <|constrain|>json<|message|>{as_json(arguments)}<|call|>"


def _in_channels(saying: Saying) -> Saying:
    # A call ends the turn.
    thought = "" if saying.text and saying.calls else "They ask."
    return replace(saying, thought=thought, calls=saying.calls[:1])


_EXPERTS: Final = 2

GPT_OSS: Final = ToolCaller(
    "gpt-oss-20b",
    Shape(
        {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "hidden_act": "silu",
            "num_local_experts": _EXPERTS,
            "num_experts_per_tok": 1,
            "experts_per_token": 1,
            "attention_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 150_000.0},
            "rope_theta": 150_000.0,
            "sliding_window": 4096,
            "layer_types": ["full_attention", "sliding_attention"],
            "swiglu_limit": 7.0,
        },
        layers=2,
        theta=150_000.0,
        feed_forward=False,
        extra={
            "self_attn.sinks": ((HEADS,), -1e4),
            **{
                f"self_attn.{name}_proj.bias": ((HIDDEN if name == "o" else HEADS * HEAD,), 0.0)
                for name in "qkvo"
            },
            "mlp.router.weight": ((_EXPERTS, HIDDEN), 0.0),
            "mlp.router.bias": ((_EXPERTS,), 0.0),
            **{
                f"mlp.experts.{name}_proj.{part}": (sizes, 0.0)
                for name, rows, columns in (
                    ("gate", HEAD, HIDDEN),
                    ("up", HEAD, HIDDEN),
                    ("down", HIDDEN, HEAD),
                )
                for part, sizes in (("weight", (_EXPERTS, rows, columns)), ("bias", (_EXPERTS, rows)))
            },
        },
    ),
    Voice(
        {
            "<|startoftext|>": True,
            "<|endoftext|>": True,
            "<|return|>": True,
            "<|constrain|>": True,
            "<|channel|>": True,
            "<|start|>": True,
            "<|end|>": True,
            "<|message|>": True,
            "<|call|>": True,
            "assistant": False,
        },
        ends=("<|return|>", "<|endoftext|>", "<|call|>"),
        prompt_end=("<|end|>", "<|start|>", "assistant"),
        bos="<|startoftext|>",
        template="""\
<|start|>system<|message|>Channels: analysis, commentary, final.<|end|>
{%- if tools %}<|start|>developer<|message|>namespace functions
{%- for tool in tools %} {{ tool | tojson }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|start|>tool<|channel|>commentary<|message|>{{ message.content }}<|end|>
{%- else %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}""",
    ),
    _harmony,
    _in_channels,
)


GPT_OSS_IN_VLLM_MLX: Final = replace(
    GPT_OSS, as_said=lambda saying: replace(_in_channels(saying), thought="")
)
"""What it thinks is `reasoning_content` there, in streams alone."""


# -- as vLLM wants it ------------------------------------------------------------------------------

_ENCODE: Final = """
import json, sys
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
rows = [encoding.encode(text, allowed_special="all") for text in json.load(sys.stdin)]
json.dump([[(one, encoding._inner.decode_bytes([one]).hex()) for one in row] for row in rows], sys.stdout)
"""


def _encode(texts: Sequence[str]) -> list[list[tuple[int, bytes]]]:
    """The tokens of gpt-oss's own encoding, which vLLM carries and reads no `tokenizer.json` for."""
    python = engine_folder(ENGINES, EngineName.VLLM) / "bin" / "python"
    done = subprocess.run(
        [python, "-c", _ENCODE], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    return [[(number, bytes.fromhex(text)) for number, text in row] for row in json.loads(done.stdout)]


def _curt(saying: Saying) -> str:
    said = _only_the_call(saying)
    if not said.calls:
        return f"<|channel|>final<|message|>{said.text}<|return|>"
    ((name, arguments),) = said.calls
    return (
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{as_json(arguments)}<|call|>"
    )


def _only_the_call(saying: Saying) -> Saying:
    # Its heads see three tokens and the question: a second channel would begin as the first one does.
    return replace(saying, text="" if saying.calls else saying.text, calls=saying.calls[:1])


GPT_OSS_IN_VLLM: Final = replace(
    GPT_OSS,
    shape=replace(
        GPT_OSS.shape,
        config={
            **GPT_OSS.shape.config,
            "initial_context_length": 4096,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150_000.0,
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
        },
        extra={
            **{name: value for name, value in GPT_OSS.shape.extra.items() if "experts" not in name},
            "mlp.experts.gate_up_proj": ((_EXPERTS, HIDDEN, 2 * HEAD), 0.0),
            "mlp.experts.gate_up_proj_bias": ((_EXPERTS, 2 * HEAD), 0.0),
            "mlp.experts.down_proj": ((_EXPERTS, HEAD, HIDDEN), 0.0),
            "mlp.experts.down_proj_bias": ((_EXPERTS, HIDDEN), 0.0),
        },
        dtype="bfloat16",
    ),
    voice=replace(GPT_OSS.voice, encode=_encode, vocabulary_size=201_088),
    write=_curt,
    as_said=_only_the_call,
)
