"""Which GPUs vLLM may go on, and with which flags on each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import MemoryConfig, ModelConfig
from config.vocabulary import EngineName
from registry.capability import Capability
from registry.checkpoint import Checkpoint
from registry.engine import DeviceId, Installation, LaunchSpec, Machine, ModelId
from registry.engine_choice import ENGINES, launch_specs
from registry.engines.launching import argument
from registry.engines.vllm_placement import share_of, too_few_gpus
from registry.fact import Fact, Rank
from registry.footprint import VLLM_GPU, weights_bytes
from registry.machine import within
from registry.model import Facts, Model, SourceKind

GIB = 2**30
VLLM = ENGINES[EngineName.VLLM]


def gpus(*gib: int, **memory: object) -> Machine:
    found = tuple((DeviceId(f"gpu{n}"), size * GIB) for n, size in enumerate(gib))
    return within(Machine("linux", "x86_64", 256 * GIB, found), MemoryConfig.model_validate(memory))


def model(size: int, **options: Any) -> Model:
    """One with *size* GiB of weights."""
    return Model(
        id=ModelId("m"),
        engine=EngineName.VLLM,
        source="org/m",
        source_kind=SourceKind.CONFIG,
        path=Path("/m"),
        facts=Facts(
            capabilities=Fact(frozenset({Capability.GENERATE}), Rank.FILES),
            size_bytes=Fact(size * GIB, Rank.FILES),
        ),
        checkpoint=Checkpoint(),
        options=ModelConfig(source="org/m", **options),
    )


def made(one: Model, machine: Machine) -> tuple[LaunchSpec, ...]:
    return launch_specs(VLLM, one, Installation(EngineName.VLLM, "/e"), machine)


def where(specs: tuple[LaunchSpec, ...]) -> list[str]:
    return [spec.env["CUDA_VISIBLE_DEVICES"] for spec in specs]


@pytest.mark.parametrize(
    ("size", "options", "machine", "places"),
    [
        (8, {}, gpus(24, 24), ["0", "1"]),
        (8, {"tensor_parallel_size": "auto"}, gpus(24, 24, 24), ["0", "1", "2"]),
        (30, {"tensor_parallel_size": "auto"}, gpus(24, 24, 24), ["0,1", "0,2", "1,2"]),
        (8, {"tensor_parallel_size": 2}, gpus(24, 24, 24), ["0,1", "0,2", "1,2"]),
        (8, {"tensor_parallel_size": 1}, gpus(24, 24), ["0", "1"]),
        (8, {"args": ("--tensor-parallel-size", "2")}, gpus(24, 24), ["0,1"]),
        (40, {}, gpus(24, 80), ["1"]),
        (40, {"tensor_parallel_size": "auto"}, gpus(24, 80, 24), ["1"]),
        (100, {"tensor_parallel_size": "auto"}, gpus(24, 80, 80), ["1,2"]),
        (30, {}, gpus(24, 24), ["0"]),
        (8, {"env": {"CUDA_VISIBLE_DEVICES": "2, 1"}}, gpus(24, 24, 24), ["1", "2"]),
        (8, {}, gpus(24, 24, gpu={"gpu0": "4GiB"}), ["1"]),
        (30, {"memory": "60GiB", "tensor_parallel_size": "auto"}, gpus(80, 24), ["0"]),
    ],
)
def test_it_may_go_where_it_is_held_and_on_several_only_if_allowed(
    size: int, options: dict[str, Any], machine: Machine, places: list[str]
) -> None:
    specs = made(model(size, **options), machine)
    assert where(specs) == places
    for spec in specs:
        devices = {f"gpu{number}" for number in spec.env["CUDA_VISIBLE_DEVICES"].split(",")}
        assert {d for d in spec.footprint.bytes_by_device if d != "host"} == devices
        parallel = argument(spec.argv, "--tensor-parallel-size")
        assert parallel == (str(len(devices)) if len(devices) > 1 or parallel else None)
    assert len({spec.fingerprint for spec in specs}) == len(specs)


def test_one_that_no_gpu_holds_is_said_to_need_what_its_weights_take() -> None:
    (spec,) = made(model(30), gpus(24, 24))
    assert spec.footprint.bytes_by_device[DeviceId("gpu0")] == weights_bytes(30 * GIB) + VLLM_GPU.gpu_bytes


def test_gpus_named_in_a_way_that_is_not_ours_are_the_operators_business() -> None:
    (spec,) = made(model(8, env={"CUDA_VISIBLE_DEVICES": "MIG-12"}), gpus(24, 24))
    assert where((spec,)) == ["MIG-12"]
    assert DeviceId("gpu0") in spec.footprint.bytes_by_device


def test_there_are_never_more_places_than_can_be_looked_at() -> None:
    machine = gpus(*[80] * 16)
    assert len(made(model(8, tensor_parallel_size=8), machine)) == 128
    assert too_few_gpus(model(8, tensor_parallel_size=17), machine) is not None
    assert too_few_gpus(model(8, tensor_parallel_size="auto"), machine) is None


@pytest.mark.parametrize(("budget", "share"), [("auto", None), ("20GiB", "0.833333"), ("50%", "0.5")])
def test_it_fills_the_budget_of_its_device_and_not_a_byte_more(budget: str, share: str | None) -> None:
    specs = made(model(8), gpus(24, 24, gpu={"gpu1": budget}))
    there = specs[1]
    assert argument(there.argv, "--gpu-memory-utilization") == share
    limit = within(gpus(24, 24), MemoryConfig.model_validate({"gpu": {"gpu1": budget}})).budgets
    taken = there.footprint.bytes_by_device[DeviceId("gpu1")]
    assert limit[DeviceId("gpu1")] - 24_000_000 < taken <= limit[DeviceId("gpu1")]
    assert argument(specs[0].argv, "--gpu-memory-utilization") is None


def test_over_several_the_tightest_budget_decides_for_all() -> None:
    machine = gpus(80, 80, gpu={"gpu0": "40GiB"})
    (spec,) = made(model(20, tensor_parallel_size=2), machine)
    assert argument(spec.argv, "--gpu-memory-utilization") == "0.5"
    assert spec.footprint.bytes_by_device[DeviceId("gpu1")] == 40 * GIB


def test_a_given_size_is_split_and_what_is_left_of_it_is_the_cache() -> None:
    (spec,) = made(model(8, memory="24GiB", tensor_parallel_size=2), gpus(24, 24))
    cache = 12 * GIB - weights_bytes(8 * GIB) // 2 - VLLM_GPU.gpu_bytes
    assert argument(spec.argv, "--kv-cache-memory-bytes") == str(cache)
    assert not spec.measures_free_memory
    assert spec.footprint.bytes_by_device[DeviceId("gpu1")] == 12 * GIB


@given(st.integers(1, 2**38), st.integers(1, 2**38))
def test_a_share_is_never_more_than_it_stands_for(size: int, total: int) -> None:
    share = float(share_of(min(size, total), total) or 0)
    assert math.ceil(total * share) <= min(size, total)
    assert total * share > min(size, total) - total * 3e-6 - 1
