"""Adapters: what is started, how it is known to be ready, and what its last words mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.capability import Capability
from registry.checkpoint import Checkpoint
from registry.engine import (
    HOST,
    Answers,
    DeviceId,
    Engine,
    HttpOk,
    Installation,
    LaunchSpec,
    Lists,
    Machine,
    ModelId,
    PortOwned,
)
from registry.engine_choice import ENGINES, choose, launch_specs, preferences
from registry.engines.diagnosis import clean, diagnose
from registry.engines.launching import argument
from registry.errors import EngineMissingError
from registry.fact import Fact, Rank
from registry.footprint import GIB, KvShape
from registry.model import Facts, Model, SourceKind

CPU = Machine("linux", "x86_64", 24 * GIB)
MAC = Machine("darwin", "arm64", 64 * GIB)
NVIDIA = Machine("linux", "x86_64", 64 * GIB, ((DeviceId("gpu0"), 24 * GIB), (DeviceId("gpu1"), 24 * GIB)))
CHAT = Checkpoint(
    yes=frozenset({Capability.GENERATE}),
    weight_format="safetensors",
    architecture="Qwen3ForCausalLM",
    has_chat_template=True,
    kv=KvShape(36, 8, 128),
)


def model(
    *,
    name: str = "org/name",
    checkpoint: Checkpoint = CHAT,
    can: set[Capability] | None = None,
    size: int = 8 * GIB,
    native: int | None = 40960,
    path: Path | None = Path("/models/name"),
    **options: Any,
) -> Model:
    entry = ModelConfig(**({"source": "org/name"} | options))
    capabilities = frozenset(can or {Capability.GENERATE})
    return Model(
        id=ModelId(name),
        engine=EngineName.COMMAND,
        source="org/name",
        source_kind=SourceKind.CONFIG,
        path=path,
        aliases=entry.aliases,
        facts=Facts(
            capabilities=Fact(capabilities, Rank.FILES),
            context_length=Fact(entry.context or native, Rank.FILES),
            size_bytes=Fact(size, Rank.FILES),
        ),
        checkpoint=checkpoint,
        options=entry,
    )


def spec(engine: EngineName, one: Model, machine: Machine = CPU) -> LaunchSpec:
    return ENGINES[engine].launch_spec(one, Installation(engine, "/e"), machine)


def flag(of: LaunchSpec, *names: str) -> str | None:
    return argument(of.argv, *names)


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES))
@pytest.mark.parametrize("machine", [CPU, MAC, NVIDIA], ids=["cpu", "mac", "nvidia"])
def test_every_adapter_binds_loopback_on_our_port_and_tells_what_it_needs(
    engine: Engine, machine: Machine
) -> None:
    one = model(cmd="serve --host 127.0.0.1 --port {port}") if engine.name is EngineName.COMMAND else model()
    assert engine.refuses(one, machine) is None
    made = engine.launch_spec(one, Installation(engine.name, "/e"), machine)
    argv, env = made.command(port=4711, key="secret")
    assert "4711" in argv
    assert argument(argv, "--host") == "127.0.0.1"
    assert not [word for word in argv if "{port}" in word or "{key}" in word or "secret" in word]
    assert made.needs_key == ("secret" in env.values())
    assert made.footprint.total > 0
    assert made.readiness
    assert one.id in engine.wire(one).accepted_names


@pytest.mark.parametrize("engine", [EngineName.VLLM, EngineName.VLLM_MLX, EngineName.MLX_LM])
@pytest.mark.parametrize("bad", ["../up", "/abs", "a//b", "-x", "a/../b", "a b", "x" * 300])
def test_an_id_that_is_no_safe_argument_and_file_name_is_refused(engine: EngineName, bad: str) -> None:
    assert ENGINES[engine].refuses(model(name=bad), CPU) is not None


@pytest.mark.parametrize("engine", [EngineName.VLLM, EngineName.VLLM_MLX, EngineName.MLX_LM])
def test_a_model_that_is_not_here_is_refused_with_the_command_that_gets_it(engine: EngineName) -> None:
    assert "hf download org/name" in (ENGINES[engine].refuses(model(path=None), CPU) or "")


@pytest.mark.parametrize("engine", [EngineName.VLLM, EngineName.VLLM_MLX, EngineName.MLX_LM])
def test_the_operators_arguments_and_environment_come_last(engine: EngineName) -> None:
    made = spec(engine, model(args=("--x", '{"a": 1}'), env={"HF_HUB_OFFLINE": "0"}))
    assert made.argv[-2:] == ("--x", '{"a": 1}')
    assert made.env["HF_HUB_OFFLINE"] == "0"
    assert made.command(port=1, key="")[0][-1] == '{"a": 1}'


# -- mlx-lm ----------------------------------------------------------------------------------------


def test_mlx_lm_is_started_under_a_link_with_the_models_id() -> None:
    made = spec(EngineName.MLX_LM, model(name="org/qwen3:4bit", aliases=("q",)))
    assert made.argv[:3] == ("/e/bin/mlx_lm.server", "--model", "org/qwen3:4bit")
    assert made.links == (("org/qwen3:4bit", "/models/name"),)
    assert made.env["HF_HUB_CACHE"] == "."
    assert not made.needs_key
    wire = ENGINES[EngineName.MLX_LM].wire(model(aliases=("q",)))
    assert wire.served_name == "org/name"
    assert wire.accepted_names == {"org/name"}
    assert wire.strip_fields == ("adapters", "draft_model")


def test_mlx_lm_is_only_ready_when_it_has_answered() -> None:
    port, health, answer = spec(EngineName.MLX_LM, model()).readiness
    assert port == PortOwned()
    assert health == HttpOk("/health", fatal_statuses=(503,))
    assert isinstance(answer, Answers)
    assert answer.path == "/v1/chat/completions"
    assert json.loads(answer.body)["model"] == "org/name"
    plain = spec(EngineName.MLX_LM, model(checkpoint=replace(CHAT, has_chat_template=False))).readiness[2]
    assert isinstance(plain, Answers)
    assert plain.path == "/v1/completions"


@pytest.mark.parametrize(("context", "limit"), [(2048, "2048"), (262144, "32768"), (None, "32768")])
def test_mlx_lm_may_answer_longer_than_512_tokens(context: int | None, limit: str) -> None:
    assert flag(spec(EngineName.MLX_LM, model(native=context)), "--max-tokens") == limit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight_format": "bin"}, "reads safetensors, not bin"),
        ({"quantization": "bitsandbytes-4bit"}, "quantised by bitsandbytes"),
        ({"quantization": "mlx-4bit", "mlx_quantized": True}, None),
        ({"quantization": "awq-4bit"}, None),
        ({"quantization": "bf16"}, None),
    ],
)
def test_what_mlx_lm_can_load(changes: dict[str, Any], says: str | None) -> None:
    reason = ENGINES[EngineName.MLX_LM].refuses(model(checkpoint=replace(CHAT, **changes)), CPU)
    assert (reason is None) if says is None else says in (reason or "")


def test_mlx_lm_has_no_route_for_embeddings() -> None:
    reason = ENGINES[EngineName.MLX_LM].refuses(model(can={Capability.EMBED}), CPU)
    assert "no route for embeddings" in (reason or "")


# -- vllm-mlx --------------------------------------------------------------------------------------


def test_vllm_mlx_is_ready_when_its_health_says_that_the_model_is_loaded() -> None:
    made = spec(EngineName.VLLM_MLX, model(can={Capability.GENERATE, Capability.TOOL_USE}), MAC)
    assert made.argv[:3] == ("/e/bin/vllm-mlx", "serve", "/models/name")
    assert flag(made, "--served-model-name") == "org/name"
    assert flag(made, "--api-key") is None
    assert made.readiness[1:] == (
        HttpOk("/health", json_key="model_loaded", json_value=True),
        Lists("org/name"),
    )


# -- vLLM ------------------------------------------------------------------------------------------


def test_vllm_on_a_gpu_measures_and_takes_its_share_of_the_device() -> None:
    made = spec(EngineName.VLLM, model(aliases=("a", "b")), NVIDIA)
    position = made.argv.index("--served-model-name")
    assert made.argv[position + 1 : position + 4] == ("org/name", "a", "b")
    assert made.measures_free_memory
    assert made.needs_key
    assert made.env["VLLM_API_KEY"] == "{key}"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "0"
    assert made.footprint.bytes_by_device[DeviceId("gpu0")] == int(24 * GIB * 0.92)
    assert DeviceId("gpu1") not in made.footprint.bytes_by_device
    assert flag(made, "--max-model-len") is None
    assert made.stop.repeat_term_seconds is not None


def test_vllm_takes_as_many_gpus_as_the_weights_need_where_it_may() -> None:
    made = spec(EngineName.VLLM, model(size=30 * GIB, tensor_parallel_size="auto"), NVIDIA)
    assert flag(made, "--tensor-parallel-size") == "2"
    assert made.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert {DeviceId("gpu0"), DeviceId("gpu1")} <= set(made.footprint.bytes_by_device)


def test_vllm_with_a_given_size_does_not_measure_and_leaves_room_for_others() -> None:
    made = spec(EngineName.VLLM, model(size=4 * GIB, memory="12GiB", context=8192), NVIDIA)
    assert not made.measures_free_memory
    assert made.footprint.bytes_by_device[DeviceId("gpu0")] == 12 * GIB
    assert flag(made, "--gpu-memory-utilization") == "0.5"
    assert 5 * GIB < int(flag(made, "--kv-cache-memory-bytes") or 0) < 6 * GIB
    assert flag(made, "--max-model-len") == "8192"


def test_what_the_operator_says_about_vllms_memory_is_reserved() -> None:
    made = spec(EngineName.VLLM, model(args=("--gpu-memory-utilization=0.5",)), NVIDIA)
    assert made.footprint.bytes_by_device[DeviceId("gpu0")] == 12 * GIB
    other = spec(EngineName.VLLM, model(env={"CUDA_VISIBLE_DEVICES": "1"}), NVIDIA)
    assert DeviceId("gpu1") in other.footprint.bytes_by_device
    assert other.env["CUDA_VISIBLE_DEVICES"] == "1"


def test_vllm_on_a_cpu_gets_a_cache_of_its_own_and_a_context_that_fits_it() -> None:
    made = spec(EngineName.VLLM, model(size=GIB), CPU)
    cache = int(flag(made, "--kv-cache-memory-bytes") or 0)
    context = int(flag(made, "--max-model-len") or 0)
    assert cache == 4 * GIB
    assert 0 < context < 40960
    assert context % 128 == 0, "vLLM's cache on a CPU has blocks of 128 tokens"
    assert KvShape(36, 8, 128).bytes_for(context) <= cache
    assert not made.measures_free_memory
    assert made.footprint.bytes_by_device[HOST] > 5 * GIB


def test_a_commands_memory_goes_to_the_devices_it_names_and_it_sees_no_others() -> None:
    cmd = "llama-server --port {port}"
    made = spec(EngineName.COMMAND, model(cmd=cmd, memory={"gpu1": "20GiB", "host": "1GiB"}), NVIDIA)
    assert made.footprint.bytes_by_device == {DeviceId("gpu1"): 20 * GIB, HOST: GIB}
    assert made.footprint.is_given
    assert made.env["CUDA_VISIBLE_DEVICES"] == "1"
    own = model(cmd=cmd, memory={"gpu1": "20GiB"}, env={"CUDA_VISIBLE_DEVICES": "GPU-8f"})
    assert spec(EngineName.COMMAND, own, NVIDIA).env["CUDA_VISIBLE_DEVICES"] == "GPU-8f"
    ram = spec(EngineName.COMMAND, model(cmd=cmd, memory="2GiB"), NVIDIA)
    assert ram.footprint.bytes_by_device == {HOST: 2 * GIB}
    assert "CUDA_VISIBLE_DEVICES" not in ram.env


def test_a_command_may_go_on_any_one_gpu() -> None:
    one = model(
        cmd="x --port {port}", memory={"gpu": "20GiB", "host": "1GiB"}, env={"CUDA_VISIBLE_DEVICES": "7"}
    )
    command = ENGINES[EngineName.COMMAND]
    assert command.refuses(one, NVIDIA) is None
    made = launch_specs(command, one, Installation(command.name, "/e"), NVIDIA)
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in made] == ["0", "1"]
    assert [spec.footprint.bytes_by_device for spec in made] == [
        {DeviceId("gpu0"): 20 * GIB, HOST: GIB},
        {DeviceId("gpu1"): 20 * GIB, HOST: GIB},
    ]
    assert len({spec.fingerprint for spec in made}) == 2
    assert "this machine has none" in (command.refuses(one, CPU) or "")


def test_a_commands_memory_on_a_device_that_is_not_there_is_refused() -> None:
    absent = model(cmd="x --port {port}", memory={"gpu2": "1GiB"})
    assert "gpu2, which this machine does not have" in (
        ENGINES[EngineName.COMMAND].refuses(absent, NVIDIA) or ""
    )


def test_an_encoder_is_given_no_cache_that_it_would_never_fill() -> None:
    encoder = replace(CHAT, yes=frozenset({Capability.EMBED}), architecture="BertModel", kv=None)
    made = spec(EngineName.VLLM, model(checkpoint=encoder, can={Capability.EMBED}, size=GIB // 10), CPU)
    assert flag(made, "--kv-cache-memory-bytes") == str(64 * 2**20)
    assert made.footprint.bytes_by_device[HOST] < 2.2 * GIB


def test_vllm_is_told_what_pools() -> None:
    embedder = spec(EngineName.VLLM, model(can={Capability.EMBED}), NVIDIA)
    assert flag(embedder, "--runner") == "pooling"
    reranker = spec(EngineName.VLLM, model(can={Capability.RERANK}), NVIDIA)
    assert json.loads(flag(reranker, "--hf-overrides") or "{}")["is_original_qwen3_reranker"]
    assert flag(spec(EngineName.VLLM, model(), NVIDIA), "--runner") is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mlx_quantized": True}, "quantised by MLX"),
        ({"weight_format": "gguf"}, "GGUF"),
        ({"architecture": "MllamaForConditionalGeneration"}, "0.10.2"),
        ({"quantization": "bitsandbytes-4bit"}, None),
    ],
)
def test_what_vllm_can_load(changes: dict[str, Any], says: str | None) -> None:
    reason = ENGINES[EngineName.VLLM].refuses(model(checkpoint=replace(CHAT, **changes)), NVIDIA)
    assert (reason is None) if says is None else says in (reason or "")


# -- command ---------------------------------------------------------------------------------------


def test_a_template_is_cut_into_words_before_it_is_filled() -> None:
    one = model(cmd="serve '{path}' --port {port} --name {model}", path=Path("/a b/c"), args=("--x",))
    made = spec(EngineName.COMMAND, one)
    assert made.argv == ("serve", "/a b/c", "--port", "{port}", "--name", "org/name", "--x")


@pytest.mark.parametrize(
    ("identity", "steps"),
    [
        ("tree", (PortOwned(), HttpOk("/ok"))),
        ("models", (HttpOk("/ok"), Lists("served"))),
        ("none", (HttpOk("/ok"),)),
    ],
)
def test_the_operator_says_how_a_command_is_recognised(identity: str, steps: tuple[object, ...]) -> None:
    one = model(cmd=("x", "{port}"), identity=identity, health="/ok", served_name="served", aliases=("a",))
    made = spec(EngineName.COMMAND, one)
    assert made.readiness == steps
    assert made.identity == identity
    wire = ENGINES[EngineName.COMMAND].wire(one)
    assert (wire.served_name, wire.accepted_names) == ("served", frozenset({"served"}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cmd": "serve"}, "needs {port}"),
        ({"cmd": "serve '{port}"}, "cannot be read"),
        ({"cmd": "serve {port} {path}", "path": None}, "{path}"),
        ({"cmd": "serve {port}", "cmd_stop": "stop '"}, "cannot be read"),
        ({"cmd": "serve", "env": {"PORT": "{port}"}}, None),
    ],
)
def test_a_template_that_cannot_work_is_refused(options: dict[str, Any], says: str | None) -> None:
    reason = ENGINES[EngineName.COMMAND].refuses(model(**options), CPU)
    assert (reason is None) if says is None else says in (reason or "")


def test_a_commands_stop_is_carried_out_first() -> None:
    made = spec(EngineName.COMMAND, model(cmd="x {port}", cmd_stop="docker stop {model}"))
    assert made.stop.command == ("docker", "stop", "{model}")


# -- choosing --------------------------------------------------------------------------------------

ALL: dict[EngineName, Installation] = {
    name: Installation(name, "/e") for name in ENGINES if name is not EngineName.COMMAND
}
MLX = replace(CHAT, mlx_quantized=True, quantization="mlx-4bit")


@pytest.mark.parametrize(
    ("machine", "installed", "checkpoint", "can", "engine"),
    [
        (CPU, "all", CHAT, Capability.GENERATE, EngineName.MLX_LM),
        (CPU, "vllm", CHAT, Capability.GENERATE, EngineName.VLLM),
        (CPU, "all", CHAT, Capability.EMBED, EngineName.VLLM),
        (NVIDIA, "all", CHAT, Capability.GENERATE, EngineName.VLLM),
        (NVIDIA, "all", MLX, Capability.GENERATE, EngineName.MLX_LM),
        (MAC, "all", CHAT, Capability.GENERATE, EngineName.VLLM_MLX),
        (MAC, "mlx-lm", CHAT, Capability.GENERATE, EngineName.MLX_LM),
        (MAC, "all", replace(CHAT, architecture="GptOssForCausalLM"), Capability.GENERATE, EngineName.MLX_LM),
    ],
)
def test_auto_picks_by_machine_checkpoint_and_what_is_installed(
    machine: Machine, installed: str, checkpoint: Checkpoint, can: Capability, engine: EngineName
) -> None:
    name = EngineName(installed) if installed != "all" else None
    there = ALL if name is None else {name: ALL[name]}
    choice = choose(model(checkpoint=checkpoint, can={can}), machine, there)
    assert (choice.engine, choice.problem) == (engine, None)


@pytest.mark.parametrize(
    ("machine", "engine"),
    [(CPU, "mlx-lm"), (NVIDIA, "vllm"), (MAC, "vllm-mlx")],
    ids=["cpu", "nvidia", "mac"],
)
def test_nothing_installed_names_the_one_command_that_helps(machine: Machine, engine: str) -> None:
    choice = choose(model(), machine, {})
    assert isinstance(choice.problem, EngineMissingError)
    assert f"`modelyard engine install {engine}`" in str(choice.problem)


def test_a_named_engine_is_taken_or_its_refusal_given() -> None:
    assert choose(model(engine="vllm"), CPU, ALL).engine is EngineName.VLLM
    refused = choose(model(engine="vllm", checkpoint=MLX), CPU, ALL)
    assert "quantised by MLX" in str(refused.problem)


def test_when_no_engine_can_every_reason_is_said_once() -> None:
    choice = choose(model(checkpoint=replace(CHAT, weight_format="gguf")), CPU, ALL)
    assert "no engine can serve it" in str(choice.problem)
    assert "llama-server" in str(choice.problem)
    gone = choose(model(path=None), CPU, ALL)
    assert str(gone.problem).count("hf download") == 1


@pytest.mark.parametrize("machine", [CPU, MAC, NVIDIA])
def test_every_engine_of_a_machine_can_be_installed_there(machine: Machine) -> None:
    for name in preferences(machine):
        assert ENGINES[name].recipe(machine).requirements


# -- last words ------------------------------------------------------------------------------------

TRACE = (
    "Traceback (most recent call last):",
    '  File "x.py", line 1, in <module>',
    "    raise ValueError(1)",
)
FULL_GPU = (
    "(EngineCore pid=7) ERROR 11-20 18:00:00 [core.py:1] ValueError: Free memory on device cuda:0 "
    "(1/24 GiB) on startup is less than desired GPU memory utilization (0.92, 22 GiB)."
)
BAD_TYPE = "ValueError: Model type foo not supported."
SAID = [
    ("mlx-lm", (*TRACE, "OSError: [Errno 98] Address already in use"), "port_taken", "its port was taken"),
    ("vllm", ("torch.OutOfMemoryError: CUDA out of memory. Tried 2",), "out_of_memory", "CUDA out of memory"),
    (
        "vllm",
        (FULL_GPU, "RuntimeError: Engine core failed."),
        "out_of_memory",
        "Free memory on device cuda:0",
    ),
    (
        "vllm",
        ("ValueError: To serve at least one request with the model's max seq len (40960), (6 GiB KV cache",),
        "out_of_memory",
        "To serve at least",
    ),
    (
        "mlx-lm",
        (*TRACE, BAD_TYPE),
        "unsupported_architecture",
        "Model type foo",
    ),
    ("mlx-lm", (*TRACE, "FileNotFoundError: No safetensors found in x"), "bad_checkpoint", "No safetensors"),
    (
        "mlx-lm",
        (*TRACE, "RuntimeError: [load_safetensors] Tensor 'x' exceeding"),
        "bad_checkpoint",
        "Tensor 'x'",
    ),
    ("mlx-lm", (*TRACE, "ValueError: Expected shape (5, 1) but received"), "bad_checkpoint", "do not fit"),
    ("mlx-lm", ("usage: x [-h]", "x: error: unrecognized arguments: -f"), "bad_arguments", "arguments: -f"),
    ("vllm-mlx", (*TRACE, "ModuleNotFoundError: No module named 'mlx'"), "engine_broken", "named 'mlx'"),
    ("vllm", (*TRACE, "RuntimeError: odd", "  warnings.warn("), "engine_failed", "RuntimeError: odd"),
    ("command", ("starting", "  no such model: x  ", ""), "engine_failed", "no such model: x"),
    ("command", (), "engine_failed", "exited with status 3"),
]


@pytest.mark.parametrize(("engine", "tail", "code", "cause"), SAID)
def test_last_words(engine: str, tail: tuple[str, ...], code: str, cause: str) -> None:
    found = ENGINES[EngineName(engine)].diagnose(tail, 3)
    assert found.code == code
    assert cause in found.cause


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [
        (-9, "killed by the system"),
        (137, "killed by the system"),
        (-6, "SIGABRT"),
        (None, "without a word"),
        (0, "status 0"),
    ],
)
def test_silence_is_told_by_the_exit_status(exit_code: int | None, cause: str) -> None:
    assert cause in diagnose((), exit_code).cause


def test_lines_are_freed_from_colours_progress_and_prefixes() -> None:
    assert clean("\x1b[31m(EngineCore pid=1)\x1b[0m ERROR 11-20 18:00:00 [a.py:1] boom") == "boom"
    assert clean("  5%|x\r 10%|y\rdone") == "done"
    assert clean("2026-11-20 19:19:32,638 - INFO - Starting httpd") == "Starting httpd"


@given(st.lists(st.text(max_size=60), max_size=6), st.none() | st.integers(-70, 300))
def test_any_last_words_are_diagnosed_in_a_line(tail: list[str], exit_code: int | None) -> None:
    for engine in ENGINES.values():
        found = engine.diagnose(tuple(tail), exit_code)
        assert found.cause
        assert len(found.cause) <= 300
