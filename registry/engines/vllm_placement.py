"""Where vLLM goes on a machine: which GPUs or RAM, how large its cache, how long its context. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry.engine import HOST, DeviceId, Machine
from registry.engines.launching import argument, checkpoint_of, generates, given, options_of
from registry.footprint import GIB, MIB, VLLM_CPU, VLLM_GPU, weights_bytes
from registry.model import Model

UTILIZATION = 0.92
"""vLLM's own default share of a device."""

CPU_CACHE_BYTES, CPU_CACHE_LEAST = 4 * GIB, 64 * MIB
"""On a CPU nobody waits for more tokens than this holds; less where it is a quarter of the RAM."""

CPU_BLOCK = 128
"""Tokens of a block of the cache on a CPU."""

CPU_SEQUENCES = 4
"""Sequences of full length that the cache has room for; shorter ones are more."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance goes and what that takes."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    devices: Mapping[DeviceId, int]
    """Bytes on each."""
    measures: bool
    """It sizes its cache by the memory it finds free."""


def place(model: Model, machine: Machine) -> Placement:
    """On the GPUs where there are any, else in RAM."""
    return _on_gpu(model, machine) if machine.gpus else _on_cpu(model, machine)


def too_few_gpus(model: Model, machine: Machine) -> str | None:
    """Why the machine has not as many GPUs as the operator wants it on; None if it has."""
    count, visible = _parallel(model), _visible(model, machine)
    if machine.gpus and count is not None and count > len(visible):
        return f"tensor_parallel_size: {count} needs as many GPUs, and it may use {len(visible)}"
    return None


def _on_gpu(model: Model, machine: Machine) -> Placement:
    options = options_of(model)
    weights = weights_bytes(model.facts.size_bytes.value or 0)
    visible = _visible(model, machine)
    parallel = _parallel(model)
    chosen = visible[: parallel or _gpus_needed(weights, visible)]
    args = list(given("--max-model-len", options.context_tokens))
    if len(chosen) > 1 or options.tensor_parallel_size is not None:
        args += ["--tensor-parallel-size", str(len(chosen))]
    env = {
        "CUDA_VISIBLE_DEVICES": ",".join(_index(device) for device, _ in chosen),
        # Our numbers are NVML's, which are the bus order; CUDA's own default is the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    share = _share(model)
    measures = _given_cache(model) is None
    devices = {device: int(total * (share or UTILIZATION)) for device, total in chosen}
    if options.memory_bytes is not None:
        each = options.memory_bytes // len(chosen)
        devices = {device: each for device, _ in chosen}
        if share is None:
            share = min(each / min(total for _, total in chosen), UTILIZATION)
            args += ["--gpu-memory-utilization", f"{share:.3f}"]
        cache = each - weights // len(chosen) - VLLM_GPU.gpu_bytes
        if measures and cache > 0:
            args += ["--kv-cache-memory-bytes", str(cache)]
            measures = False
    args += given("--gpu-memory-utilization", options.gpu_memory_utilization)
    return Placement(tuple(args), env, {**devices, HOST: VLLM_GPU.host_bytes}, measures=measures)


def _on_cpu(model: Model, machine: Machine) -> Placement:
    options = options_of(model)
    weights = weights_bytes(model.facts.size_bytes.value or 0)
    args = ["--enforce-eager"]  # compiling wants a C++ compiler and a minute, for little on a CPU
    args += given("--tensor-parallel-size", options.tensor_parallel_size)
    cache, share = _given_cache(model), _share(model)
    if share is not None and cache is None:
        # The operator wants it to fill a share of the RAM: it measures how much of that is left.
        args += given("--gpu-memory-utilization", options.gpu_memory_utilization)
        args += given("--max-model-len", options.context_tokens)
        need = options.memory_bytes or int(machine.ram_bytes * share)
        return Placement(tuple(args), {}, {HOST: need}, measures=True)
    context = options.context_tokens or model.facts.context_length.value
    if cache is None:
        cache, context = _cpu_cache(model, machine, context)
        args += ["--kv-cache-memory-bytes", str(cache)]
    if generates(model):
        args += given("--max-model-len", context)
    need = options.memory_bytes or weights + cache + VLLM_CPU.host_bytes
    return Placement(tuple(args), {}, {HOST: need}, measures=False)


def _cpu_cache(model: Model, machine: Machine, context: int | None) -> tuple[int, int | None]:
    """(bytes of the cache, context that fits it).

    Without a size vLLM takes nearly all RAM; with one it refuses a context whose cache is larger.
    """
    options, kv = options_of(model), checkpoint_of(model).kv
    if kv is None and not generates(model):
        return CPU_CACHE_LEAST, context  # an encoder keeps nothing between tokens
    room = min(CPU_CACHE_BYTES, machine.ram_bytes // 4)
    if options.memory_bytes is not None:
        room = options.memory_bytes - weights_bytes(model.facts.size_bytes.value or 0) - VLLM_CPU.host_bytes
    room = max(room, CPU_CACHE_LEAST)
    if kv is None or context is None:
        return room, context
    if options.context_tokens is None:
        fitting = kv.tokens_in(room, context)
        # A cache has whole blocks: what is cut is cut to them.
        context = context if fitting >= context else max(fitting // CPU_BLOCK * CPU_BLOCK, CPU_BLOCK)
    elif options.memory_bytes is None:
        room = max(room, kv.bytes_for(context + CPU_BLOCK))
    # Some of the longest at once; more is memory that nobody asked for.
    wanted = kv.bytes_for(context + CPU_BLOCK) * CPU_SEQUENCES
    return min(room, max(wanted, CPU_CACHE_LEAST)), context


def _parallel(model: Model) -> int | None:
    """GPUs that the operator wants it on."""
    options = options_of(model)
    word = argument(options.args, "--tensor-parallel-size", "-tp")
    return int(word) if word and word.isdigit() and int(word) else options.tensor_parallel_size


def _share(model: Model) -> float | None:
    """Share of the device that the operator gave it, by key or argument."""
    options = options_of(model)
    word = argument(options.args, "--gpu-memory-utilization", "--device-memory-utilization")
    try:
        share = float(word) if word else None
    except ValueError:
        share = None
    return share if share is not None and 0 < share <= 1 else options.gpu_memory_utilization


def _given_cache(model: Model) -> int | None:
    """Bytes of the KV cache that the operator gave by argument; 0 where they cannot be read."""
    word = argument(options_of(model).args, "--kv-cache-memory-bytes", "--kv-cache-memory")
    if word is None:
        return None
    return int(word) if word.isdigit() else 0


def _visible(model: Model, machine: Machine) -> tuple[tuple[DeviceId, int], ...]:
    """The GPUs that the operator lets it use, or all."""
    given = options_of(model).env.get("CUDA_VISIBLE_DEVICES")
    wanted = {f"gpu{word.strip()}" for word in (given or "").split(",") if word.strip()}
    return tuple(gpu for gpu in machine.gpus if gpu[0] in wanted) or machine.gpus


def _gpus_needed(weights: int, gpus: tuple[tuple[DeviceId, int], ...]) -> int:
    """The smallest power of two of *gpus* that holds the weights and room to work; the most if none does."""
    fitting = [
        count
        for count in (1, 2, 4, 8)
        if count <= len(gpus)
        and weights // count + VLLM_GPU.gpu_bytes <= min(total for _, total in gpus[:count]) * UTILIZATION
    ]
    return fitting[0] if fitting else max(count for count in (1, 2, 4, 8) if count <= len(gpus))


def _index(device: DeviceId) -> str:
    return device.removeprefix("gpu")
