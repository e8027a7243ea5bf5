"""The contract between an engine's adapter and the rest: how to launch it, know it is ready, speak to it.

Pure data. Adapters (`registry/engines/`) build a `LaunchSpec` and a `Wire`; the supervisor and the front only
ever see these two, so an engine's peculiarity never leaks out of its adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from config.vocabulary import EngineName

if TYPE_CHECKING:
    from registry.model import Model

ModelId = NewType("ModelId", str)
DeviceId = NewType("DeviceId", str)
"""`host`, `gpu0`, `gpu1` …: a memory pool."""

HOST = DeviceId("host")


# -- readiness -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortOwned:
    """The listening socket on the port belongs to the instance's own process tree."""


@dataclass(frozen=True, slots=True)
class HttpOk:
    """GET `path` answers 200; with `json_key`, the body's top-level key has the value `json_value`."""

    path: str
    json_key: str | None = None
    json_value: str | bool | None = None
    fatal_statuses: tuple[int, ...] = ()
    """Statuses that mean the start has failed for good (mlx_lm.server: 503 once its load failed)."""


@dataclass(frozen=True, slots=True)
class Lists:
    """GET `/v1/models` lists `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Answers:
    """POST `body` to `path` answers 200: asked once and waited for, never polled."""

    path: str
    body: bytes
    fatal_statuses: tuple[int, ...] = (404,)


ReadinessStep = PortOwned | HttpOk | Lists | Answers


# -- launching -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """How to end a tree without leaking: TERM to the group, grace, KILL."""

    grace_seconds: float = 20.0
    repeat_term_seconds: float | None = None
    """Send TERM again after this long (vLLM loses the first one while its EngineCore boots)."""
    command: tuple[str, ...] | None = None
    """Run first (docker stop …); `{port}`, `{model}` and `{pid}` are filled in."""


@dataclass(frozen=True, slots=True)
class BusyPage:
    """Where an engine says how many requests it works at: asked once when it seems to be idle."""

    path: str
    counts: tuple[str, ...]
    """Gauges of Prometheus' text format, or top-level keys of a JSON object; their sum counts."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes an instance needs per device, and where the figure comes from."""

    bytes_by_device: Mapping[DeviceId, int]
    source: Literal["estimate", "models.memory"] = "estimate"

    @property
    def is_given(self) -> bool:
        """The operator said so: nothing that is measured replaces it."""
        return self.source == "models.memory"

    @property
    def total(self) -> int:
        """Bytes on all devices together."""
        return sum(self.bytes_by_device.values())


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything needed to start one instance, with `{port}` and `{key}` still open in argv and env."""

    model: ModelId
    engine: EngineName
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    """(relative name, absolute target): symbolic links made in the child's private working directory."""
    readiness: tuple[ReadinessStep, ...] = ()
    stop: StopPolicy = StopPolicy()
    busy: BusyPage | None = None
    """Unset: it does not say, and what we leased has to do."""
    footprint: Footprint = Footprint({})
    measures_free_memory: bool = False
    """Sizes itself by the free memory it finds, so it must start alone on its device."""
    needs_key: bool = False
    """The engine can demand an API key: give it a random one through `{key}` in env."""
    identity: Literal["tree", "models", "none"] = "tree"
    stall_timeout: float = 180.0
    start_timeout: float = 1800.0

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a running instance started from another spec must not be taken over.

        Footprint and timeouts do not count: they do not change what runs.
        """
        what = [self.model, self.engine, self.argv, sorted(self.env.items()), self.links]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def command(self, *, port: int, key: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """(argv, env) with the open places filled; plain replacement, so JSON braces survive."""

        def fill(text: str) -> str:
            return text.replace("{port}", str(port)).replace("{key}", key)

        return tuple(fill(a) for a in self.argv), {k: fill(v) for k, v in self.env.items()}


# -- speaking to it --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wire:
    """How the front must speak to this model's server."""

    served_name: str
    """Name the engine answers to and echoes."""
    accepted_names: frozenset[str] = frozenset()
    """Names the engine takes unchanged (its own name among them)."""
    strip_fields: tuple[str, ...] = ()
    """Top-level request fields that must not reach it (mlx_lm.server: adapters, draft_model)."""
    calls: Literal["tags", "tool_code", "json", "harmony"] | None = None
    """The format of tool calls in its text that its server does not find; None: nothing to look for."""
    hides_tools: bool = False
    """With `calls`: its server refuses requests with tools, so they are taken out."""
    sends_done: bool = True
    """Its event streams end with `data: [DONE]`; one that does not was cut."""
    unversioned: frozenset[str] = frozenset()
    """Versioned paths it only has without `/v1` (vLLM: /v1/tokenize)."""
    abort_on_disconnect: bool = True
    """Closing the connection stops the generation; if False the answer is drained instead."""
    own_keep_alive: bool = False
    """A `keep_alive` in a request is meant for it: it decides itself what it keeps loaded."""
    passes: frozenset[str] | None = None
    """Paths that may be asked for under `/upstream/<id>`, with what is below those that end with a slash;
    None: all."""
    first_byte_timeout: float | None = None
    """Seconds from the request's last byte to the answer's first; None: as the front's limits say."""


# -- adapters --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParserOffer:
    """Names of the parsers that an installed engine has."""

    tools: frozenset[str] = frozenset()
    reasoning: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Installation:
    """Where an engine is installed: `executable` is its server's entry point."""

    engine: EngineName
    folder: str
    version: str | None = None
    parsers: ParserOffer = ParserOffer()

    def script(self, name: str) -> str:
        """Absolute path of a console script of that environment."""
        return f"{self.folder}/bin/{name}"


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One call of the installer: what it must put into the environment."""

    requirements: tuple[str, ...]
    index: str | None = None
    """A package index to look in besides the usual ones, for this step alone."""
    optional: bool = False
    """What cannot be had is done without: a later step brings something larger instead."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an engine's environment is made, and what its own metadata gets wrong put right."""

    steps: tuple[InstallStep, ...]
    unwanted: tuple[str, ...] = ()
    """Distributions taken away again afterwards: dependencies that break it on this machine."""
    also_known_as: tuple[tuple[str, str, str], ...] = ()
    """(name, distribution, local version): metadata for a name under which it asks for its own version."""
    proof: str = ""
    """Python that only runs when the engine can serve: the last step of every installation."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """Of all steps: when these change, an installation is out of date."""
        return tuple(requirement for step in self.steps for requirement in step.requirements)


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine is, as far as the choice of an engine goes."""

    system: Literal["linux", "darwin"]
    arch: Literal["x86_64", "arm64"]
    ram_bytes: int
    gpus: tuple[tuple[DeviceId, int], ...] = ()
    """NVIDIA devices with their memory in bytes."""
    budgets: Mapping[DeviceId, int] = field(default_factory=dict)
    """Bytes of each that instances may take, where the operator's settings are known."""

    def only(self, devices: Collection[DeviceId]) -> Machine:
        """The same with no other GPUs than *devices*."""
        return replace(self, gpus=tuple(gpu for gpu in self.gpus if gpu[0] in devices))

    @property
    def apple_silicon(self) -> bool:
        """macOS on arm64: unified memory, MLX with Metal."""
        return self.system == "darwin" and self.arch == "arm64"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an engine's last words mean."""

    cause: str
    """One line, the engine's own words where they are clear."""
    remedy: str = ""
    """What the operator can do about it."""
    code: str = "engine_failed"
    """`out_of_memory`, `port_taken`, `bad_checkpoint`, `bad_arguments`, `engine_failed` …"""


class Engine(Protocol):
    """An adapter: pure, no I/O."""

    name: EngineName

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """Why this engine cannot serve *model* on *machine*; None if it can."""
        ...

    def recipe(self, machine: Machine) -> Recipe:
        """How this engine is installed here."""
        ...

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """How to start it: of several sets of GPUs that it may go on, on the first."""
        ...

    def spreads(self, model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
        """The sets of GPUs that it may go on; empty where there is nothing to choose."""
        ...

    def wire(self, model: Model) -> Wire:
        """How to speak to it."""
        ...

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """What its last log lines say about why it ended."""
        ...
