"""What a start will need and take: the operator's word, else what earlier runs taught, else an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from registry.engine import DeviceId, ModelId
from registry.model import Model
from supervisor.ports import Journal

LEARNED_MARGIN = 1.05
"""On top of a measured peak: the next run may meet a longer prompt."""

GUESSED_BYTES_PER_SECOND = 1 << 30
GUESSED_SECONDS = 5.0
"""A start that was never seen: an interpreter's imports, then weights from a disk of 1 GiB a second."""


class Forecast:
    """Answers from the journal, kept until they are forgotten: admission asks on every event."""

    def __init__(self, journal: Journal, devices: Iterable[DeviceId]) -> None:
        self._journal = journal
        self._devices = frozenset(devices)
        self._needs: dict[ModelId, Mapping[DeviceId, int]] = {}
        self._loads: dict[ModelId, float | None] = {}

    def forget(self, model: ModelId) -> None:
        """Something was learned of *model*."""
        self._needs.pop(model, None)
        self._loads.pop(model, None)

    def forget_all(self) -> None:
        """The catalog is another."""
        self._needs.clear()
        self._loads.clear()

    def need(self, model: Model) -> Mapping[DeviceId, int]:
        """Bytes to reserve per device."""
        if model.id not in self._needs:
            self._needs[model.id] = self.estimate(model)
        return self._needs[model.id]

    def estimate(self, model: Model) -> Mapping[DeviceId, int]:
        """The same, worked out anew: for a definition that is not in force."""
        need = dict(model.footprint.bytes_by_device)
        if model.spec is not None and not model.footprint.is_given:
            learned = self._journal.learned(model.spec.fingerprint).peak_bytes
            # Also where nobody expected it: a cmd that takes a GPU says so only by taking it.
            need |= {d: int(b * LEARNED_MARGIN) for d, b in learned.items() if d in self._devices}
        return need

    def load_seconds(self, model: Model) -> float | None:
        """How long it took to start before; None when it never did."""
        if model.id not in self._loads:
            learned = self._journal.learned(model.spec.fingerprint) if model.spec is not None else None
            self._loads[model.id] = learned.load_seconds if learned is not None else None
        return self._loads[model.id]

    def guessed_load_seconds(self, model: Model) -> float:
        """The same, and a guess by its bytes for one that never started."""
        known = self.load_seconds(model)
        if known is not None:
            return known
        return GUESSED_SECONDS + sum(self.need(model).values()) / GUESSED_BYTES_PER_SECOND
