"""Run by an engine's own Python: the bytes that mlx-lm's caches of tiny models take.

Reads a JSON list of `{"config", "dtype", "tokens"}`, prints one number of bytes a line. The last token comes
by itself, since a cache with a window only forgets when one token is added.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes


def main() -> None:
    """See the module."""
    for order in json.load(sys.stdin):
        print(cache_bytes(order["config"], order["dtype"], order["tokens"]), flush=True)


def cache_bytes(config: dict[str, Any], dtype: str, tokens: int) -> int:
    """What a model of that shape keeps of a sequence of *tokens* tokens."""
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    model.set_dtype(getattr(mx, dtype))
    cache = make_prompt_cache(model)
    for count in (tokens - 1, 1):
        mx.eval(model(mx.zeros((1, count), mx.int32), cache=cache))
    return sum(layer.nbytes for layer in cache)


if __name__ == "__main__":
    main()
