"""The configuration of what becomes of a request on its way: changes to it, and who else may answer it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from config.section import Section

READ_BEFORE = ("model", "stream")
"""Members that have been read, and acted on, when a request is changed."""


class RequestConfig(Section):
    """Changes to a JSON request: what `strip` names goes, `default` fills in, `set` wins over everybody."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Top-level members with the values they get, whatever the client says: `temperature: 0`."""
    default: dict[str, Any] = Field(default_factory=dict)
    """Members with the values they get where the client says nothing."""
    strip: tuple[str, ...] = ()
    """Members that are taken out."""

    @field_validator("set", "default", "strip")
    @classmethod
    def _not_read_before(cls, value: Any) -> Any:
        for name in READ_BEFORE:
            if name in value:
                raise ValueError(f"{name} cannot be changed here: the way of the request depends on it")
        return value


class VirtualConfig(Section):
    """One entry under `virtual:`: a name that the first of its models answers that can."""

    models: tuple[str, ...] = Field(min_length=1)
    """Names of models, best first: ids, aliases, `model:variant`, `model@endpoint`, `auto:…`."""
    prefer: Literal["order", "warm"] = "order"
    """order: always the first that can; warm: one that is loaded before one that is not."""
    fallback: tuple[Literal["failure", "overload"], ...] = ("failure", "overload")
    """When the next one is asked instead, as long as no byte of an answer was sent: when the model cannot be
    started or its engine fails; when too many wait for it or its engine says that it is full."""
