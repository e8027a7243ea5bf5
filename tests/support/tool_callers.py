"""Models of six families that call tools, each as it was trained to: scripted checkpoints for real engines.

The configurations, special tokens and formats are those of the families; the chat templates are short ones of
our own with the same marks, since those decide which parser is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.support.scripted_model import HEAD, Shape, write_scripted
from tests.support.scripted_tokens import ASKED, HEADS, Voice

_CITY: Final = {"type": "string"}


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": _CITY, **properties}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


_OPTIONS: Final = {
    "type": "object",
    "properties": {
        "days": {"type": "array", "items": {"type": "integer"}},
        "unit": {
            "type": "object",
            "properties": {"of": {"type": "string"}, "exact": {"type": "boolean"}},
        },
    },
}
TOOLS: Final[list[Any]] = [
    _tool("get_weather", options=_OPTIONS),
    _tool("get_time", hours={"type": "integer"}),
]
"""What every request offers."""

Calls = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Saying:
    """A question, and what a client should get for it."""

    question: str
    text: str = ""
    calls: Calls = ()
    thought: str = ""


_PARIS: Final = ("get_weather", {"city": "Paris"})
_OSLO: Final = ("get_time", {"city": "Oslo", "hours": 24})
_ZURICH: Final = (
    "get_weather",
    {"city": "Zürich 🌦", "options": {"days": [1, 2], "unit": {"of": "°C", "exact": True}}},
)
CALL: Final = Saying("What is the weather in Paris?", calls=(_PARIS,))
TEXT_AND_CALL: Final = Saying("Look at Paris!", "Let me look at the sky.", (_PARIS,))
TWO_CALLS: Final = Saying("How are Paris and Oslo?", "Two cities, two questions.", (_PARIS, _OSLO))
NESTED: Final = Saying("How will Zürich be?", calls=(_ZURICH,))
NO_CALL: Final = Saying("Are you well?", "I am well, thank you.")
SAYINGS: Final = (CALL, TEXT_AND_CALL, TWO_CALLS, NESTED, NO_CALL)


@dataclass(frozen=True, slots=True)
class ToolCaller:
    """A family: what its model is called, how it talks, and how it writes a saying."""

    name: str
    shape: Shape
    voice: Voice
    write: Callable[[Saying], str]
    as_said: Callable[[Saying], Saying] = field(default=lambda saying: saying)
    """What of a saying its format has room for."""


def write_caller(folder: Path, caller: ToolCaller) -> Path:
    """Its checkpoint, in a folder of its name in *folder*."""
    script = {saying.question: caller.write(saying) for saying in SAYINGS}
    return write_scripted(folder / caller.name, caller.shape, caller.voice, script)


def as_json(value: Any) -> str:
    """As a model writes it."""
    return json.dumps(value, ensure_ascii=False)


# -- Qwen, Hermes ----------------------------------------------------------------------------------


def _hermes(saying: Saying) -> str:
    calls = [
        f"<tool_call>\n{as_json({'name': name, 'arguments': arguments})}\n</tool_call>"
        for name, arguments in saying.calls
    ]
    return "\n".join([saying.text, *calls] if saying.text else calls)


QWEN: Final = ToolCaller(
    "Qwen3-4B-Instruct-2507",
    Shape(
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_act": "silu",
            "attention_bias": False,
            "rope_theta": 1_000_000.0,
            "rope_scaling": None,
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": 1,
        },
        head_norms=True,
    ),
    Voice(
        {
            "<|endoftext|>": True,
            "<|im_start|>": True,
            "<|im_end|>": True,
            "<tool_call>": False,
            "</tool_call>": False,
        },
        ends=("<|im_end|>", "<|endoftext|>"),
        prompt_end=("n", "t", "\n"),
        template="""\
{%- if tools %}<|im_start|>system
Functions:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
Call one with <tool_call>, its name and arguments as JSON, and </tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for tool_call in message.tool_calls or [] %}
<tool_call>
{{ {'name': tool_call.name, 'arguments': tool_call.arguments} | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    ),
    _hermes,
)

# -- Llama 3 ---------------------------------------------------------------------------------------


def _llama(saying: Saying) -> str:
    if not saying.calls:
        return saying.text
    return "; ".join(as_json({"name": name, "parameters": arguments}) for name, arguments in saying.calls)


def _text_or_calls(saying: Saying) -> Saying:
    return replace(saying, text="") if saying.calls else saying


LLAMA: Final = ToolCaller(
    "Llama-3.2-3B-Instruct",
    Shape(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_theta": 500_000.0,
            "rope_scaling": None,
        },
        theta=500_000.0,
    ),
    Voice(
        {
            "<|begin_of_text|>": True,
            "<|start_header_id|>": True,
            "<|end_header_id|>": True,
            "<|eot_id|>": True,
            "<|eom_id|>": True,
            "<|python_tag|>": True,
        },
        ends=("<|eot_id|>", "<|eom_id|>"),
        prompt_end=("<|end_header_id|>", "\n", "\n"),
        bos="<|begin_of_text|>",
        template="""\
{{- bos_token }}
{%- if tools %}<|start_header_id|>system<|end_header_id|>

Call a function as {"name": its name, "parameters": its arguments}.
{%- for tool in tools %}
{{ tool | tojson }}{% endfor %}<|eot_id|>{% endif %}
{%- for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if message.tool_calls %}
{%- for tool_call in message.tool_calls %}<|python_tag|>
{{- {"name": tool_call.function.name, "parameters": tool_call.function.arguments} | tojson }}
{%- endfor %}{% else %}{{ message.content }}{% endif %}<|eot_id|>{% endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}""",
    ),
    _llama,
    _text_or_calls,
)


# -- Mistral ---------------------------------------------------------------------------------------


def _mistral(saying: Saying) -> str:
    return saying.text + "".join(
        f"[TOOL_CALLS]{name}[ARGS]{as_json(arguments)}" for name, arguments in saying.calls
    )


MISTRAL: Final = ToolCaller(
    "Mistral-Small-3.2-24B-Instruct-2506",
    Shape(
        {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_act": "silu",
            "rope_theta": 1_000_000.0,
            "sliding_window": None,
        }
    ),
    Voice(
        {
            "<s>": True,
            "</s>": True,
            "[INST]": True,
            "[/INST]": True,
            "[AVAILABLE_TOOLS]": True,
            "[/AVAILABLE_TOOLS]": True,
            "[TOOL_CALLS]": True,
            "[ARGS]": True,
            "[TOOL_RESULTS]": True,
            "[/TOOL_RESULTS]": True,
        },
        ends=("</s>",),
        prompt_end=("[INST]", ASKED, "[/INST]"),
        bos="<s>",
        template="""\
{{- bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}[TOOL_RESULTS]{{ message.content }}[/TOOL_RESULTS]
{%- elif message.tool_calls %}
{%- for tool_call in message.tool_calls %}[TOOL_CALLS]{{ tool_call.function.name }}[ARGS]
{{- tool_call.function.arguments | tojson }}{% endfor %}{{ eos_token }}
{%- elif message.role == 'assistant' %}{{ message.content }}{{ eos_token }}
{%- else %}[INST]{{ message.content }}[/INST]{% endif %}{% endfor %}""",
    ),
    _mistral,
)


# -- Gemma -----------------------------------------------------------------------------------------


def _tool_code(saying: Saying) -> str:
    if not saying.calls:
        return saying.text
    lines = [
        f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        for name, arguments in saying.calls
    ]
    block = "\n".join(["```tool_code", *lines, "```"])
    return f"{saying.text}\n{block}" if saying.text else block


_GEMMA_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)

GEMMA_3: Final = ToolCaller(
    "gemma-3-4b-it",
    Shape(
        {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": HEAD,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": None,
            "sliding_window": 4096,
            "sliding_window_pattern": 1,
            "layer_types": ["full_attention"],
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        norms=_GEMMA_NORMS,
        head_norms=True,
        norm_of_one=0.0,
    ),
    Voice(
        {"<pad>": True, "<bos>": True, "<eos>": True, "<start_of_turn>": True, "<end_of_turn>": True},
        ends=("<end_of_turn>", "<eos>"),
        prompt_end=("e", "l", "\n"),
        bos="<bos>",
        template="""\
{{- bos_token }}{% for message in messages %}<start_of_turn>
{{- 'model' if message.role == 'assistant' else message.role }}
{{ message.content | trim }}<end_of_turn>
{% endfor %}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif %}""",
    ),
    _tool_code,
)


def _gemma_4(saying: Saying) -> str:
    def written(value: Any) -> str:
        if isinstance(value, str):
            return f'<|"|>{value}<|"|>'
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{written(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(written, value)) + "]"
        return as_json(value)

    return saying.text + "".join(
        f"<|tool_call>call:{name}{written(arguments)}<tool_call|>" for name, arguments in saying.calls
    )


GEMMA_4: Final = ToolCaller(
    "gemma-4-E4B-it",
    Shape(
        {
            "architectures": ["Gemma4ForCausalLM"],
            "model_type": "gemma4_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "global_head_dim": HEAD,
            "num_global_key_value_heads": HEADS,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "use_double_wide_mlp": False,
            "enable_moe_block": False,
            "attention_k_eq_v": False,
            "attention_bias": False,
            "final_logit_softcapping": None,
            "sliding_window": 4096,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
                "full_attention": {
                    "rope_theta": 1_000_000.0,
                    "rope_type": "proportional",
                    "partial_rotary_factor": 0.25,
                },
            },
        },
        layers=2,
        theta=10_000.0,
        norms=_GEMMA_NORMS,
        head_norms=True,
        extra={"layer_scalar": ((1,), 1.0)},
    ),
    Voice(
        {
            "<pad>": True,
            "<bos>": True,
            "<eos>": True,
            "<|turn>": True,
            "<turn|>": True,
            "<|tool>": True,
            "<tool|>": True,
            "<|tool_call>": True,
            "<tool_call|>": True,
            "<|tool_response>": True,
            "<tool_response|>": True,
            '<|"|>': True,
        },
        ends=("<turn|>", "<eos>", "<|tool_response>"),
        prompt_end=("e", "l", "\n"),
        bos="<bos>",
        template="""\
{{- bos_token }}{% if tools %}<|turn>system
{% for tool in tools %}<|tool>{{ tool | tojson }}<tool|>{% endfor %}<turn|>
{% endif %}
{%- for message in messages %}<|turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% for tool_call in message.tool_calls or [] %}<|tool_call>call:{{ tool_call.function.name }}
{{- tool_call.function.arguments }}<tool_call|>{% endfor %}{{ message.content or '' }}<turn|>
{% endfor %}
{%- if add_generation_prompt %}<|turn>model
{% endif %}""",
    ),
    _gemma_4,
)
