"""What a start will need and take: the operator's word, else what earlier runs taught, else an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from registry.engine import DeviceId, LaunchSpec, ModelId
from registry.model import Model
from supervisor.placing import moved
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
        self._needs: dict[ModelId, tuple[Mapping[DeviceId, int], ...]] = {}
        self._loads: dict[ModelId, float | None] = {}

    def forget(self, model: ModelId) -> None:
        """Something was learned of *model*."""
        self._needs.pop(model, None)
        self._loads.pop(model, None)

    def forget_all(self) -> None:
        """The catalog is another."""
        self._needs.clear()
        self._loads.clear()

    def needs(self, model: Model) -> tuple[Mapping[DeviceId, int], ...]:
        """Bytes to reserve per device, for each of the model's places."""
        if model.id not in self._needs:
            self._needs[model.id] = self.estimate(model)
        return self._needs[model.id]

    def need(self, model: Model, place: int = 0) -> Mapping[DeviceId, int]:
        """Bytes to reserve per device at one of them."""
        return self.needs(model)[place]

    def estimate(self, model: Model) -> tuple[Mapping[DeviceId, int], ...]:
        """As `needs`, worked out anew: for a definition that is not in force."""
        return tuple(self._need(spec, model) for spec in model.places)

    def _need(self, spec: LaunchSpec, model: Model) -> Mapping[DeviceId, int]:
        need = dict(spec.footprint.bytes_by_device)
        if spec.footprint.is_given:
            return need
        learned = self._journal.learned(spec.fingerprint).peak_bytes
        if not learned:
            # Not here yet, but perhaps on other devices: it will take as much.
            known = (self._journal.learned(other.fingerprint).peak_bytes for other in model.places)
            learned = moved(next((peak for peak in known if peak), {}), need)
        # Also where nobody expected it: a cmd that takes a GPU says so only by taking it.
        return need | {d: int(b * LEARNED_MARGIN) for d, b in learned.items() if d in self._devices}

    def load_seconds(self, model: Model) -> float | None:
        """How long it took to start before; None when it never did."""
        if model.id not in self._loads:
            known = (self._journal.learned(spec.fingerprint).load_seconds for spec in model.places)
            self._loads[model.id] = next((seconds for seconds in known if seconds is not None), None)
        return self._loads[model.id]

    def guessed_load_seconds(self, model: Model) -> float:
        """The same, and a guess by its bytes for one that never started."""
        known = self.load_seconds(model)
        if known is not None:
            return known
        return GUESSED_SECONDS + sum(self.need(model).values()) / GUESSED_BYTES_PER_SECOND
