"""The configuration's shape: every key, its unit, its default and the reason for it.

Pure: pydantic v2 models, frozen, unknown keys refused. Reading files, finding them and turning a validation
error into `file:line: key: what` is `config.load`. `config/schema.json` is generated from here.
Durations are seconds (`30`, `"30s"`, `"5m"`, `"1h30m"`), sizes are bytes (`1073741824`, `"8GiB"`, `"500MB"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config.listening import Listen, TlsConfig
from config.listening import parse_listen as parse_listen
from config.quantities import Budget, Budgets, Duration, Memory, Moment, Size
from config.routing import RequestConfig as RequestConfig
from config.routing import VirtualConfig as VirtualConfig
from config.section import HostName, ModelName, VariantName, Word
from config.section import KeyName as KeyName
from config.section import Section as Section
from config.section import check_key_name as check_key_name
from config.section import check_model_id as check_model_id
from config.units import parse_budget as parse_budget
from config.units import parse_duration as parse_duration
from config.units import parse_memory as parse_memory
from config.units import parse_size as parse_size
from config.vocabulary import Capability

ENGINES_WITH: Mapping[str, tuple[str, ...]] = {
    "tensor_parallel_size": ("vllm",),
    "gpu_memory_utilization": ("vllm", "vllm-mlx"),
    "quantization": ("vllm",),
    "dtype": ("vllm",),
    "trust_remote_code": ("vllm", "vllm-mlx", "mlx-lm"),
}
"""Keys of a model that are options of some engines only; with `engine: auto` one of these is chosen."""


class ModelConfig(Section):
    """One entry under `models:`; the key is the id clients ask for."""

    source: str | None = None
    """Hub id (`org/name`) or a directory with a checkpoint. Unset: what is found under the entry's own name,
    or whatever the `cmd` serves."""
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
    ttl_max: Duration | None = None
    """Longest that a request's `keep_alive` may ask for; 0 means any; unset means the global `ttl_max`."""
    pin: bool = False
    """Never stopped for another model and never for idleness."""
    preload: bool = False
    """Started with the daemon and again after a crash."""
    context: int | None = Field(default=None, ge=1)
    """Context length in tokens: overrides what the checkpoint says, and is passed to an engine that can be
    told (vLLM)."""
    max_model_len: int | None = Field(default=None, ge=1)
    """The same as `context`, under vLLM's name for it; only one of the two may be given."""
    capabilities: tuple[Capability, ...] | None = None
    """Overrides what the registry found: generate, tool_use, vision, embed, rerank, transcribe …"""
    check_requests: bool = True
    """Refuse at once what the model certainly cannot do: images, audio or video it cannot read, tools, a
    longer answer than its context; false leaves all that to the engine."""
    tool_parser: Word | None = None
    """The engine's parser for tool calls (vLLM, vllm-mlx): its name there, or none. Unset: by the chat
    template, else by the name, if the installed engine has it."""
    reasoning_parser: Word | None = None
    """The engine's parser for what the model thinks; as `tool_parser`."""
    tool_filter: Literal["auto", "off", "tags", "tool_code", "json", "harmony"] = "auto"
    """Turns tool calls that the engine leaves in the text into `tool_calls`: `tags` for Qwen's and Hermes'
    `<tool_call>`, `tool_code` for Gemma 3's fenced blocks, `json` for Llama 3's answers that are a call,
    `harmony` for gpt-oss's channels, thoughts included. auto: where the engine is known not to do it."""
    memory: Memory | None = None
    """Bytes an instance needs; overrides the estimate. A size is RAM for a `cmd`, and for the other engines
    what they take on the devices they run on; with a `cmd` it may be given by device:
    `{gpu0: 20GiB, host: 1GiB}`, or for any one GPU: `{gpu: 20GiB}`."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Of models that are waited for, the higher is started first; a key's `priority` is added. Whoever has
    waited for `admission.max_wait` goes before all."""
    group: str | None = Field(default=None, min_length=1, max_length=64)
    """At most one model of a group is loaded at a time."""
    exclusive: bool = False
    """No other model is loaded beside it."""
    concurrency: int | None = Field(default=None, ge=1)
    """Requests at once per instance; more wait. Unset: as many as come (the engine batches)."""
    start_timeout: Duration | None = None
    """Longest a start may take; unset means `start.start_timeout`."""
    first_byte_timeout: Duration | None = None
    """From a request's last byte to the engine's first; unset means `limits.first_byte_timeout`."""
    cmd: str | tuple[Word, ...] | None = None
    """Command template for `engine: command`; `{port}`, `{model}` and `{path}` are filled in."""
    cmd_stop: str | tuple[Word, ...] | None = None
    """Run to stop it (docker stop …), before signals; `{port}`, `{model}`, `{pid}` are filled in."""
    identity: Literal["tree", "models", "none"] = "tree"
    """How readiness knows the server is ours: it owns the port, it lists the model, or no check."""
    health: str = "/health"
    """Path that answers 200 when a command's server is ready."""
    request: RequestConfig = RequestConfig()
    """Changes to every request for it."""
    variants: dict[VariantName, RequestConfig] = Field(default_factory=dict)
    """Sets of parameters by name: a request for `model:name` is changed by this as well, which wins."""
    adapters: dict[VariantName, str] = Field(default_factory=dict)
    """LoRA adapters by name, each a hub id or a folder, asked for as `model:name`. vLLM serves them from one
    instance (PEFT's layout), mlx-lm from one each (its own layout); other engines serve none."""
    served_name: str | None = None
    """Name a command's server knows the model by; unset: the id is sent as it is."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """GPUs the weights are spread over (vLLM); auto: one if it holds them, else as many as it takes. Unset:
    one."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of each device the instance takes for itself (vLLM: 0.92; vllm-mlx: 0.9, of what Metal gives)."""
    quantization: str | None = Field(default=None, pattern=r"^[a-z0-9_-]+$")
    """Method by which weights are quantised while they load, such as fp8 (vLLM); unset: as they are."""
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = None
    """Number format of weights and activations (vLLM); unset: the checkpoint's."""
    trust_remote_code: bool = False
    """Run Python that comes with the checkpoint: only for authors you trust with this machine."""

    @property
    def memory_bytes(self) -> int | None:
        """What the operator says it needs on all devices together."""
        return sum(self.memory.values()) if isinstance(self.memory, dict) else self.memory

    @property
    def context_tokens(self) -> int | None:
        """The context length that the operator gave, under either name."""
        return self.max_model_len if self.context is None else self.context

    @field_validator("max_model_len")
    @classmethod
    def _one_context(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("context") is not None:
            raise ValueError("the same as context, which is given too: keep one of the two")
        return value

    @field_validator(*ENGINES_WITH)
    @classmethod
    def _known_to_its_engine(cls, value: Any, info: ValidationInfo) -> Any:
        engine = "command" if info.data.get("cmd") is not None else info.data.get("engine", "auto")
        able = ENGINES_WITH[info.field_name or ""]
        if value and engine != "auto" and engine not in able:
            where = "write it into the cmd" if engine == "command" else "remove it, or choose another engine"
            raise ValueError(f"engine: {engine} has no such option, only {' and '.join(able)}; {where}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> ModelConfig:
        if self.cmd is not None and self.engine not in ("auto", "command"):
            raise ValueError(f"cmd goes with engine: command, not with engine: {self.engine}")
        if self.engine == "command" and self.cmd is None:
            raise ValueError("engine: command needs a cmd, for example "
                             "'llama-server --port {port} -m {path}'")  # fmt: skip
        twice = self.adapters.keys() & self.variants.keys()
        if twice:
            raise ValueError(f"{min(twice)} names a variant and an adapter: choose another name for one")
        if self.cmd_stop is not None and self.cmd is None:
            raise ValueError("cmd_stop goes with cmd")
        if isinstance(self.memory, dict) and self.cmd is None:
            raise ValueError("memory by device goes with cmd; the engines choose their devices: give a size")
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
    gpu: Budgets = "auto"
    """The same for each GPU, or by GPU: `{gpu0: 20GiB, gpu1: 50%}`; auto is 92 %, as vLLM's own default."""


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
    """Client connections at once, those that are still in their TLS handshake included."""
    connections_per_client: int = Field(default=1024, ge=1)
    """Of these, by one address: a quarter, so that one client cannot shut out the others. Behind a reverse
    proxy all clients have one address: raise it to `connections`."""
    head_timeout: Duration = 30.0
    """From the first byte of a request to the end of its headers."""
    body_timeout: Duration = 60.0
    """Longest pause between two reads of a body."""
    keep_alive: Duration = 75.0
    """As nginx's keepalive_timeout."""
    first_byte_timeout: Duration = 600.0
    """From the request's last byte to the engine's first: a long prefill fits in."""
    answer_timeout: Duration = 0.0
    """From the request's last byte to the answer's; 0: as long as it takes."""
    tunnel_idle: Duration = 600.0
    """A WebSocket on which nothing passes either way is closed after this long: it holds a model."""
    idle_upstream: Duration = 4.0
    """vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)."""


class CorsConfig(Section):
    """Web pages that may ask models from a browser."""

    origins: tuple[str, ...] = ()
    """`https://chat.example.com`, or `*`. Others may not read answers; web sites of other hosts may not even
    ask."""


class SeedConfig(Section):
    """`/api/v1/inference`, for programs written for the API before this one."""

    local_images: bool = False
    """Let callers on this machine name image files by their path."""
    image_directories: tuple[Path, ...] = ()
    """Folders whose files, and those below them, may be named so; none of them: no file may."""
    image_bytes: Size = 20 * 2**20
    """Largest file: a photograph of 50 megapixels as JPEG."""


class KeyConfig(Section):
    """One entry under `keys:`, and in `keys_file`; its name is what logs and metrics show."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """SHA-256 of the key, as `modelyard key add NAME --print` shows it; never the key itself."""
    scope: Literal["inference", "admin"] = "inference"
    """inference: ask models, list them, read the metrics. admin: everything."""
    models: tuple[ModelName, ...] | None = None
    """Ids of the models it may use; unset: all."""
    concurrency: int | None = Field(default=None, ge=1)
    """Requests at once; more are refused. Unset: as many as the front takes."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Added to the model's `priority` for its requests; of those that wait for one model the higher is served
    first."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests within any minute; more are refused, with the time to wait. Unset: as many as come."""
    expires: Moment | None = None
    """Refused from then on: `2027-01-31` (its first instant in UTC) or `2027-01-31T12:00:00Z`."""


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

    listen: Listen = "127.0.0.1:8080"
    """Address and port of the front; `[::1]:8080` for IPv6, `0.0.0.0:8080` for everybody. With `https://`
    before it, it speaks TLS; `unix:/path` is a socket file. Several make a list; commands on this machine use
    the first."""
    socket_mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "600"
    """Who may connect to a socket file, as chmod says it."""
    tls: TlsConfig | None = None
    """Certificate and key of addresses that begin with `https://`."""
    host_names: tuple[HostName, ...] = ()
    """Names under which browsers may reach a daemon that listens on loopback: those of the reverse proxy in
    front of it, such as `yard.example.com`. Read when the daemon starts."""
    state_dir: Path | None = None
    """Unset: $STATE_DIRECTORY, else $XDG_STATE_HOME/modelyard, else ~/.local/state/modelyard."""
    watch_config: bool = False
    """Apply this file by itself once it has changed and stood still for two looks, a second apart. Off: a
    saved change of a model's flags would drain and restart it, so `modelyard config apply` says when."""
    default_model: str | None = None
    """Served when a request names none."""
    ttl: Duration = 600.0
    """Idle seconds before an instance is stopped; 0 means never. Ollama's default is 5 minutes, but a
    person reading an answer needs longer."""
    ttl_max: Duration = 0.0
    """The longest that a request's `keep_alive` may ask a model to stay, idle, after it; 0 means any."""
    adopt_within: Duration | None = None
    """How long instances outlive a dead daemon; unset: 60 s as a service, 5 s in the foreground."""
    shutdown_grace: Duration = 10.0
    """How long open answers may go on when the daemon is told to stop; then they end with an error event."""
    loading: Literal["comments", "reasoning", "off"] = "comments"
    """What a streaming client gets while its model loads: comments, which keep it from giving up and which
    programs skip; or, in chat completions, the same as pieces of reasoning, which chat programs show."""
    loading_json: Literal["silence", "space"] = "silence"
    """What a client that does not stream gets meanwhile. `space`: a 200 at once and white space before the
    JSON, which keeps it from giving up; a failure then comes with that 200, as an error in the body."""
    patience: Duration = 0.0
    """How long a client that does not stream waits in silence for a model to load before it gets a 503 with
    `Retry-After`; 0: as long as the load takes. OpenAI's and Anthropic's SDKs say their own time-out, which
    goes first."""
    fuzzy_names: bool = True
    """Resolve a unique case-insensitive or partial name."""
    models: dict[ModelName, ModelConfig] = Field(default_factory=dict)
    """Models by the id clients ask for; models that are found need no entry."""
    virtual: dict[ModelName, VirtualConfig] = Field(default_factory=dict)
    """Names that are served by one of several models; `auto` and `auto:…` need no entry."""
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
    cors: CorsConfig = CorsConfig()
    """Web pages that may ask models from a browser."""
    seed: SeedConfig = SeedConfig()
    """`/api/v1/inference`, for programs written for the API before this one."""
    keys_file: Path | None = None
    """Where `modelyard key` keeps keys for the daemon; unset: `keys.json` in the state directory."""
    keys: dict[KeyName, KeyConfig] = Field(default_factory=dict)
    """Keys by name, besides those of `keys_file`; without any, everybody who reaches the port gets in."""
    log: LogConfig = LogConfig()
    """Logs."""

    @model_validator(mode="before")
    @classmethod
    def _empty_file(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of `listen`."""
        return (self.listen,) if isinstance(self.listen, str) else self.listen

    @model_validator(mode="after")
    def _one_meaning_per_name(self) -> Settings:
        taken = {alias: name for name, model in self.models.items() for alias in model.aliases}
        for name, entry in self.virtual.items():
            if name in self.models or name in taken:
                raise ValueError(f"virtual.{name}: a model has this name already; choose another")
            nested = [one for one in entry.models if one in self.virtual]
            if nested:
                raise ValueError(f"virtual.{name}: {nested[0]} is virtual itself; name its models instead")
        return self
