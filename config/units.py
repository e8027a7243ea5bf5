"""Quantities as operators write them, read and written: durations, sizes, budgets, moments. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_SIZE_UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_duration(value: object) -> float:
    """Seconds for `30`, `1.5`, `"30s"`, `"500ms"`, `"1h30m"`; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a duration such as 30, '30s', '5m' or '1h30m'")  # noqa: TRY004  pydantic's rule
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            seconds = sum(float(n) * _DURATION_UNITS[u] for n, u in parts)
        else:
            try:
                seconds = float(text)
            except ValueError:
                raise ValueError(f"{value!r} is not a duration: write 30, '30s', '5m' or '1h30m'") from None
    if seconds < 0 or seconds != seconds or seconds == float("inf"):
        raise ValueError("a duration must be finite and not negative")
    return seconds


def parse_size(value: object) -> int:
    """Bytes for `1024`, `"8GiB"`, `"500 MB"`; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a size such as 1073741824, '8GiB' or '500MB'")  # noqa: TRY004  pydantic's rule
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a size: write 1073741824, '8GiB' or '500MB'")
        if "." in match[1] and (match[2] or "B").lower() == "b":
            raise ValueError(f"{value!r} is not a whole number of bytes: write '8GiB' or '500MB'")
        size = int(float(match[1]) * _SIZE_UNITS[(match[2] or "B").lower()])
    if size < 0:
        raise ValueError("a size must not be negative")
    return size


def parse_memory(value: object) -> int | dict[str, int]:
    """Bytes for a size, or bytes by device for `{gpu0: 20GiB, host: 1GiB}`, `gpu` being any one of them.

    Raises ValueError for anything else.
    """
    if not isinstance(value, dict):
        return parse_size(value)
    if not value:
        raise ValueError("names no device: write a size, or {gpu0: 20GiB, host: 1GiB}")
    for device in value:
        if not isinstance(device, str) or re.fullmatch(r"host|gpu\d{0,2}", device) is None:
            raise ValueError(
                f"{str(device)[:20]!r} is no device: they are host, gpu0, gpu1 …, gpu for any one"
            )
    if "gpu" in value and len(value.keys() - {"gpu", "host"}):
        raise ValueError("gpu is any one GPU: name either that or certain ones")
    return {device: parse_size(size) for device, size in value.items()}


_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)")
_TOKEN_UNITS = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20}


def parse_tokens(value: str) -> int:
    """Tokens for `"8192"`, `"32k"` (32000), `"32K"` (32768), as vLLM reads them; raises ValueError."""
    match = _TOKENS.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a number of tokens: write 8192, 32k or 1m")
    return int(float(match[1]) * _TOKEN_UNITS[match[2]])


def parse_budget(value: object) -> int | float | Literal["auto"]:
    """`"auto"`, a share of the device as a float in (0, 1] (from `"80%"`), or bytes as an int."""
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share: write '80%', '8GiB' or 'auto'") from None
        if not 0 < share <= 1:
            raise ValueError("a share must be above 0% and at most 100%")
        return share
    return parse_size(value)


def parse_budgets(value: object) -> int | float | Literal["auto"] | dict[str, int | float | Literal["auto"]]:
    """A budget, or budgets by GPU for `{gpu0: 20GiB, gpu1: 50%}`; raises ValueError for anything else."""
    if not isinstance(value, dict):
        return parse_budget(value)
    if not value:
        raise ValueError("names no GPU: write a budget for each of them, or {gpu0: 20GiB, gpu1: 50%}")
    for device in value:
        if not isinstance(device, str) or re.fullmatch(r"gpu\d{1,2}", device) is None:
            raise ValueError(f"{str(device)[:20]!r} is no GPU: they are gpu0, gpu1 …")
    return {device: parse_budget(budget) for device, budget in value.items()}


def parse_moment(value: object) -> float:
    """Unix seconds for `"2027-01-31"` (its first instant) or `"2027-01-31T12:00:00Z"`; else ValueError.

    UTC unless it names another offset.
    """
    if isinstance(value, float) and value > 0:
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    raise ValueError("expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z")


# -- and back --------------------------------------------------------------------------------------


def write_duration(seconds: float) -> str:
    """`10m` for 600.0: the largest unit, up to hours, that leaves no rest."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.15g}{unit}"
    return f"{seconds:.15g}s"


def write_size(count: int) -> str:
    """`8GiB` for 8589934592: the largest unit that leaves no rest, else bytes."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= length and count % length == 0:
            return f"{count // length}{unit}"
    return str(count)


def write_budget(value: float | Literal["auto"]) -> str:
    """`auto`, `80%` for 0.8, or a size."""
    if isinstance(value, str):
        return value
    return f"{value * 100:.15g}%" if isinstance(value, float) else write_size(value)


def write_moment(moment: float) -> str:
    """Unix seconds as people and `parse_moment` read them; midnight in UTC is a date alone."""
    text = datetime.fromtimestamp(int(moment), UTC).isoformat().replace("+00:00", "Z")
    return text.removesuffix("T00:00:00Z")
