"""modelyard: one OpenAI-compatible endpoint for many models.

`Client` and `AsyncClient` speak to a daemon from Python (`modelyard.client`); they are imported when they are
first named, so that the command line does not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.client import AsyncClient as AsyncClient
    from modelyard.client import Client as Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    if name in ("AsyncClient", "Client"):
        from modelyard import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
