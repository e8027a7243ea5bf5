"""Models kept between catalogs: after a reload or a download only those are made anew that have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry.model import Model


class ModelMemory:
    """Models by id, each with what it was made from; all of one set of circumstances."""

    def __init__(self) -> None:
        self._circumstances: object = None
        self._known: dict[str, tuple[object, tuple[Model, ...]]] = {}

    def under(self, circumstances: object) -> None:
        """Forget everything that was made under others: settings, the machine, what is installed."""
        if circumstances != self._circumstances:
            self._known.clear()
            self._circumstances = circumstances

    def models(
        self, model_id: str, made_from: object, make: Callable[[], Iterable[Model]]
    ) -> tuple[Model, ...]:
        """The models of that id if they were made from the same, else those that *make* makes."""
        known = self._known.get(model_id)
        if known is not None and known[0] == made_from:
            return known[1]
        made = tuple(make())
        self._known[model_id] = (made_from, made)
        return made

    def keep_only(self, ids: set[str]) -> None:
        """Forget all others."""
        for model_id in self._known.keys() - ids:
            del self._known[model_id]
