"""What a chat template shows of its model: whether and how it calls tools, and whether it thinks. Pure.

A template is a program; nothing of it is run. It is searched for the marks that each writing has and no other
has, the rarer ones first: the best evidence there is in files for what a model was trained to write.
"""

from __future__ import annotations

from typing import Final

_FORMATS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("minimax_m2", ("<minimax:tool_call>",)),
    ("gemma4", ("<|tool_call>", "<tool_call|>")),
    ("functiongemma", ("<start_function_call>",)),
    ("longcat", ("<longcat_tool_call>",)),
    ("seed_oss", ("<seed:tool_call>",)),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("deepseek_v32", ("<\uff5cDSML\uff5c",)),
    ("deepseek_v3", ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "```json")),
    ("deepseek_v31", ("<\uff5ctool\u2581calls\u2581begin\uff5c>",)),
    ("harmony", ("<|channel|>", "<|message|>")),
    ("glm", ("<arg_key>",)),
    ("lfm2", ("<|tool_list_start|>",)),
    ("qwen3_coder", ("<tool_call>", "<function=")),
    ("minicpm5", ('<function name="', '<param name="')),
    ("mistral", ("[TOOL_CALLS]",)),
    ("cohere", ("<|START_ACTION|>",)),
    ("granite", ("<|tool_call|>",)),
    ("phi4_mini", ("<|tool|>",)),
    ("internlm", ("<|action_start|>",)),
    ("hermes", ("<tool_call>", "tool_call.name")),
    ("tool_call_tags", ("<tool_call>",)),
    ("llama3_json", ("<|python_tag|>",)),
    ("llama3_json", ('{"name": ', '"parameters": ', "<|start_header_id|>")),
    ("llama4_json", ('{"name": ', '"parameters": ', "<|header_start|>")),
    ("llama4_pythonic", ("<|header_start|>",)),
)
"""Writing of a tool call to the marks that all have to be in a template that asks for it."""

FORMATS: Final = frozenset(name for name, _ in _FORMATS)
"""Every writing that is known."""


def tool_format(template: str) -> str | None:
    """How the model writes a tool call; None without tools, and where the writing is not known."""
    if not mentions_tools(template):
        return None
    return next((name for name, marks in _FORMATS if all(mark in template for mark in marks)), None)


def mentions_tools(template: str) -> bool:
    """True when a chat template can put tool definitions into the prompt."""
    return "tools" in template or "[AVAILABLE_TOOLS]" in template


_THINKING: Final = (
    "enable_thinking",
    "reasoning_effort",
    "<|channel",
    "[THINK]",
    "thinking_budget",
    "thinking_mode",
    "if thinking",
    "thinking is defined",
)


def mentions_thinking(template: str) -> bool | None:
    """Whether a chat template makes the model think; None where it cannot be told.

    `<think>` alone proves nothing: templates of models that never think strip it out of the history.
    """
    if any(word in template for word in _THINKING):
        return True
    if "<think>" not in template and "thinking" not in template:
        return False
    prompt = template.rpartition("add_generation_prompt")[2]
    return True if "<think>\\n" in prompt or "<think>\n" in prompt else None


def thinking_switch(template: str) -> str | None:
    """The variable that switches thinking, as `chat_template_kwargs` takes it; None without one."""
    return next(
        (word for word in ("enable_thinking", "reasoning_effort", "thinking") if word in template), None
    )


def template_features(template: str) -> frozenset[str]:
    """What a template has, in words: `tools`, `tools:hermes`, `thinking`, `thinking:enable_thinking` …"""
    found = {"chat"}
    if mentions_tools(template):
        found.add("tools")
        if name := tool_format(template):
            found.add(f"tools:{name}")
    if mentions_thinking(template):
        found.add("thinking")
        if (switch := thinking_switch(template)) is not None:
            found.add(f"thinking:{switch}")
    for word, marks in _PARTS.items():
        if any(mark in template for mark in marks):
            found.add(word)
    return frozenset(found)


_PARTS: Final = {
    "system": ("'system'", '"system"'),
    "images": ("'image'", '"image"', "image_url", "<image>"),
    "video": ("'video'", '"video"'),
    "audio": ("'audio'", '"audio"', "input_audio"),
}
