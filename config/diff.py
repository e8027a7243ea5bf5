"""What differs between two configurations, as far as a reload must know. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from config.schema import Settings


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of what changed; all empty when nothing did."""

    models_added: frozenset[str] = frozenset()
    models_removed: frozenset[str] = frozenset()
    models_changed: frozenset[str] = frozenset()
    sections: frozenset[str] = frozenset()
    """Other top-level keys that differ: `listen`, `limits`, `endpoints` …"""

    def __bool__(self) -> bool:
        return bool(self.models_added or self.models_removed or self.models_changed or self.sections)


def difference(old: Settings, new: Settings) -> Difference:
    """What *new* has that *old* has not, and the other way round."""
    before, after = old.models, new.models
    return Difference(
        models_added=frozenset(after.keys() - before.keys()),
        models_removed=frozenset(before.keys() - after.keys()),
        models_changed=frozenset(
            name for name in before.keys() & after.keys() if before[name] != after[name]
        ),
        sections=frozenset(
            name
            for name in Settings.model_fields
            if name != "models" and getattr(old, name) != getattr(new, name)
        ),
    )
