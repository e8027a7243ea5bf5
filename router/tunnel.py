"""An exchange whose client and engine speak past us, after an upgrade to WebSocket."""

from __future__ import annotations

from router.client_side import ClientSide
from router.shared import Shared
from router.upstream import UpstreamConnection


class Tunnel:
    """What an `Exchange` can do besides; it keeps everything that is named here."""

    __slots__ = ("bytes_in", "tunnelled")

    shared: Shared
    side: ClientSide
    tunnelled: bool
    """Both sides speak past us: it was upgraded."""
    bytes_in: int
    _up: UpstreamConnection | None
    _paused: bool
    _whole_due: float

    def pass_down(self) -> None:
        """Bytes passed in an upgraded connection; the first time, what the client has sent ahead goes."""
        if not self.tunnelled:
            self.tunnelled = True
            ahead = self.side.opened()
            if ahead:
                self.pass_up(ahead)
        if not self._paused:
            self.side.deadline = min(self._whole_due, self.shared.now() + self.shared.limits.tunnel_idle)

    def pass_up(self, data: bytes) -> None:
        """Bytes of a client that speaks with its engine."""
        up = self._up
        if up is not None:
            self.bytes_in += len(data)
            up.transport.write(data)
            self.pass_down()

    def upstream_slow(self, *, slow: bool) -> None:
        """The engine reads more slowly than it is written to, or has caught up."""
        if self.tunnelled:
            self.side.hold(back=slow)
