"""How long a client waits in silence, where it says so. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_LEAST = 1.0
_MOST = 86400.0
_MARGIN = 0.2
_MOST_MARGIN = 5.0


def said_by(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds that may pass before an answer, out of what OpenAI's and Anthropic's SDKs say of their read
    time-out; a fifth, at most 5 s, is left for the way. None: it says nothing."""
    given = headers.get(b"x-stainless-read-timeout") or headers.get(b"x-stainless-timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        return None
    if not _LEAST <= seconds <= _MOST:
        return None
    return seconds - min(_MARGIN * seconds, _MOST_MARGIN)
