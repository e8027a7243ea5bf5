"""What differs between two configurations, as far as a reload must know. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.schema import ModelConfig, Settings

TAKEN_OVER: Final = frozenset(
    {
        "default_model", "discover", "engines", "fuzzy_names", "keys", "keys_file", "models", "seed",
        "shutdown_grace", "tls", "ttl", "virtual", "watch_config",
    }
)  # fmt: skip
"""Keys that a reload puts into force. All others are read when a daemon starts: `modelyard restart`."""

TAKEN_OVER_WITHIN: Final = {"start": frozenset({"stall_timeout", "start_timeout", "stop_grace"})}
"""The same of sections that are only in part what each model is started with."""


def changed_keys(old: ModelConfig, new: ModelConfig) -> tuple[str, ...]:
    """Keys of a model's entry that differ, in the order of the reference."""
    return tuple(key for key in ModelConfig.model_fields if getattr(old, key) != getattr(new, key))


def changed_settings(old: Settings, new: Settings) -> tuple[str, ...]:
    """Dotted keys, except `models`, that differ and that a reload puts into force."""
    return tuple(key for key in _changed(old, new) if _is_taken_over(key) and key != "models")


def left_for_restart(started_with: Settings, new: Settings) -> tuple[str, ...]:
    """Dotted keys that differ from those the daemon was started with, and that only a new process reads."""
    return tuple(key for key in _changed(started_with, new) if not _is_taken_over(key))


def _changed(old: Settings, new: Settings) -> Iterator[str]:
    for name in Settings.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name not in TAKEN_OVER_WITHIN:
            yield name
            continue
        for key in type(after).model_fields:
            if getattr(before, key) != getattr(after, key):
                yield f"{name}.{key}"


def _is_taken_over(key: str) -> bool:
    name, _, field = key.partition(".")
    return name in TAKEN_OVER or field in TAKEN_OVER_WITHIN.get(name, ())
