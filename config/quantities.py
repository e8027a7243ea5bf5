"""Quantities as fields of the configuration: how each is read, and what its JSON schema says. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

from config.units import (
    parse_budget,
    parse_budgets,
    parse_duration,
    parse_memory,
    parse_moment,
    parse_size,
)

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
Memory = Annotated[
    int | dict[str, int],
    BeforeValidator(parse_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string"},
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": "^(host|gpu\\d{0,2})$"},
                    "additionalProperties": {
                        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]
                    },
                },
            ]
        }
    ),
]
Moment = Annotated[float, BeforeValidator(parse_moment), WithJsonSchema({"type": "string"})]
Budget = Annotated[
    int | float | Literal["auto"],
    BeforeValidator(parse_budget),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]

Budgets = Annotated[
    int | float | Literal["auto"] | dict[str, int | float | Literal["auto"]],
    BeforeValidator(parse_budgets),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string"},
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": "^gpu\\d{1,2}$"},
                    "additionalProperties": {
                        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]
                    },
                },
            ]
        }
    ),
]
