"""The configuration's shape: every key, its unit, its default and the reason for it.

Pure: pydantic v2 models, frozen, unknown keys refused. Reading files, finding them and turning a validation
error into `file:line: key: what` is `config.load`. `config/schema.json` is generated from here.
Durations are seconds (`30`, `"30s"`, `"5m"`, `"1h30m"`), sizes are bytes (`1073741824`, `"8GiB"`, `"500MB"`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_SIZE_UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_duration(value: object) -> float:
    """Seconds for `30`, `1.5`, `"30s"`, `"500ms"`, `"1h30m"`; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a duration such as 30, '30s', '5m' or '1h30m'")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            seconds = sum(float(n) * _DURATION_UNITS[u] for n, u in parts)
        else:
            try:
                seconds = float(text)
            except ValueError:
                raise ValueError(f"{value!r} is not a duration: write 30, '30s', '5m' or '1h30m'") from None
    if seconds < 0 or seconds != seconds or seconds == float("inf"):
        raise ValueError("a duration must be finite and not negative")
    return seconds


def parse_size(value: object) -> int:
    """Bytes for `1024`, `"8GiB"`, `"500 MB"`; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a size such as 1073741824, '8GiB' or '500MB'")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a size: write 1073741824, '8GiB' or '500MB'")
        size = int(float(match[1]) * _SIZE_UNITS[(match[2] or "B").lower()])
    if size < 0:
        raise ValueError("a size must not be negative")
    return size


def parse_budget(value: object) -> int | float | Literal["auto"]:
    """`"auto"`, a share of the device as a float in (0, 1] (from `"80%"`), or bytes as an int."""
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share: write '80%', '8GiB' or 'auto'") from None
        if not 0 < share <= 1:
            raise ValueError("a share must be above 0% and at most 100%")
        return share
    return parse_size(value)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
Budget = Annotated[
    int | float | Literal["auto"],
    BeforeValidator(parse_budget),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class ModelConfig(Section):
    """One entry under `models:`; the key is the id clients ask for."""

    source: str | None = None
    """Hub id (`org/name`) or a directory with a checkpoint; with `cmd` it may be left out."""
    engine: Literal["auto", "vllm", "vllm-mlx", "mlx-lm", "command"] = "auto"
    args: tuple[str, ...] = ()
    """Further arguments for the engine, after ours."""
    env: dict[str, str] = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    ttl: Duration | None = None
    """Idle seconds before the instance is stopped; 0 means never; unset means the global `ttl`."""
    pin: bool = False
    """Never stopped for another model and never for idleness."""
    preload: bool = False
    """Started with the daemon and again after a crash."""
    context: int | None = Field(default=None, ge=1)
    """Context length in tokens: overrides what the checkpoint says, and is passed to the engine."""
    capabilities: tuple[str, ...] | None = None
    """Overrides what the registry found: generate, tool_use, vision, embed, rerank, transcribe …"""
    memory: Size | None = None
    """Bytes an instance needs; overrides the estimate."""
    concurrency: int | None = Field(default=None, ge=1)
    """Requests at once per instance; more wait. Unset: as many as come (the engine batches)."""
    start_timeout: Duration | None = None
    cmd: str | tuple[str, ...] | None = None
    """Command template for `engine: command`; `{port}`, `{model}` and `{path}` are filled in."""
    cmd_stop: str | tuple[str, ...] | None = None
    """Run to stop it (docker stop …), before signals; `{port}`, `{model}`, `{pid}` are filled in."""
    identity: Literal["tree", "models", "none"] = "tree"
    """How readiness knows the server is ours: it owns the port, it lists the model, or no check."""
    health: str = "/health"
    """Path that answers 200 when a command's server is ready."""
    served_name: str | None = None
    """Name a command's server knows the model by; unset: the id is sent as it is."""

    @model_validator(mode="after")
    def _complete(self) -> ModelConfig:
        if self.cmd is not None and self.engine not in ("auto", "command"):
            raise ValueError(f"cmd goes with engine: command, not with engine: {self.engine}")
        if self.engine == "command" and self.cmd is None:
            raise ValueError("engine: command needs a cmd, for example "
                             "'llama-server --port {port} -m {path}'")  # fmt: skip
        if self.cmd is None and self.source is None:
            raise ValueError("needs a source (hub id or directory) or a cmd")
        if self.cmd_stop is not None and self.cmd is None:
            raise ValueError("cmd_stop goes with cmd")
        return self


class EndpointConfig(Section):
    """A server that runs already: listed, health-checked, used only when a model of it is named."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    url: str = Field(pattern=r"^https?://")
    auto_discover: bool = True
    """Ask `/v1/models` for what it serves."""
    models: tuple[str, ...] = ()
    """Names it serves, where it cannot be asked."""
    key_env: str | None = None
    """Environment variable that holds its API key; never the key itself."""
    health_every: Duration = 30.0
    health_timeout: Duration = 3.0
    discover_timeout: Duration = 5.0


class DiscoverConfig(Section):
    """Where models are found besides `models:`."""

    hub_cache: bool = True
    """The Hugging Face cache, offline, honouring HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME."""
    directories: tuple[Path, ...] = ()
    """Folders whose subfolders are checkpoints."""
    demo: bool = True
    """The demo models of a source checkout."""


class EngineConfig(Section):
    """One entry under `engines:`."""

    path: Path | None = None
    """Folder of the engine's virtual environment; unset: where `modelyard engine install` puts it."""
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)


class MemoryConfig(Section):
    """Budgets per device."""

    host: Budget = "auto"
    """RAM that instances may take: bytes, `"80%"`, or auto (75 % of RAM: the rest is the desktop's,
    the page cache's and ours)."""
    gpu: Budget = "auto"
    """The same for each GPU; auto is 92 %, as vLLM's own default."""


class AdmissionConfig(Section):
    """Who is served, started, made to wait or refused."""

    max_wait: Duration = 60.0
    """A waiter older than this closes the fast path of the models in its way: 60 s is what chat
    clients' patience was measured to be."""
    request_timeout: Duration = 600.0
    """Longest a request may wait for its model in all: a cold 70 GB load from a disk fits in."""
    min_residency: Duration = 10.0
    """A model just loaded is no victim for this long while anybody uses it."""
    drain_grace: Duration = 600.0
    """Longest a victim's open answers may run on before they are cut for a waiter past max_wait."""
    max_parallel_starts: int = Field(default=2, ge=1)
    """Starts at once per device: more share one disk and only slow each other."""
    queue_per_model: int = Field(default=256, ge=1)
    queue_total: int = Field(default=1024, ge=1)
    free_timeout: Duration = 30.0
    """Longest to wait for a stopped tree's memory to be measured as free."""


class StartConfig(Section):
    """Starting, crash loops and stopping."""

    stall_timeout: Duration = 180.0
    """No log line, CPU or I/O of the tree for this long while starting: it hangs."""
    start_timeout: Duration = 1800.0
    """Longest a start may take in all, progress or not."""
    stop_grace: Duration = 20.0
    """From SIGTERM to SIGKILL; vLLM needs its own 5 s and the worker's exit."""
    backoff_first: Duration = 5.0
    backoff_max: Duration = 120.0
    crash_limit: int = Field(default=5, ge=1)
    """Crashes within crash_window that make the model FAILED."""
    crash_window: Duration = 600.0
    retry_failed_after: Duration = 300.0
    """A FAILED model gets one more try after this long (half open)."""
    port_retries: int = Field(default=3, ge=0)


class LimitsConfig(Section):
    """Bounds of the front."""

    header_bytes: Size = 64 * 1024
    """nginx takes 4 x 8 KiB, Node 16 KiB; cookies of a web UI behind one host need more."""
    header_count: int = Field(default=100, ge=1)
    body_bytes: Size = 64 * 2**20
    """A dozen photographs in base64, or 30 minutes of audio."""
    buffered_bytes_per_model: Size = 256 * 2**20
    buffered_bytes_total: Size = 1024 * 2**20
    connections: int = Field(default=4096, ge=1)
    head_timeout: Duration = 30.0
    body_timeout: Duration = 60.0
    """Longest pause between two reads of a body."""
    keep_alive: Duration = 75.0
    """As nginx's keepalive_timeout."""
    first_byte_timeout: Duration = 600.0
    """From the request's last byte to the engine's first: a long prefill fits in."""
    idle_upstream: Duration = 4.0
    """vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)."""


class LogConfig(Section):
    """Logs."""

    format: Literal["auto", "console", "json"] = "auto"
    """auto: console where a person reads, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = True


class Settings(Section):
    """The whole file. Every key is optional: an empty file serves the models that are found."""

    listen: str = "127.0.0.1:8080"
    state_dir: Path | None = None
    """Unset: $STATE_DIRECTORY, else $XDG_STATE_HOME/modelyard, else ~/.local/state/modelyard."""
    default_model: str | None = None
    """Served when a request names none."""
    ttl: Duration = 600.0
    """Idle seconds before an instance is stopped; 0 means never. Ollama's default is 5 minutes, but a
    person reading an answer needs longer."""
    adopt_within: Duration | None = None
    """How long instances outlive a dead daemon; unset: 60 s as a service, 5 s in the foreground."""
    loading: Literal["comments", "off"] = "comments"
    """What a streaming client sees while its model loads."""
    fuzzy_names: bool = True
    """Resolve a unique case-insensitive or partial name."""
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    endpoints: tuple[EndpointConfig, ...] | None = None
    """Unset: `http://localhost:8000` (or $VLLM_MLX_ENDPOINT) is looked at."""
    discover: DiscoverConfig = DiscoverConfig()
    engines: dict[Literal["vllm", "vllm-mlx", "mlx-lm"], EngineConfig] = Field(default_factory=dict)
    memory: MemoryConfig = MemoryConfig()
    admission: AdmissionConfig = AdmissionConfig()
    start: StartConfig = StartConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_file(cls, value: Any) -> Any:
        return {} if value is None else value
