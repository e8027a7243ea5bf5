"""What launching has in common for all engines: the path, the arguments, the environment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from config.schema import ENGINES_WITH, ModelConfig, check_model_id
from config.vocabulary import EngineName
from registry.capability import Capability
from registry.checkpoint import Checkpoint
from registry.engine import Answers
from registry.model import Model

QUIET_HUB: Mapping[str, str] = {
    # The checkpoint is local: looking for a newer one would make a start depend on the network.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Lines of the log must appear when they are written: they are the sign of life.
    "PYTHONUNBUFFERED": "1",
}
"""For every engine that runs Python."""

_BLANK = Checkpoint()


def options_of(model: Model) -> ModelConfig:
    """The operator's entry, or one that says nothing."""
    return model.options or ModelConfig(source=model.source)


def checkpoint_of(model: Model) -> Checkpoint:
    """What its files say, or nothing."""
    return model.checkpoint or _BLANK


def argument(args: Iterable[str], *names: str) -> str | None:
    """The value that the operator gave for a flag under one of its *names*; the last one wins."""
    found: str | None = None
    words = list(args)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else (words[index + 1] if index + 1 < len(words) else "")
    return found


def given(flag: str, value: object) -> tuple[str, ...]:
    """*flag* with *value*, or nothing where there is none."""
    return () if value is None else (flag, str(value))


def environment(
    model: Model, ours: Mapping[str, str], *, above: Mapping[str, str] | None = None
) -> dict[str, str]:
    """*ours*, with the operator's on top, and *above* over both."""
    return {**QUIET_HUB, **ours, **options_of(model).env, **(above or {})}


def unusable_id(model: Model) -> str | None:
    """Why the id cannot be an engine's argument and a file name; None if it can."""
    try:
        check_model_id(model.id)
    except ValueError as error:
        return str(error)
    if any(len(part.encode()) > 255 for part in model.id.split("/")):
        return f"{model.id[:40]}…: a part of its id is longer than a file name can be"
    return None


def no_checkpoint(model: Model) -> str | None:
    """Why a model without a local folder cannot be launched; None if it has one."""
    if model.path is not None:
        return None
    return f"{model.source} is not on this machine: download it with `hf download {model.source}`"


def lacks_option(model: Model, engine: EngineName) -> str | None:
    """Which key of its entry *engine* has no option for; None if it has them all."""
    options = options_of(model)
    for key, able in ENGINES_WITH.items():
        if getattr(options, key) and engine.value not in able:
            return f"{engine.value} has no {key}, only {' and '.join(able)}"
    return None


def first_words(model: Model, *, name: str) -> Answers:
    """A one-token request: the only proof that an engine that loads behind its back can answer.

    *name* is what the engine knows the model by.
    """
    body: dict[str, Any] = {"model": name, "max_tokens": 1, "temperature": 0}
    if checkpoint_of(model).has_chat_template:
        body["messages"] = [{"role": "user", "content": "Hi"}]
        return Answers("/v1/chat/completions", _json(body))
    body["prompt"] = "Hi"
    return Answers("/v1/completions", _json(body))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def generates(model: Model) -> bool:
    """True unless it is known to do something else."""
    return Capability.GENERATE in model.capabilities
