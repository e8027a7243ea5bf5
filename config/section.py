"""What all sections of the configuration share: names, words, and how strictly a section is read."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)


def _host_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", value) is None:
        raise ValueError(f"{value!r} is no host's name: write 'yard.example.com', without scheme and port")
    return value


def check_model_id(value: str) -> str:
    """*value* if it can name a model; ValueError says why not.

    It appears in paths, in file names and as an engine's argument: no white space or control characters,
    no empty, `.` or `..` part between slashes, no leading dash, and `auto` is reserved.
    """
    if not value or len(value) > 200:
        raise ValueError("a model's id has 1 to 200 characters")
    if any(c.isspace() or not c.isprintable() or c in "\\{}" for c in value):
        raise ValueError(f"{value!r} cannot be a model's id: no white space, backslashes or braces")
    if value.startswith("-") or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError(f"{value!r} cannot be a model's id: no leading '-', no empty, '.' or '..' part")
    if value == "auto" or value.startswith("auto:"):
        raise ValueError("'auto' is reserved")
    return value


def check_key_name(value: str) -> str:
    """*value* if it can name a key: it is a label in metrics and a word in logs. ValueError says why not."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) is None:
        raise ValueError(f"{value[:70]!r} cannot name a key: up to 64 letters, digits, '.', '_' and '-'")
    return value


def _word(value: object) -> object:
    # A number needs no quotes in YAML; a flag or a date would not come back as it was written.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool):
        raise ValueError(f"put quotes around it: '{str(value).lower()}'")  # noqa: TRY004  pydantic's rule
    return value


Word = Annotated[str, BeforeValidator(_word), WithJsonSchema({"type": ["string", "integer"]})]
ModelName = Annotated[str, AfterValidator(check_model_id)]
KeyName = Annotated[str, AfterValidator(check_key_name)]
HostName = Annotated[str, AfterValidator(_host_name)]
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        # `models:` with every line below it commented out is null in YAML, and means the default.
        if isinstance(value, dict):
            return {key: v for key, v in value.items() if v is not None or key not in cls.model_fields}
        return value
