"""`Model`: a name clients ask for and what stands behind it. Frozen; built by `registry.catalog`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.adapters import Adapter
from registry.capability import Capability
from registry.checkpoint import Checkpoint
from registry.engine import Footprint, LaunchSpec, ModelId, Wire
from registry.errors import ModelUnusableError
from registry.fact import Fact


class SourceKind(StrEnum):
    """Where a model was found."""

    CONFIG = "config"
    HUB_CACHE = "hub-cache"
    DIRECTORY = "directory"
    ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model, each value with its source."""

    provider: Fact[str] = Fact(None)
    family: Fact[str] = Fact(None)
    version: Fact[str] = Fact(None)
    """The generation: `2.5`, `3n`."""
    base_family: Fact[str] = Fact(None)
    """Of a wrapper (a distill, a fine-tune with a name of its own): what it was made from."""
    stage: Fact[str] = Fact(None)
    """`instruct`, `base` or `reasoning`."""
    capabilities: Fact[frozenset[Capability]] = Fact(None)
    parameters: Fact[int] = Fact(None)
    active_parameters: Fact[int] = Fact(None)
    """Per token, for mixtures of experts."""
    quantization: Fact[str] = Fact(None)
    context_length: Fact[int] = Fact(None)
    """Tokens."""
    size_bytes: Fact[int] = Fact(None)
    """Of the weights on disk."""
    kv_bytes_per_token: Fact[int] = Fact(None)
    """Of the attention cache, once its windows are full."""
    architecture: Fact[str] = Fact(None)
    chat_template: Fact[frozenset[str]] = Fact(None)
    """What the template has: `tools:hermes`, `thinking`, `images` …"""
    license: Fact[str] = Fact(None)
    base_model: Fact[str] = Fact(None)
    """Of an adapter."""


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """A server that runs already."""

    name: str
    url: str
    key_env: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model. `spec` is None for endpoints and for models that cannot run here (`problem` says why)."""

    id: ModelId
    engine: EngineName
    source: str
    """Hub id, directory, command or URL, as the operator would write it."""
    source_kind: SourceKind
    path: Path | None = None
    """Folder of the checkpoint, resolved."""
    aliases: tuple[str, ...] = ()
    facts: Facts = Facts()
    checkpoint: Checkpoint | None = None
    """What its files say; None for endpoints and for commands without a source."""
    options: ModelConfig | None = None
    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters that its instance serves beside itself, as `id:name`."""
    adapter: Adapter | None = None
    """The one that this model is with: an engine that serves one at a time starts an instance of its own."""
    ttl: float = 600.0
    """Idle seconds; 0 is never."""
    ttl_max: float = 0.0
    """Longest that a request's `keep_alive` may ask for; 0: any."""
    pin: bool = False
    preload: bool = False
    concurrency: int | None = None
    priority: int = 0
    """Of models that are waited for, the higher is started first."""
    group: str = ""
    """At most one model of a group is loaded at a time; empty: of none."""
    exclusive: bool = False
    """No other model is loaded beside it."""
    spec: LaunchSpec | None = None
    elsewhere: tuple[LaunchSpec, ...] = ()
    """How to start it on other devices than `spec` does."""
    wire: Wire = field(default_factory=lambda: Wire(""))
    endpoint: EndpointTarget | None = None
    problem: ModelUnusableError | None = None
    created: int = 0
    """Unix seconds, for the OpenAI shape: the checkpoint's modification time."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; a model nobody knows anything about is assumed to generate."""
        return self.facts.capabilities.value or frozenset({Capability.GENERATE})

    @property
    def places(self) -> tuple[LaunchSpec, ...]:
        """How to start it, once for each set of devices that it may go on."""
        return () if self.spec is None else (self.spec, *self.elsewhere)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of its places: a tree started as one of them is a tree of this definition."""
        return tuple(spec.fingerprint for spec in self.places)

    @property
    def footprint(self) -> Footprint:
        """Bytes per device, estimated; the supervisor may have learned better."""
        return self.spec.footprint if self.spec else Footprint({})
