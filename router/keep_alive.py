"""`keep_alive` in a request, as Ollama has it: how long its model stays loaded after it. Pure."""

from __future__ import annotations

import math

import msgspec

from config.units import parse_duration
from router.refused import RefusedError, bad_request

MEMBER = "keep_alive"
FOR_EVER = math.inf


def seconds_of(raw: bytes) -> float | None:
    """Seconds of the member's value as JSON: a number of them, or a text such as `5m`; 0 is at once, and a
    negative one is for ever. None for null, which says nothing.

    Raises `RefusedError` (400) for anything else.
    """
    try:
        value = msgspec.json.decode(raw, type=str | int | float | None)
        if value is None:
            return None
        text = str(value).strip()
        seconds = parse_duration(text.removeprefix("-"))
    except (msgspec.DecodeError, ValueError):
        raise RefusedError(
            bad_request(
                "`keep_alive` must be seconds or a duration such as '5m'; 0: not at all, -1: for ever",
                code="invalid_keep_alive",
                param=MEMBER,
            )
        ) from None
    return FOR_EVER if text.startswith("-") else seconds
