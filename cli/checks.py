"""What `modelyard doctor` makes of the facts: findings, each with what to do about it. Pure.

`fail`: something that was asked for will not work. `warn`: it will work worse than it could, or something
that was only found will not work. `ok`: looked at and fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cli.facts import Facts, PortFacts
from cli.terminal import size
from config.budgets import gpu_budget, host_budget
from config.schema import parse_listen
from config.vocabulary import EngineName
from registry.engine import HOST, DeviceId
from registry.errors import EngineMissingError
from registry.model import Model, SourceKind

GIB: Final = 2**30
LITTLE_DISK: Final = 256 * 2**20
"""Logs and the journal of a yard with ten models stay below."""
SHARED_MEMORY: Final = GIB
"""vLLM's processes pass tensors through /dev/shm; a container has 64 MiB of it unless told otherwise."""
SCARCE: Final = 0.75
"""Of its budget: with less of it free, models that should fit do not."""
MOST_MODELS: Final = 12
"""Findings about models that nobody configured; the rest is only counted."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    what: str
    remedy: str = ""


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Everything that there is to say, in the order in which one would mend it."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def _ok(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


# -- the checks ------------------------------------------------------------------------------------


def check_machine(facts: Facts) -> Iterator[Finding]:
    """What this is."""
    machine = facts.machine
    words = f"{machine.system} {machine.arch}, {size(machine.ram_bytes)} RAM, Python {facts.python}"
    yield _ok("machine", f"{words}, modelyard {facts.version}")


def check_config(facts: Facts) -> Iterator[Finding]:
    """The file."""
    for problem in facts.config_problems:
        remedy = "mend that line; `modelyard config check` looks again. Until then the defaults are examined"
        yield Finding("config", Level.FAIL, problem, remedy)
    if not facts.config_problems:
        where = "no file, the defaults" if facts.config_path is None else str(facts.config_path)
        yield _ok("config", f"{where}; {len(facts.settings.models)} models named")
    wanted = facts.settings.default_model
    if wanted is not None and facts.default_model is None:
        remedy = "name one of `modelyard models`, or remove the key"
        yield Finding("config", Level.FAIL, f"default_model: no model is called {wanted!r}", remedy)
    for endpoint, variable in facts.unset_keys.items():
        what = f"endpoint {endpoint} takes its key from ${variable}, which is not set here"
        yield Finding("config", Level.WARN, what, f"set {variable} where the daemon starts")


def check_gpu(facts: Facts) -> Iterator[Finding]:
    """What the GPUs are, and what runs without."""
    machine, nvidia = facts.machine, facts.nvidia
    if machine.apple_silicon:
        yield _ok("gpu", "Apple silicon: Metal, memory shared with the CPU")
        return
    if machine.gpus:
        shown = ", ".join(f"{device} {size(total)}" for device, total in machine.gpus)
        yield _ok("gpu", f"NVIDIA: {shown}")
        if not nvidia.has_uvm:
            what = "/dev/nvidia-uvm is missing, and CUDA does not start without it"
            yield Finding("gpu", Level.FAIL, what, "as root: nvidia-modprobe -u -c 0")
        return
    runs = [f"{one.name} ({one.here.partition(': ')[2]})" for one in facts.engines if one.here[:3] == "yes"]
    anyway = f"; what runs anyway: {', '.join(runs) or 'models with a cmd'}"
    if nvidia.on_bus:
        what = f"there is an NVIDIA GPU, but its driver does not answer: {nvidia.driver_problem}{anyway}"
        remedy = (
            "install the driver and look with nvidia-smi; in a container, start it with the NVIDIA "
            "container toolkit (--gpus all)"
        )
        yield Finding("gpu", Level.FAIL, what, remedy)
        return
    remedy = "nothing to mend; choose small or quantised models" if runs else ""
    yield Finding("gpu", Level.WARN, f"no GPU that an engine here can use{anyway}", remedy)


def check_engines(facts: Facts) -> Iterator[Finding]:
    """What is installed, and what is missing for whom."""
    for one in facts.engines:
        if one.version is not None:
            yield _ok("engine", f"{one.name} {one.version} in {one.folder}")
        elif one.is_named:
            what = f"engines.{one.name}.path: there is no {one.name} in {one.folder}"
            yield Finding("engine", Level.FAIL, what, "correct the path, or remove it and install the engine")
        elif one.is_half:
            what = f"{one.name} in {one.folder} was never finished"
            yield Finding("engine", Level.WARN, what, f"modelyard engine install {one.name}")
    needed: dict[EngineName, list[Model]] = {}
    for model in facts.models:
        if isinstance(model.problem, EngineMissingError):
            needed.setdefault(model.engine, []).append(model)
    nothing_runs = not any(model.problem is None for model in facts.models)
    for name, models in needed.items():
        is_bad = nothing_runs or any(_is_configured(model) for model in models)
        what = f"{name} is not installed, and {_some([model.id for model in models])} would run on it"
        yield Finding(
            "engine", Level.FAIL if is_bad else Level.WARN, what, f"modelyard engine install {name}"
        )
    if not needed and not any(one.version for one in facts.engines):
        best = next((one.name for one in facts.engines if one.here[:3] == "yes"), EngineName.MLX_LM)
        remedy = f"modelyard engine install {best}, unless all your models have a cmd"
        yield Finding("engine", Level.WARN, "no engine is installed", remedy)


def check_vllm(facts: Facts) -> Iterator[Finding]:
    """What vLLM's CPU build asks of the machine."""
    machine = facts.machine
    if not facts.wants(EngineName.VLLM) or machine.system != "linux":
        return
    bad = Level.FAIL if facts.installed(EngineName.VLLM) else Level.WARN
    if not machine.gpus:
        if not facts.has_libnuma:
            remedy = "install it: apt-get install libnuma1, or dnf install numactl-libs"
            yield Finding("vllm", bad, "libnuma.so.1 is missing: vLLM's CPU build cannot be loaded", remedy)
        if machine.arch == "x86_64" and facts.cpu_flags:
            yield from _instructions(facts.cpu_flags, bad)
    shared = facts.shared_memory_bytes
    if shared is not None and shared < SHARED_MEMORY:
        what = f"shared memory (/dev/shm) is {size(shared)}: vLLM's processes may die with a bus error"
        yield Finding("vllm", Level.WARN, what, "in a container: --shm-size=2g; else mount it larger")


def _instructions(flags: frozenset[str], bad: Level) -> Iterator[Finding]:
    if "avx512f" in flags:
        yield _ok("vllm", "the CPU has AVX-512, as vLLM's CPU build wants it")
    elif "avx2" in flags:
        what = "the CPU has no AVX-512: vLLM's CPU build takes its slow path (AVX2)"
        yield Finding("vllm", Level.WARN, what, "choose engine: mlx-lm for models that it can serve")
    else:
        what = "the CPU has neither AVX-512 nor AVX2: vLLM's CPU build does not run on it"
        yield Finding("vllm", bad, what, "choose engine: mlx-lm, or a cmd such as llama-server")


def budgets(facts: Facts) -> dict[DeviceId, int]:
    """Bytes that instances may take, by device."""
    memory, machine = facts.settings.memory, facts.machine
    found = {HOST: host_budget(memory, machine.ram_bytes)} if machine.ram_bytes else {}
    return found | {device: gpu_budget(memory, device, total) for device, total in machine.gpus}


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Budgets, what is free of them now, and what the models need."""
    allowed, ram = budgets(facts), facts.machine.ram_bytes
    shown = ", ".join(f"{device} {size(count)}" for device, count in allowed.items())
    yield _ok("memory", f"models may take: {shown or 'unknown'}")
    wanted = facts.settings.memory.host
    if isinstance(wanted, int) and ram and wanted > ram:
        what = f"memory.host is {size(wanted)}, but there are {size(ram)}"
        yield Finding("memory", Level.WARN, what, "set what may really be taken, or auto")
    free, host = facts.free_ram_bytes, allowed.get(HOST)
    runs = any(port.state == "ours" for port in facts.ports.values())
    if free is not None and host is not None and free < host * SCARCE and not runs:
        what = f"of the {size(host)} for models only {size(free)} are free now"
        yield Finding("memory", Level.WARN, what, "end what holds it, or set memory.host lower")
    for model in facts.models:
        if any(_fits(spec.footprint.bytes_by_device, allowed) for spec in model.places):
            continue
        for device, need in model.footprint.bytes_by_device.items():
            limit = allowed.get(device)
            if model.problem is None and limit is not None and need > limit:
                what = f"{model.id} needs about {size(need)} on {device}, where {size(limit)} are allowed"
                remedy = (
                    f"raise memory.{'host' if device == HOST else 'gpu'}, take a smaller or quantised model "
                    "or a smaller context, or set the model's `memory` if you know better"
                )
                yield Finding("memory", Level.FAIL if _is_configured(model) else Level.WARN, what, remedy)
    yield from _together(facts, allowed)


def _together(facts: Facts, allowed: Mapping[DeviceId, int]) -> Iterator[Finding]:
    staying = [m for m in facts.models if m.problem is None and (m.preload or m.pin)]
    left = _left_by(staying, allowed)
    for device, limit in allowed.items():
        need = limit - left[device]
        if len(staying) > 1 and need > limit:
            names = _some([model.id for model in staying])
            what = (
                f"pinned and preloaded models need {size(need)} of {device} together ({size(limit)}): {names}"
            )
            yield Finding("memory", Level.FAIL, what, "take pin or preload from some of them")


def _fits(need: Mapping[DeviceId, int], room: Mapping[DeviceId, int]) -> bool:
    return all(bytes_ <= room.get(device, bytes_) for device, bytes_ in need.items())


def _left_by(models: Iterable[Model], allowed: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    """What is left of each device with all *models* loaded, the largest first, each where it fits best."""
    left = dict(allowed)
    for model in sorted(models, key=lambda one: -one.footprint.total):
        needs = [spec.footprint.bytes_by_device for spec in model.places]
        fitting = [need for need in needs if _fits(need, left)] or needs[:1]
        for device, bytes_ in min(
            fitting, key=lambda need: sum(left.get(device, 0) for device in need), default={}
        ).items():
            if device in left:
                left[device] -= bytes_
    return left


FREE: Final = PortFacts()


def check_port(facts: Facts) -> Iterator[Finding]:
    """Whether the daemon could listen, and who could reach it."""
    for listen in facts.settings.addresses:
        port = facts.ports.get(listen, FREE)
        if port.state == "free":
            yield _ok("port", f"{listen} is free")
        elif port.state == "ours":
            yield _ok("port", f"{listen}: {port.holder}")
        elif port.state == "taken":
            remedy = "stop it, or set listen: to another port"
            yield Finding("port", Level.FAIL, f"{listen} is taken by {port.holder}", remedy)
        else:
            remedy = "choose a port above 1023 and an address of this machine"
            if listen.startswith("unix:"):
                remedy = "make its folder, move what lies there, or choose another path"
            yield Finding("port", Level.FAIL, f"{listen} cannot be listened on: {port.holder}", remedy)
    for far in facts.settings.addresses:
        host = "::1" if far.startswith("unix:") else parse_listen(far)[0]
        if not (host in ("localhost", "::1") or host.startswith("127.")):
            what = f"{far}: whoever reaches this machine can reach the daemon"
            remedy = "put a proxy with authentication in front, or listen on 127.0.0.1"
            yield Finding("port", Level.WARN, what, remedy)


def check_state(facts: Facts) -> Iterator[Finding]:
    """The state directory."""
    state = facts.state
    if not state.is_ours:
        what = f"{state.path} belongs to another account, and the daemon takes only its own"
        yield Finding("state", Level.FAIL, what, "run as that account, or set state_dir")
    elif not state.writable:
        what = f"{state.path} cannot be {'written' if state.exists else 'made'}"
        yield Finding("state", Level.FAIL, what, f"chown it to this account, or set state_dir ({state.path})")
    elif state.free_bytes is not None and state.free_bytes < LITTLE_DISK:
        what = f"{state.path}: {size(state.free_bytes)} are left on its disk"
        yield Finding("state", Level.FAIL, what, "make room, or set state_dir to another disk")
    else:
        left = "" if state.free_bytes is None else f", {size(state.free_bytes)} free"
        yield _ok("state", f"{state.path}{'' if state.exists else ' (will be made)'}{left}")


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Descriptors."""
    # Two per client, a dozen per engine, and the program's own.
    needed = 2 * facts.settings.limits.connections + 512
    if facts.open_files is None:
        return
    if facts.open_files >= needed:
        yield _ok("limits", f"{facts.open_files} open files")
        return
    clients = max(0, (facts.open_files - 512) // 2)
    what = f"{facts.open_files} open files are allowed: enough for about {clients} clients at once"
    remedy = f"ulimit -n {needed}, or LimitNOFILE= (`modelyard service install` sets it)"
    yield Finding("limits", Level.WARN, what, remedy)


def check_hub(facts: Facts) -> Iterator[Finding]:
    """Where downloaded models lie."""
    if facts.settings.discover.hub_cache:
        hub = facts.hub
        found = sum(model.source_kind is SourceKind.HUB_CACHE for model in facts.models)
        if not hub.exists:
            remedy = "`hf download ORG/NAME` fills it; or name folders under discover.directories"
            yield Finding("hub", Level.WARN, f"there is no Hugging Face cache at {hub.path}", remedy)
        elif not hub.readable:
            what = f"the Hugging Face cache at {hub.path} cannot be read by this account"
            yield Finding("hub", Level.FAIL, what, "give it read permission, or set HF_HUB_CACHE to another")
        else:
            yield _ok("hub", f"{hub.path}: {found} models")
    missing = [m.id for m in facts.models if m.problem is not None and "hf download" in str(m.problem)]
    if facts.offline_by and missing:
        what = f"{facts.offline_by} is set, so that {_some(missing)} cannot be downloaded from this shell"
        yield Finding("hub", Level.WARN, what, f"env -u {facts.offline_by} hf download ORG/NAME")
    elif facts.offline_by:
        yield _ok("hub", f"{facts.offline_by} is set; engines run offline in any case")


def check_models(facts: Facts) -> Iterator[Finding]:
    """Models that cannot be served, beyond a missing engine."""
    usable = [model for model in facts.models if model.problem is None]
    broken = [m for m in facts.models if m.problem and not isinstance(m.problem, EngineMissingError)]
    for name, program in facts.missing_programs.items():
        what = f"{name}: its cmd starts {program!r}, which is not there"
        yield Finding("models", Level.FAIL, what, "install it, or write its whole path")
    for model in sorted(broken, key=lambda one: not _is_configured(one))[:MOST_MODELS]:
        message, _, remedy = str(model.problem).partition("; run ")
        level = Level.FAIL if _is_configured(model) else Level.WARN
        remedy = remedy or "remove it, mend it, or give it a cmd"
        yield Finding("models", level, message, remedy.strip("`"))
    if len(broken) > MOST_MODELS:
        what = f"{len(broken) - MOST_MODELS} more models cannot be served"
        yield Finding("models", Level.WARN, what, "`modelyard models` shows them all")
    if usable:
        yield _ok("models", f"{len(usable)} can be served: {_some([model.id for model in usable])}")
    elif facts.models:
        yield Finding("models", Level.FAIL, "no model can be served", "see above")
    else:
        remedy = "name one under models:, or `hf download ORG/NAME`"
        yield Finding("models", Level.FAIL, "no model was found", remedy)


CHECKS: Final[Sequence[Callable[[Facts], Iterator[Finding]]]] = (
    check_machine,
    check_config,
    check_gpu,
    check_engines,
    check_vllm,
    check_models,
    check_memory,
    check_port,
    check_state,
    check_limits,
    check_hub,
)


def _is_configured(model: Model) -> bool:
    return model.options is not None and model.source_kind is SourceKind.CONFIG


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
