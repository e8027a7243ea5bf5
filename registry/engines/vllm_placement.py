"""Where vLLM goes on a machine: which GPUs or RAM, how large its cache, how long its context. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Literal

from registry.engine import HOST, DeviceId, Machine
from registry.engines.launching import argument, checkpoint_of, generates, given, options_of
from registry.footprint import GIB, MIB, VLLM_CPU, VLLM_GPU, KvShape, weights_bytes
from registry.model import Model

UTILIZATION = 0.92
"""vLLM's own default share of a device."""

MOST_SETS = 128
"""Sets of GPUs to choose from: all of up to nine GPUs."""

CPU_CACHE_BYTES, CPU_CACHE_LEAST = 4 * GIB, 64 * MIB
"""On a CPU nobody waits for more tokens than this holds; less where it is a quarter of the RAM."""

CPU_BLOCK = 128
"""Tokens of a block of the cache on a CPU."""

CPU_IN_FLIGHT = 4096
"""Tokens that a layer with a window holds beside it: two batches of 2048 may be under way."""

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
    count, visible = _parallel(model), _visible(model, machine) or machine.gpus
    if machine.gpus and isinstance(count, int) and count > len(visible):
        return f"tensor_parallel_size: {count} needs as many GPUs, and it may use {len(visible)}"
    return None


def spreads(model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
    """The sets of GPUs that hold it, at most `MOST_SETS`; where none does, the first, for the numbers.

    One GPU unless the operator allows more: several must talk to each other, and not every machine lets them.
    """
    visible = _visible(model, machine)
    if not machine.gpus:
        return ()
    if visible is None:
        # Named in a way that we do not know: which ones they are is the operator's business.
        return (tuple(device for device, _ in machine.gpus[: _count(model, machine.gpus, machine)]),)
    sets = list(islice(combinations(visible, _count(model, visible, machine)), MOST_SETS))
    holding = [one for one in sets if _holds(model, one, machine)] or sets[:1]
    return tuple(tuple(device for device, _ in one) for one in holding)


def _on_gpu(model: Model, machine: Machine) -> Placement:
    options = options_of(model)
    devices = spreads(model, machine)[0]
    chosen = {device: total for device, total in machine.gpus if device in devices}
    args = list(given("--max-model-len", options.context_tokens))
    if len(chosen) > 1 or isinstance(options.tensor_parallel_size, int):
        args += ["--tensor-parallel-size", str(len(chosen))]
    # Our numbers are NVML's, which are the bus order; CUDA's own default is the fastest first.
    env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if _visible(model, machine) is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(device.removeprefix("gpu") for device in chosen)
    share, measures = _share(model), _given_cache(model) is None
    each = _each(model, len(chosen))
    if options.memory_bytes is not None:
        sizes = dict.fromkeys(chosen, each)
        if share is None:
            args += ["--gpu-memory-utilization", share_of(each, min(chosen.values()))]
        cache = each - _weights(model) // len(chosen) - VLLM_GPU.gpu_bytes
        if measures and cache > 0:
            args += ["--kv-cache-memory-bytes", str(cache)]
            measures = False
    elif share is not None:
        sizes = {device: int(total * share) for device, total in chosen.items()}
    else:
        rooms = {device: _room(device, total, machine) for device, total in chosen.items()}
        tightest = min(chosen, key=lambda device: rooms[device] / chosen[device])
        room, total, taken = rooms[tightest], chosen[tightest], UTILIZATION
        if room < int(total * UTILIZATION):
            text = share_of(room, total)
            args += ["--gpu-memory-utilization", text]
            taken = float(text)
        # No less than its weights take: where that is not to be had it is refused, with the numbers.
        sizes = {device: max(int(whole * taken), each) for device, whole in chosen.items()}
    args += given("--gpu-memory-utilization", options.gpu_memory_utilization)
    return Placement(tuple(args), env, {**sizes, HOST: VLLM_GPU.host_bytes}, measures=measures)


def share_of(size: int, total: int) -> str:
    """The share of *total* bytes that is *size* and not a byte more: vLLM rounds what it makes of it up."""
    millionths = min(size * 1_000_000 // total, 1_000_000)
    while millionths and math.ceil(total * (millionths / 1_000_000)) > size:
        millionths -= 1
    return f"{millionths / 1_000_000:.6f}".rstrip("0").rstrip(".")


def _on_cpu(model: Model, machine: Machine) -> Placement:
    options = options_of(model)
    weights = weights_bytes(model.facts.size_bytes.value or 0)
    args = ["--enforce-eager"]  # compiling wants a C++ compiler and a minute, for little on a CPU
    if isinstance(options.tensor_parallel_size, int):
        args += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
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
    options, needed = options_of(model), checkpoint_of(model).kv
    if needed is None and not generates(model):
        return CPU_CACHE_LEAST, context  # an encoder keeps nothing between tokens
    kv = None if needed is None else reserved(needed)
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


def reserved(kv: KvShape) -> KvShape:
    """What vLLM sets aside for a sequence that needs *kv*.

    It manages layers in groups of one size: that of the smaller kind, or of the larger where that is less
    than half as large again. A layer with a window holds what is in flight as well, and begins inside of a
    block.
    (`v1/core/kv_cache_utils.py` and `SlidingWindowSpec` of vLLM 0.32.)
    """
    if not kv.sliding_layers:
        return kv
    full, sliding = kv.full_layers, kv.sliding_layers
    if full:
        smaller, larger = sorted((full, sliding))
        size = larger if larger < 1.5 * smaller else smaller
        full, sliding = -(-full // size) * size, -(-sliding // size) * size
    held = kv.window + CPU_IN_FLIGHT + 2 * CPU_BLOCK
    return replace(kv, full_layers=full, sliding_layers=sliding, window=held)


def _parallel(model: Model) -> int | Literal["auto"] | None:
    """GPUs that the operator wants it on, or allows."""
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


_Gpus = tuple[tuple[DeviceId, int], ...]


def _visible(model: Model, machine: Machine) -> _Gpus | None:
    """The GPUs that the operator lets it use, or all; None where they are named in a way we do not know."""
    given = options_of(model).env.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return machine.gpus
    wanted = {f"gpu{word.strip()}" for word in given.split(",") if word.strip()}
    return tuple(gpu for gpu in machine.gpus if gpu[0] in wanted) or None


def _weights(model: Model) -> int:
    return weights_bytes(model.facts.size_bytes.value or 0)


def _each(model: Model, count: int) -> int:
    """Bytes that it needs on each of *count* GPUs."""
    size = options_of(model).memory_bytes
    return size // count if size is not None else _weights(model) // count + VLLM_GPU.gpu_bytes


def _room(device: DeviceId, total: int, machine: Machine) -> int:
    return machine.budgets.get(device, int(total * UTILIZATION))


def _holds(model: Model, gpus: _Gpus, machine: Machine) -> bool:
    return _each(model, len(gpus)) <= min(_room(device, total, machine) for device, total in gpus)


def _count(model: Model, visible: _Gpus, machine: Machine) -> int:
    """How many GPUs it goes on."""
    wanted = _parallel(model)
    if wanted != "auto":
        return min(wanted or 1, len(visible))
    counts = [count for count in (1, 2, 4, 8) if count <= len(visible)]
    largest = sorted(visible, key=lambda gpu: -_room(gpu[0], gpu[1], machine))
    return next((n for n in counts if _holds(model, tuple(largest[:n]), machine)), counts[-1])
