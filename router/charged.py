"""The body of an exchange, counted and kept as long as another try may need it."""

from __future__ import annotations

from router.plan import Plan
from router.ports import Bytes, Refusal
from router.refused import buffer_full
from router.tunnel import Tunnel


class Charged(Tunnel):
    """What is held for it; an `Exchange` keeps everything that is named here."""

    __slots__ = ("_charged_model", "_pieces", "_plan", "buffer", "charged")

    _plan: Plan | None
    _pieces: list[Bytes]
    buffer: bytearray | None
    charged: int
    _charged_model: int

    def _charge(self, planned: Plan) -> bool:
        """Count the body of a request that will wait; False if it has been refused for want of room."""
        budget, model = self.shared.budget, planned.route.model
        size = sum(map(len, self._pieces))
        if not self.charged:
            if not budget.take(size):
                self.refuse(buffer_full(None))
                return False
            self.charged = size
        if not budget.take_model(model, size):
            self.refuse(buffer_full(model))
            return False
        self._charged_model = size
        return True

    def _uncharge_model(self) -> None:
        if self._charged_model and self._plan is not None:
            self.shared.budget.give_model(self._plan.route.model, self._charged_model)
            self._charged_model = 0

    def _release_body(self) -> None:
        """Give the body's budget and buffer back; a buffer still being written is left to the collector."""
        shared, up = self.shared, self._up
        self._pieces = []
        if self.charged:
            shared.budget.give(self.charged)
            self.charged = 0
        self._uncharge_model()
        buffer, self.buffer = self.buffer, None
        if buffer is not None and up is not None and up.transport.get_write_buffer_size() == 0:
            shared.buffers.give(buffer)

    def refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """Answer *refusal*, and end."""
        raise NotImplementedError
