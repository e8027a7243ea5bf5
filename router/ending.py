"""How an answer ended, as its exchange is told. Pure."""

from __future__ import annotations

from enum import Enum


class End(Enum):
    """How an answer ended."""

    COMPLETE = "complete"
    """The client has all of it."""
    SAID = "said"
    """It was cut, and the client was told so inside the stream."""
    CUT = "cut"
    """It was cut where nothing can be said: the connection must be closed hard."""
    REFUSED = "refused"
    """Nothing was sent to the client: `Relay.refusal` is to be answered."""
    YIELDED = "yielded"
    """The engine has answered one of `yields`: another model is asked, or `Relay.refusal` answered."""
