"""What doctor makes of the facts: each missing piece, provoked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli.checks import MOST_MODELS, Level, budgets, examine
from cli.facts import EngineFacts, Facts, FolderFacts, NvidiaFacts, PortFacts
from config.schema import EndpointConfig, ModelConfig, Settings
from config.vocabulary import EngineName
from registry.engine import HOST, DeviceId, Footprint, LaunchSpec, Machine, ModelId
from registry.errors import EngineMissingError, ModelUnusableError
from registry.model import Model, SourceKind
from tests.support.control import local_model

GIB = 2**30
CPU = Machine("linux", "x86_64", 32 * GIB)
GPU = replace(CPU, gpus=((DeviceId("gpu0"), 24 * GIB),))
MAC = Machine("darwin", "arm64", 64 * GIB)
GOOD_FLAGS = frozenset({"avx2", "avx512f"})


def engine(name: EngineName, version: str | None = "1.0", **changes: object) -> EngineFacts:
    facts = EngineFacts(name, "yes: on the CPU", Path(f"/engines/{name}"), version)
    return replace(facts, **changes)  # type: ignore[arg-type]  # as the test says


def healthy(**changes: object) -> Facts:
    """A machine on which nothing fails."""
    facts = Facts(
        machine=CPU,
        settings=Settings(),
        state=FolderFacts(Path("/state"), free_bytes=10 * GIB),
        hub=FolderFacts(Path("/hub")),
        version="1",
        python="3.11",
        models=(local_model("qwen"),),
        engines=(engine(EngineName.MLX_LM), engine(EngineName.VLLM, None)),
        free_ram_bytes=30 * GIB,
        shared_memory_bytes=16 * GIB,
        cpu_flags=GOOD_FLAGS,
        open_files=65536,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]  # as the test says


def configured(name: str, **changes: object) -> Model:
    """A model of the configuration."""
    model = local_model(name, source_kind=SourceKind.CONFIG, options=ModelConfig(source=f"org/{name}"))
    return replace(model, **changes)  # type: ignore[arg-type]  # as the test says


def needing(model: Model, device: str, need: int) -> Model:
    spec = LaunchSpec(model.id, model.engine, ("serve",), footprint=Footprint({DeviceId(device): need}))
    return replace(model, spec=spec)


def worst(facts: Facts, check: str) -> tuple[Level, str, str]:
    """(level, what, remedy) of the worst finding of a check."""
    order = [Level.FAIL, Level.WARN, Level.OK]
    found = [one for one in examine(facts) if one.check == check]
    one = min(found, key=lambda finding: order.index(finding.level))
    return one.level, one.what, one.remedy


def test_a_healthy_machine_fails_nowhere_and_everything_is_looked_at() -> None:
    findings = examine(healthy())
    assert {one.level for one in findings if one.check != "gpu"} == {Level.OK}
    assert [one.check for one in findings] == (
        ["machine", "config", "gpu", "engine", "models", "memory", "port", "state", "limits", "hub"]
    )


def test_whatever_is_wrong_says_what_to_do() -> None:
    ill = healthy(
        models=(),
        engines=(),
        config_problems=("modelyard.yaml:3: ttl: what",),
        ports={"127.0.0.1:8080": PortFacts("taken", "nginx (pid 7)")},
        state=FolderFacts(Path("/state"), writable=False),
        hub=FolderFacts(Path("/hub"), exists=False),
        open_files=256,
    )
    assert [one for one in examine(ill) if one.level is not Level.OK and not one.remedy] == [
        one for one in examine(ill) if one.check == "gpu"
    ]


# -- GPU


def test_no_gpu_says_what_runs_anyway() -> None:
    level, what, _ = worst(healthy(), "gpu")
    assert level is Level.WARN
    assert what.startswith("no GPU that an engine here can use; what runs anyway: mlx-lm (on the CPU)")


def test_a_gpu_without_a_driver_fails_with_the_drivers_words() -> None:
    nvidia = NvidiaFacts(on_bus=True, driver_problem="NVML Shared Library Not Found")
    level, what, remedy = worst(healthy(nvidia=nvidia), "gpu")
    assert level is Level.FAIL
    assert "NVML Shared Library Not Found" in what
    assert "nvidia-smi" in remedy
    assert "container toolkit" in remedy


def test_a_missing_uvm_device_fails_with_the_command_that_makes_it() -> None:
    level, what, remedy = worst(healthy(machine=GPU, nvidia=NvidiaFacts(has_uvm=False)), "gpu")
    assert (level, remedy) == (Level.FAIL, "as root: nvidia-modprobe -u -c 0")
    assert "/dev/nvidia-uvm" in what


def test_gpus_are_named() -> None:
    assert worst(healthy(machine=GPU), "gpu")[:2] == (Level.OK, "NVIDIA: gpu0 24.0 GiB")
    assert worst(healthy(machine=MAC), "gpu")[0] is Level.OK


# -- engines


def missing(model: Model, name: EngineName = EngineName.VLLM) -> Model:
    return replace(model, engine=name, problem=EngineMissingError(f"{model.id} needs {name}"))


@pytest.mark.parametrize(
    ("models", "level"),
    [
        # Nothing runs: that one engine is what is missing.
        ((missing(local_model("found")),), Level.FAIL),
        # It was only found, and others run.
        ((missing(local_model("found")), local_model("fine")), Level.WARN),
        ((missing(configured("named")), local_model("fine")), Level.FAIL),
    ],
)
def test_a_missing_engine_names_its_models_and_the_command(models: tuple[Model, ...], level: Level) -> None:
    found, what, remedy = worst(healthy(models=models), "engine")
    assert found is level
    assert f"vllm is not installed, and {models[0].id} would run on it" in what
    assert remedy == "modelyard engine install vllm"


def test_an_engine_that_is_not_where_the_configuration_says() -> None:
    lost = engine(EngineName.VLLM, None, is_named=True)
    level, what, _ = worst(healthy(engines=(lost,)), "engine")
    assert level is Level.FAIL
    assert what == "engines.vllm.path: there is no vllm in /engines/vllm"


def test_half_an_installation_is_noticed() -> None:
    half = engine(EngineName.VLLM, None, is_half=True)
    assert worst(healthy(engines=(half, engine(EngineName.MLX_LM))), "engine")[:2] == (
        Level.WARN,
        "vllm in /engines/vllm was never finished",
    )


def test_no_engine_at_all_names_the_best_for_this_machine() -> None:
    none = (engine(EngineName.MLX_LM, None), engine(EngineName.VLLM, None))
    level, what, remedy = worst(healthy(engines=none), "engine")
    assert (level, what) == (Level.WARN, "no engine is installed")
    assert "modelyard engine install mlx-lm" in remedy


# -- vLLM's CPU build


VLLM = (engine(EngineName.VLLM),)


@pytest.mark.parametrize(
    ("flags", "level", "word"),
    [
        (GOOD_FLAGS, Level.OK, "AVX-512"),
        (frozenset({"avx2"}), Level.WARN, "slow path"),
        (frozenset({"sse4_2"}), Level.FAIL, "does not run"),
    ],
)
def test_instructions_that_vllm_wants_of_a_cpu(flags: frozenset[str], level: Level, word: str) -> None:
    found, what, _ = worst(healthy(engines=VLLM, cpu_flags=flags), "vllm")
    assert found is level
    assert word in what


def test_libnuma_is_missed_only_where_vllm_needs_it() -> None:
    level, what, remedy = worst(healthy(engines=VLLM, has_libnuma=False), "vllm")
    assert level is Level.FAIL
    assert "libnuma.so.1" in what
    assert "apt-get install libnuma1" in remedy
    assert not [one for one in examine(healthy(has_libnuma=False)) if one.check == "vllm"]
    on_gpu = healthy(engines=VLLM, has_libnuma=False, machine=GPU)
    assert not [one for one in examine(on_gpu) if one.check == "vllm"]
    not_installed = healthy(models=(missing(local_model("m")), local_model("n")), has_libnuma=False)
    assert worst(not_installed, "vllm")[0] is Level.WARN


def test_a_containers_small_shared_memory_is_noticed() -> None:
    level, what, remedy = worst(healthy(engines=VLLM, shared_memory_bytes=64 * 2**20), "vllm")
    assert level is Level.WARN
    assert "64.0 MiB" in what
    assert "--shm-size" in remedy


# -- memory


def test_budgets_are_the_daemons() -> None:
    settings = Settings.model_validate({"memory": {"host": "50%", "gpu": {"gpu0": "8GiB"}}})
    expected = {HOST: GPU.ram_bytes // 2, DeviceId("gpu0"): 8 * GIB}
    assert budgets(healthy(machine=GPU, settings=settings)) == expected


@pytest.mark.parametrize(("make", "level"), [(local_model, Level.WARN), (configured, Level.FAIL)])
def test_a_model_that_can_never_fit_has_its_numbers(make: object, level: Level) -> None:
    assert callable(make)
    big = needing(make("big"), HOST, 30 * GIB)
    found, what, remedy = worst(healthy(models=(big,)), "memory")
    assert found is level
    assert what == "big needs about 30.0 GiB on host, where 24.0 GiB are allowed"
    assert "raise memory.host" in remedy


def test_a_model_too_large_for_its_gpu() -> None:
    big = needing(configured("big"), "gpu0", 23 * GIB)
    level, what, remedy = worst(healthy(machine=GPU, models=(big,)), "memory")
    assert level is Level.FAIL
    assert "on gpu0" in what
    assert "raise memory.gpu" in remedy


def anywhere(model: Model, need: int) -> Model:
    """One that may go on either of two GPUs."""
    first, second = (needing(model, device, need).spec for device in ("gpu0", "gpu1"))
    assert first is not None
    assert second is not None
    return replace(model, spec=first, elsewhere=(second,))


def test_what_is_to_stay_loaded_may_be_spread_over_the_gpus() -> None:
    pair = Machine("linux", "x86_64", 64 * GIB, ((DeviceId("gpu0"), 24 * GIB), (DeviceId("gpu1"), 24 * GIB)))
    staying = tuple(anywhere(configured(name, preload=True), 15 * GIB) for name in "abc")
    found = examine(healthy(machine=pair, models=staying[:2]))
    assert not [one for one in found if "together" in one.what]
    level, what, _ = worst(healthy(machine=pair, models=staying), "memory")
    assert level is Level.FAIL
    assert "30.0 GiB of gpu0 together" in what


def test_one_that_fits_on_some_gpu_is_no_matter() -> None:
    settings = Settings.model_validate({"memory": {"gpu": {"gpu0": "4GiB"}}})
    pair = Machine("linux", "x86_64", 64 * GIB, ((DeviceId("gpu0"), 24 * GIB), (DeviceId("gpu1"), 24 * GIB)))
    facts = healthy(machine=pair, settings=settings, models=(anywhere(configured("a"), 15 * GIB),))
    assert not [one for one in examine(facts) if "a needs about" in one.what]


def test_what_is_to_stay_loaded_must_fit_together() -> None:
    staying = tuple(needing(configured(name, preload=True), HOST, 13 * GIB) for name in "ab")
    level, what, _ = worst(healthy(models=staying), "memory")
    assert level is Level.FAIL
    assert "pinned and preloaded models need 26.0 GiB of host together (24.0 GiB): a, b" in what


def test_a_budget_above_the_ram_and_memory_that_others_hold() -> None:
    settings = Settings.model_validate({"memory": {"host": "64GiB"}})
    assert "there are 32.0 GiB" in worst(healthy(settings=settings), "memory")[1]
    assert "only 2.0 GiB are free now" in worst(healthy(free_ram_bytes=2 * GIB), "memory")[1]
    # Of a running daemon it is its own models that hold it.
    running = healthy(free_ram_bytes=2 * GIB, ports={"127.0.0.1:8080": PortFacts("ours", "modelyard")})
    assert worst(running, "memory")[0] is Level.OK


# -- port, places, limits


def test_a_taken_port_names_who_has_it() -> None:
    level, what, remedy = worst(
        healthy(ports={"127.0.0.1:8080": PortFacts("taken", "nginx (pid 7)")}), "port"
    )
    assert (level, what) == (Level.FAIL, "127.0.0.1:8080 is taken by nginx (pid 7)")
    assert "listen:" in remedy


def test_a_port_that_cannot_be_had_says_why() -> None:
    level, what, _ = worst(
        healthy(ports={"127.0.0.1:8080": PortFacts("impossible", "Permission denied")}), "port"
    )
    assert level is Level.FAIL
    assert "Permission denied" in what


def test_every_address_is_looked_at() -> None:
    ports = {
        "127.0.0.1:8080": PortFacts(),
        "https://127.0.0.1:8443": PortFacts("taken", "nginx (pid 7)"),
        "unix:/run/yard.sock": PortFacts("impossible", "there is no folder /run"),
    }
    tls = {"certificate": "/c", "key": "/k"}
    settings = Settings.model_validate({"listen": list(ports), "tls": tls})
    found = [one for one in examine(healthy(ports=ports, settings=settings)) if one.check == "port"]
    assert [one.level for one in found] == [Level.OK, Level.FAIL, Level.FAIL]
    assert found[1].what == "https://127.0.0.1:8443 is taken by nginx (pid 7)"
    assert found[2].remedy.startswith("make its folder")


def test_a_running_daemon_is_no_fault() -> None:
    assert (
        worst(healthy(ports={"127.0.0.1:8080": PortFacts("ours", "modelyard 1 runs there")}), "port")[0]
        is Level.OK
    )


@pytest.mark.parametrize(
    ("listen", "level"),
    [
        ("0.0.0.0:8080", Level.WARN),
        (":8080", Level.WARN),
        ("[::1]:8080", Level.OK),
        ("localhost:1", Level.OK),
    ],
)
def test_an_open_door_is_pointed_out(listen: str, level: Level) -> None:
    assert worst(healthy(settings=Settings(listen=listen)), "port")[0] is level


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (FolderFacts(Path("/s"), is_ours=False), "another account"),
        (FolderFacts(Path("/s"), writable=False), "cannot be written"),
        (FolderFacts(Path("/s"), exists=False, writable=False), "cannot be made"),
        (FolderFacts(Path("/s"), free_bytes=2**20), "1.0 MiB are left"),
    ],
)
def test_a_state_directory_that_will_not_do(state: FolderFacts, word: str) -> None:
    level, what, remedy = worst(healthy(state=state), "state")
    assert level is Level.FAIL
    assert word in what
    assert "state_dir" in remedy


def test_few_descriptors_are_translated_into_clients() -> None:
    level, what, remedy = worst(healthy(open_files=1024), "limits")
    assert level is Level.WARN
    assert "enough for about 256 clients" in what
    assert "LimitNOFILE" in remedy


# -- models, hub, configuration


def test_a_configuration_with_problems_fails_for_each() -> None:
    facts = healthy(config_problems=("modelyard.yaml:3: ttl: a", "modelyard.yaml:4: listen: b"))
    found = [one for one in examine(facts) if one.check == "config"]
    assert [one.level for one in found] == [Level.FAIL, Level.FAIL]
    assert found[0].what == "modelyard.yaml:3: ttl: a"


def test_a_default_model_that_nobody_knows() -> None:
    level, what, _ = worst(healthy(settings=Settings(default_model="nobody")), "config")
    assert (level, what) == (Level.FAIL, "default_model: no model is called 'nobody'")


def test_an_endpoints_key_that_is_not_set() -> None:
    endpoint = EndpointConfig(name="studio", url="http://x", key_env="STUDIO_KEY")
    facts = healthy(settings=Settings(endpoints=(endpoint,)), unset_keys={"studio": "STUDIO_KEY"})
    assert worst(facts, "config")[0] is Level.WARN
    assert "$STUDIO_KEY" in worst(facts, "config")[1]


def test_models_that_cannot_be_served_say_why_and_how_to_mend_it() -> None:
    problem = ModelUnusableError("half: partial download: 1 of 2 files; run `hf download org/half`")
    facts = healthy(models=(configured("half", problem=problem), local_model("fine")))
    level, what, remedy = worst(facts, "models")
    assert level is Level.FAIL
    assert what == "half: partial download: 1 of 2 files"
    assert remedy == "hf download org/half"
    assert worst(healthy(models=(local_model("half", problem=problem), local_model("fine"))), "models")[
        0
    ] is (Level.WARN)


def test_many_broken_models_are_counted_and_not_listed() -> None:
    problem = ModelUnusableError("x: broken")
    models = tuple(local_model(f"m{number}", problem=problem) for number in range(MOST_MODELS + 3))
    found = [one for one in examine(healthy(models=models)) if one.check == "models"]
    assert "3 more models cannot be served" in [one.what for one in found]
    assert found[-1].what == "no model can be served"


def test_no_model_at_all() -> None:
    level, what, remedy = worst(healthy(models=()), "models")
    assert (level, what) == (Level.FAIL, "no model was found")
    assert "hf download" in remedy


def test_a_command_that_is_not_there() -> None:
    level, what, _ = worst(healthy(missing_programs={"tiny": "llama-server"}), "models")
    assert level is Level.FAIL
    assert what == "tiny: its cmd starts 'llama-server', which is not there"


def test_the_hub_cache() -> None:
    assert worst(healthy(hub=FolderFacts(Path("/hub"), exists=False)), "hub")[0] is Level.WARN
    assert worst(healthy(hub=FolderFacts(Path("/hub"), readable=False)), "hub")[0] is Level.FAIL
    quiet = Settings.model_validate({"discover": {"hub_cache": False}})
    gone = healthy(settings=quiet, hub=FolderFacts(Path("/hub"), exists=False))
    assert not [one for one in examine(gone) if one.check == "hub"]


def test_offline_matters_where_something_has_to_be_downloaded() -> None:
    assert worst(healthy(offline_by="HF_HUB_OFFLINE"), "hub")[0] is Level.OK
    problem = ModelUnusableError("m: org/m is not on this machine: download it with `hf download org/m`")
    facts = healthy(models=(configured("m", problem=problem),), offline_by="HF_HUB_OFFLINE")
    level, what, remedy = worst(facts, "hub")
    assert level is Level.WARN
    assert "so that m cannot be downloaded" in what
    assert remedy == "env -u HF_HUB_OFFLINE hf download ORG/NAME"


def test_long_lists_of_names_are_cut() -> None:
    models = tuple(local_model(f"m{number}") for number in range(7))
    assert worst(healthy(models=models), "models")[1] == "7 can be served: m0, m1, m2, m3 and 3 more"
    assert ModelId("m0") == models[0].id
