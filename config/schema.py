"""The configuration's shape: every key, its unit, its default and the reason for it.

Pure: pydantic v2 models, frozen, unknown keys refused. Reading files, finding them and turning a validation
error into `file:line: key: what` is `config.load`. `config/schema.json` is generated from here.
Durations are seconds (`30`, `"30s"`, `"5m"`, `"1h30m"`), sizes are bytes (`1073741824`, `"8GiB"`, `"500MB"`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from config.vocabulary import Capability

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
        raise ValueError("expected a duration such as 30, '30s', '5m' or '1h30m'")  # noqa: TRY004  pydantic's rule
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
        raise ValueError("expected a size such as 1073741824, '8GiB' or '500MB'")  # noqa: TRY004  pydantic's rule
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a size: write 1073741824, '8GiB' or '500MB'")
        if "." in match[1] and (match[2] or "B").lower() == "b":
            raise ValueError(f"{value!r} is not a whole number of bytes: write '8GiB' or '500MB'")
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


def parse_listen(value: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8080`, `[::1]:8080` or `:8080` (all interfaces); else ValueError."""
    host, colon, port = value.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or (":" in host and bare == host) or any(c.isspace() or c in "[]/" for c in bare):
        raise ValueError(f"{value!r} is not an address: write '127.0.0.1:8080' or '[::1]:8080'")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{value!r} has no port between 0 and 65535: write '127.0.0.1:8080'")
    return bare or "0.0.0.0", int(port)


def _listen(value: str) -> str:
    parse_listen(value)
    return value


def check_model_id(value: str) -> str:
    """*value* if it can name a model; ValueError says why not.

    It appears in paths, in file names and as an engine's argument: no white space or control characters,
    no empty, `.` or `..` part between slashes, no leading dash, and `auto` is reserved.
    """
    if not value or len(value) > 200:
        raise ValueError("a model's id has 1 to 200 characters")
    if any(c.isspace() or not c.isprintable() or c in "\\{}" for c in value):
        raise ValueError(f"{value!r} cannot be a model's id: no white space, backslashes or braces")
    if value.startswith("-") or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError(f"{value!r} cannot be a model's id: no leading '-', no empty, '.' or '..' part")
    if value == "auto" or value.startswith("auto:"):
        raise ValueError("'auto' is reserved")
    return value


def _word(value: object) -> object:
    # A number needs no quotes in YAML; a flag or a date would not come back as it was written.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool):
        raise ValueError(f"put quotes around it: '{str(value).lower()}'")  # noqa: TRY004  pydantic's rule
    return value


Word = Annotated[str, BeforeValidator(_word), WithJsonSchema({"type": ["string", "integer"]})]
ModelName = Annotated[str, AfterValidator(check_model_id)]

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

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        # `models:` with every line below it commented out is null in YAML, and means the default.
        if isinstance(value, dict):
            return {key: v for key, v in value.items() if v is not None or key not in cls.model_fields}
        return value


class ModelConfig(Section):
    """One entry under `models:`; the key is the id clients ask for."""

    source: str | None = None
    """Hub id (`org/name`) or a directory with a checkpoint; with `cmd` it may be left out."""
    engine: Literal["auto", "vllm", "vllm-mlx", "mlx-lm", "command"] = "auto"
    """Which server runs it; auto picks by this machine and the checkpoint."""
    args: tuple[Word, ...] = ()
    """Further arguments for the engine, after ours."""
    env: dict[str, Word] = Field(default_factory=dict)
    """Environment variables of the engine, over ours."""
    aliases: tuple[ModelName, ...] = ()
    """Further names clients may use."""
    ttl: Duration | None = None
    """Idle seconds before the instance is stopped; 0 means never; unset means the global `ttl`."""
    pin: bool = False
    """Never stopped for another model and never for idleness."""
    preload: bool = False
    """Started with the daemon and again after a crash."""
    context: int | None = Field(default=None, ge=1)
    """Context length in tokens: overrides what the checkpoint says, and is passed to the engine."""
    capabilities: tuple[Capability, ...] | None = None
    """Overrides what the registry found: generate, tool_use, vision, embed, rerank, transcribe …"""
    memory: Size | None = None
    """Bytes an instance needs; overrides the estimate."""
    concurrency: int | None = Field(default=None, ge=1)
    """Requests at once per instance; more wait. Unset: as many as come (the engine batches)."""
    start_timeout: Duration | None = None
    """Longest a start may take; unset means `start.start_timeout`."""
    cmd: str | tuple[Word, ...] | None = None
    """Command template for `engine: command`; `{port}`, `{model}` and `{path}` are filled in."""
    cmd_stop: str | tuple[Word, ...] | None = None
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
    """Short name; its models can be asked for as `model@name`."""
    url: str = Field(pattern=r"^https?://[^/\s]")
    """Where it listens: `http://localhost:8000`, without `/v1`."""
    auto_discover: bool = True
    """Ask `/v1/models` for what it serves."""
    models: tuple[str, ...] = ()
    """Names it serves, where it cannot be asked."""
    key_env: str | None = None
    """Environment variable that holds its API key; never the key itself."""
    health_every: Duration = 30.0
    """Seconds between two health checks."""
    health_timeout: Duration = 3.0
    """Longest a health check may take."""
    discover_timeout: Duration = 5.0
    """Longest `/v1/models` may take."""


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
    args: tuple[Word, ...] = ()
    """Arguments for every model of this engine, before the model's own."""
    env: dict[str, Word] = Field(default_factory=dict)
    """Environment variables for every model of this engine."""


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
    """Requests that may wait for one model; more are refused."""
    queue_total: int = Field(default=1024, ge=1)
    """Requests that may wait in all."""
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
    """Pause after the first crash; it doubles with each further one."""
    backoff_max: Duration = 120.0
    """Longest pause between two tries."""
    crash_limit: int = Field(default=5, ge=1)
    """Crashes within crash_window that make the model FAILED."""
    crash_window: Duration = 600.0
    """Crashes older than this are forgotten."""
    retry_failed_after: Duration = 300.0
    """A FAILED model gets one more try after this long (half open)."""
    port_retries: int = Field(default=3, ge=0)
    """Further ports to try when somebody else took the first."""


class LimitsConfig(Section):
    """Bounds of the front."""

    header_bytes: Size = 64 * 1024
    """nginx takes 4 x 8 KiB, Node 16 KiB; cookies of a web UI behind one host need more."""
    header_count: int = Field(default=100, ge=1)
    """As Apache's LimitRequestFields."""
    body_bytes: Size = 64 * 2**20
    """A dozen photographs in base64, or 30 minutes of audio."""
    buffered_bytes_per_model: Size = 256 * 2**20
    """Bodies held for one model while it loads: four of the largest."""
    buffered_bytes_total: Size = 1024 * 2**20
    """Bodies held in all."""
    connections: int = Field(default=4096, ge=1)
    """Client connections at once."""
    head_timeout: Duration = 30.0
    """From the first byte of a request to the end of its headers."""
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
    """Least level that is written."""
    access: bool = True
    """One line per request."""


class Settings(Section):
    """The whole file. Every key is optional: an empty file serves the models that are found."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    """Address and port of the front; `[::1]:8080` for IPv6, `0.0.0.0:8080` for everybody."""
    state_dir: Path | None = None
    """Unset: $STATE_DIRECTORY, else $XDG_STATE_HOME/modelyard, else ~/.local/state/modelyard."""
    default_model: str | None = None
    """Served when a request names none."""
    ttl: Duration = 600.0
    """Idle seconds before an instance is stopped; 0 means never. Ollama's default is 5 minutes, but a
    person reading an answer needs longer."""
    adopt_within: Duration | None = None
    """How long instances outlive a dead daemon; unset: 60 s as a service, 5 s in the foreground."""
    shutdown_grace: Duration = 10.0
    """How long open answers may go on when the daemon is told to stop; then they end with an error event."""
    loading: Literal["comments", "off"] = "comments"
    """What a streaming client sees while its model loads."""
    fuzzy_names: bool = True
    """Resolve a unique case-insensitive or partial name."""
    models: dict[ModelName, ModelConfig] = Field(default_factory=dict)
    """Models by the id clients ask for; models that are found need no entry."""
    endpoints: tuple[EndpointConfig, ...] | None = None
    """Unset: `http://localhost:8000` (or $VLLM_MLX_ENDPOINT) is looked at."""
    discover: DiscoverConfig = DiscoverConfig()
    """Where models are found besides `models:`."""
    engines: dict[Literal["vllm", "vllm-mlx", "mlx-lm"], EngineConfig] = Field(default_factory=dict)
    """Installations and defaults of engines."""
    memory: MemoryConfig = MemoryConfig()
    """Budgets per device."""
    admission: AdmissionConfig = AdmissionConfig()
    """Who is served, started, made to wait or refused."""
    start: StartConfig = StartConfig()
    """Starting, crash loops and stopping."""
    limits: LimitsConfig = LimitsConfig()
    """Bounds of the front."""
    log: LogConfig = LogConfig()
    """Logs."""

    @model_validator(mode="before")
    @classmethod
    def _empty_file(cls, value: Any) -> Any:
        return {} if value is None else value
