"""Words that settings share with the hot path, which must not import pydantic."""

from __future__ import annotations

from enum import StrEnum


class EngineName(StrEnum):
    """The kinds of server we can run. `endpoint` is a server that runs already and is not ours."""

    VLLM = "vllm"
    VLLM_MLX = "vllm-mlx"
    MLX_LM = "mlx-lm"
    COMMAND = "command"
    ENDPOINT = "endpoint"


class Capability(StrEnum):
    """What a model can do; the words operators write and `/v1/models` shows."""

    GENERATE = "generate"
    TOOL_USE = "tool_use"
    VISION = "vision"
    VIDEO = "video"
    AUDIO = "audio"
    REASONING = "reasoning"
    EMBED = "embed"
    RERANK = "rerank"
    CLASSIFY = "classify"
    TRANSCRIBE = "transcribe"
    SPEAK = "speak"
    CODE = "code"
    IMAGE = "image"
