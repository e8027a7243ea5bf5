"""The catalog of a machine: what is found, what wins, what a request gets."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.schema import (
    DiscoverConfig,
    EndpointConfig,
    EngineConfig,
    ModelConfig,
    Settings,
    StartConfig,
    VirtualConfig,
)
from config.vocabulary import EngineName
from registry.capability import ENDPOINTS, Capability
from registry.catalog import Catalog, build_catalog, openai_entry
from registry.discovery import Environment, Notice
from registry.engine import Machine, ModelId
from registry.errors import (
    AmbiguousModelError,
    CapabilityMissingError,
    EngineMissingError,
    ModelNotFoundError,
    ModelRequiredError,
    ModelUnusableError,
)
from registry.fact import Rank
from registry.families import load_families
from registry.footprint import GIB
from registry.installed import EXECUTABLES, MARKER
from registry.model import SourceKind
from registry.probe import ServedModel
from registry.virtual import Virtual
from tests.support.checkpoints import QWEN3, SMALL, write_checkpoint, write_hub_model

FAMILIES = load_families()
CPU = Machine("linux", "x86_64", 24 * GIB)
CHAT = ENDPOINTS["/v1/chat/completions"]
EMBED = ENDPOINTS["/v1/embeddings"]
BERT = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
LOCAL = EndpointConfig(name="local", url="http://localhost:8000")


class World:
    """A machine's disk: a hub cache, a folder of models, a demo, an installed mlx-lm."""

    def __init__(self, root: Path) -> None:
        self.hub = root / "hub"
        self.models = root / "models"
        self.demo = root / "demo"
        self.engines = root / "engines"
        self.install(EngineName.MLX_LM)

    def install(self, engine: EngineName) -> None:
        script = self.engines / engine.value / "bin" / EXECUTABLES[engine]
        script.parent.mkdir(parents=True)
        script.touch(mode=0o755)
        (self.engines / engine.value / MARKER).touch()

    def settings(self, models: Mapping[str, Any] | None = None, **more: Any) -> Settings:
        entries = {name: ModelConfig(**entry) for name, entry in (models or {}).items()}
        discover = DiscoverConfig(directories=(self.models,))
        return Settings(**({"models": entries, "endpoints": (), "discover": discover} | more))

    def catalog(self, models: Mapping[str, Any] | None = None, **more: Any) -> Catalog:
        environment = Environment(
            {"HF_HUB_CACHE": str(self.hub)}, self.engines, demo_dir=self.demo, families=FAMILIES
        )
        return build_catalog(self.settings(models, **more), CPU, environment)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- what is found ---------------------------------------------------------------------------------


def test_everything_on_the_disk_is_listed_with_the_operators_own_first(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    write_checkpoint(world.models / "org" / "own")
    write_checkpoint(world.demo / "yard")
    catalog = world.catalog({"mine": {"cmd": "serve {port}"}})
    kinds = {model.id: model.source_kind for model in catalog.models.values()}
    assert list(kinds.items()) == [
        ("mine", SourceKind.CONFIG),
        ("org/own", SourceKind.DIRECTORY),
        ("yard", SourceKind.DIRECTORY),
        ("Qwen/Qwen3-8B", SourceKind.HUB_CACHE),
    ]
    assert all(model.problem is None and model.spec is not None for model in catalog.models.values())


def test_places_can_be_switched_off(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    write_checkpoint(world.demo / "yard")
    assert not world.catalog(discover=DiscoverConfig(hub_cache=False, demo=False)).models


def test_of_two_with_one_id_the_nearer_wins_and_the_other_is_told(world: World) -> None:
    write_hub_model(world.hub, "org/own")
    folder = write_checkpoint(world.models / "org" / "own")
    catalog = world.catalog()
    assert catalog.models[ModelId("org/own")].path == folder
    (notice,) = catalog.notices
    assert notice.model == "org/own"
    assert str(world.hub) in notice.what
    assert f"hidden by {folder}" in notice.what


def test_an_entry_for_something_found_replaces_it_and_answers_to_its_name(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    catalog = world.catalog({"small": {"source": "Qwen/Qwen3-8B", "ttl": 5, "aliases": ["s"]}})
    assert list(catalog.models) == ["small"]
    assert catalog.notices == ()
    for name in ("small", "s", "Qwen/Qwen3-8B"):
        assert catalog.resolve(name, CHAT).id == "small"
    assert catalog.models[ModelId("small")].ttl == 5


def test_an_entry_without_a_source_is_about_what_is_found_under_its_name(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    folder = write_checkpoint(world.demo / "yard")
    catalog = world.catalog(
        {"yard": {"ttl": 7}, "Qwen/Qwen3-8B": {"pin": True}, "yrad": {}, "org/absent": {}}
    )
    assert catalog.models[ModelId("yard")].path == folder
    assert catalog.models[ModelId("yard")].ttl == 7
    assert catalog.models[ModelId("Qwen/Qwen3-8B")].spec is not None
    assert "give it a source" in str(catalog.models[ModelId("yrad")].problem)
    assert "hf download org/absent" in str(catalog.models[ModelId("org/absent")].problem)


def test_two_entries_for_one_checkpoint_are_two_models(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    catalog = world.catalog(
        {"a": {"source": "Qwen/Qwen3-8B"}, "b": {"source": "Qwen/Qwen3-8B", "context": 99}}
    )
    assert list(catalog.models) == ["a", "b"]
    assert catalog.resolve("Qwen/Qwen3-8B").id == "a"


def test_an_entry_under_the_hubs_own_name_keeps_it(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    catalog = world.catalog({"Qwen/Qwen3-8B": {"source": "Qwen/Qwen3-8B", "pin": True}})
    assert [model.pin for model in catalog.models.values()] == [True]


def test_adapters_and_pipelines_are_no_models(world: World) -> None:
    write_checkpoint(world.models / "pipeline", model_index__json={}, config__json="{}")
    write_hub_model(world.hub, "org/lora", config__json=None, adapter_config__json={})
    catalog = world.catalog()
    assert not catalog.models
    assert [notice.model for notice in catalog.notices] == ["pipeline", "org/lora"]
    assert isinstance(catalog.notices[0], Notice)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"source": "a/b"}, "m: a/b is not on this machine: download it with `hf download a/b`"),
        ({"source": "/nowhere"}, "m: /nowhere cannot be read: No such file or directory"),
        ({"cmd": "serve"}, "m: its cmd needs {port}: the server must listen where we look for it"),
        ({"source": "org/cut"}, "m: partial download: model.safetensors missing; run `hf download org/cut`"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_served_is_listed_with_the_reason(
    world: World, entry: dict[str, Any], says: str
) -> None:
    write_hub_model(world.hub, "org/cut", model__safetensors=b"")
    catalog = world.catalog({"m": entry})
    model = catalog.models[ModelId("m")]
    assert says in str(model.problem)
    assert model.spec is None
    with pytest.raises(ModelUnusableError) as refused:
        catalog.resolve("m", CHAT)
    assert refused.value is not model.problem
    assert catalog.resolve("m") is model


def test_a_missing_engine_names_the_command_that_installs_it(world: World) -> None:
    write_checkpoint(world.models / "bert", BERT, tokenizer_config__json={})
    catalog = world.catalog()
    with pytest.raises(EngineMissingError, match="`modelyard engine install vllm`"):
        catalog.resolve("bert", EMBED)
    world.install(EngineName.VLLM)
    assert world.catalog().resolve("bert", EMBED).engine is EngineName.VLLM


def test_a_file_is_a_source_for_a_command_only(world: World, tmp_path: Path) -> None:
    weights = tmp_path / "phi-4-Q4_K_M.gguf"
    weights.write_bytes(b"x" * 1000)
    entry = {"source": str(weights), "cmd": "llama-server --port {port} -m {path}"}
    catalog = world.catalog({"phi": entry, "alone": {"source": str(weights)}})
    phi = catalog.models[ModelId("phi")]
    assert phi.spec is not None
    assert phi.spec.argv[-1] == str(weights)
    assert phi.facts.family.value == "phi-4"
    assert phi.facts.size_bytes.value == 1000
    assert "is a file" in str(catalog.models[ModelId("alone")].problem)


# -- facts and specs -------------------------------------------------------------------------------


def test_facts_come_from_the_best_source_and_show_the_others(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B-Instruct-2507")
    facts = (
        world.catalog({"m": {"source": "Qwen/Qwen3-8B-Instruct-2507", "context": 1024}})
        .models[ModelId("m")]
        .facts
    )
    assert (facts.context_length.value, facts.context_length.rank) == (1024, Rank.OPERATOR)
    assert facts.context_length.others == (
        (2048, "config.json max_position_embeddings"),
        (262144, "name (its family)"),
    )
    assert facts.family.value == "qwen3"
    assert facts.parameters.value == 40
    assert facts.parameters.others == ((8_000_000_000, "name"),)


def test_a_reranker_that_says_it_is_a_chat_model_is_believed_by_its_name(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-Reranker-0.6B")
    facts = world.catalog().models[ModelId("Qwen/Qwen3-Reranker-0.6B")].facts
    assert facts.capabilities.value == frozenset({Capability.RERANK})


def test_the_name_completes_what_the_files_leave_open_and_cannot_contradict_them(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen2.5-Coder-VL-7B-Instruct")
    facts = world.catalog().models[ModelId("Qwen/Qwen2.5-Coder-VL-7B-Instruct")].facts
    assert facts.capabilities.value == frozenset({Capability.GENERATE, Capability.CODE})
    assert facts.capabilities.source == "files; name: code"


def test_the_operator_decides_what_a_model_can(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    entry = {"source": "Qwen/Qwen3-8B", "capabilities": ["generate", "vision"]}
    fact = world.catalog({"m": entry}).models[ModelId("m")].facts.capabilities
    assert (fact.value, fact.rank) == (frozenset({Capability.GENERATE, Capability.VISION}), Rank.OPERATOR)
    assert fact.source == "models.m.capabilities"


def test_settings_reach_the_spec(world: World) -> None:
    write_checkpoint(world.models / "m")
    write_checkpoint(world.models / "slow")
    catalog = world.catalog(
        {"slow": {"source": str(world.models / "slow"), "args": ["--mine"], "start_timeout": 7}},
        engines={"mlx-lm": EngineConfig(args=("--all",), env={"A": "1"})},
        start=StartConfig(stop_grace=3, stall_timeout=4, start_timeout=5),
        ttl=11,
    )
    plain, slow = catalog.models[ModelId("m")], catalog.models[ModelId("slow")]
    assert plain.spec is not None
    assert slow.spec is not None
    assert plain.spec.argv[-1] == "--all"
    assert slow.spec.argv[-2:] == ("--all", "--mine")
    assert plain.spec.env["A"] == "1"
    assert (plain.spec.stop.grace_seconds, plain.spec.stall_timeout, plain.spec.start_timeout) == (3, 4, 5)
    assert slow.spec.start_timeout == 7
    assert plain.ttl == 11


# -- names -----------------------------------------------------------------------------------------


def test_a_request_without_a_name_gets_the_default(world: World) -> None:
    write_checkpoint(world.models / "only")
    assert world.catalog().resolve(None, CHAT).id == "only"
    write_checkpoint(world.models / "second")
    with pytest.raises(ModelRequiredError) as refused:
        world.catalog().resolve(None, CHAT)
    assert refused.value.candidates == ("only", "second")
    assert world.catalog(default_model="second").default_model == "second"
    assert world.catalog(default_model="second").resolve(None, CHAT).id == "second"
    with pytest.raises(ModelNotFoundError, match="'thrid'"):
        world.catalog(default_model="thrid").resolve(None, CHAT)


def test_a_broken_model_beside_a_good_one_leaves_no_choice(world: World) -> None:
    write_checkpoint(world.models / "good")
    write_checkpoint(world.models / "broken", model__safetensors=SMALL[:-1])
    assert world.catalog().default_model == "good"


def test_guessing_can_be_switched_off(world: World) -> None:
    write_checkpoint(world.models / "org" / "Qwen3-8B")
    assert world.catalog().resolve("qwen3", CHAT).id == "org/Qwen3-8B"
    with pytest.raises(ModelNotFoundError):
        world.catalog(fuzzy_names=False).resolve("qwen3", CHAT)


def test_a_capability_that_is_missing_names_those_that_have_it(world: World) -> None:
    world.install(EngineName.VLLM)
    write_checkpoint(world.models / "chat")
    catalog = world.catalog()
    with pytest.raises(CapabilityMissingError, match="no model here can"):
        catalog.resolve("chat", EMBED)
    write_checkpoint(world.models / "bert", BERT, tokenizer_config__json={})
    with pytest.raises(CapabilityMissingError, match="ask bert") as refused:
        world.catalog().resolve("chat", EMBED)
    assert refused.value.candidates == ("bert",)
    assert world.catalog().resolve("chat", ENDPOINTS["/v1/tokenize"]).id == "chat"


def test_a_model_nobody_knows_is_given_the_chance(world: World) -> None:
    catalog = world.catalog({"stt": {"cmd": "serve {port}"}})
    assert catalog.resolve("stt", ENDPOINTS["/v1/audio/transcriptions"]).id == "stt"


# -- endpoints -------------------------------------------------------------------------------------


def test_models_of_running_servers_are_listed_under_their_own_names(world: World) -> None:
    write_checkpoint(world.models / "mine")
    other = EndpointConfig(name="mac", url="http://mac:1", key_env="KEY")
    catalog = world.catalog(endpoints=(LOCAL, other)).with_endpoints(
        {
            "local": (ServedModel("Qwen/Qwen3-8B", context_length=4096), ServedModel("mine")),
            "mac": (
                ServedModel("Qwen/Qwen3-8B"),
                ServedModel("e5", capabilities=frozenset({Capability.EMBED})),
            ),
        }
    )
    assert list(catalog.models) == ["mine", "Qwen/Qwen3-8B", "mine@local", "Qwen/Qwen3-8B@mac", "e5"]
    assert catalog.resolve("mine").endpoint is None
    there = catalog.resolve("Qwen/Qwen3-8B@local", CHAT)
    assert (there.id, there.engine, there.spec) == ("Qwen/Qwen3-8B", EngineName.ENDPOINT, None)
    assert (there.facts.context_length.value, there.facts.context_length.rank) == (4096, Rank.ENGINE)
    assert there.facts.context_length.others == ((40960, "name (its family)"),)
    again = catalog.resolve("Qwen/Qwen3-8B@mac", CHAT)
    assert again.wire.served_name == "Qwen/Qwen3-8B"
    assert again.endpoint is not None
    assert (again.endpoint.url, again.endpoint.key_env) == ("http://mac:1", "KEY")
    assert catalog.resolve("e5", EMBED).id == "e5"


def test_models_of_a_server_that_went_away_go_with_it(world: World) -> None:
    write_checkpoint(world.models / "mine")
    before = world.catalog(endpoints=(LOCAL,))
    with_one = before.with_endpoints({"local": (ServedModel("x"),)})
    assert with_one.default_model is None
    assert with_one.with_endpoints({}).models == before.models
    assert with_one.with_endpoints({}).default_model == "mine"
    assert with_one.with_endpoints({"unknown": (ServedModel("y"),)}).models == before.models


def test_a_name_that_two_servers_have_is_ambiguous_only_in_part(world: World) -> None:
    catalog = world.catalog(endpoints=(LOCAL,)).with_endpoints(
        {"local": (ServedModel("org/tiny"), ServedModel("team/tiny"))}
    )
    with pytest.raises(AmbiguousModelError):
        catalog.resolve("tiny", CHAT)


# -- showing ---------------------------------------------------------------------------------------


def test_a_registry_id_finds_its_model_and_only_whole(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    catalog = world.catalog()
    assert catalog.resolve("mlx-lm/Qwen_Qwen3-8B").id == "Qwen/Qwen3-8B"
    with pytest.raises(ModelNotFoundError):
        catalog.resolve("mlx-lm/Qwen_")


def test_an_entry_of_the_model_list(world: World) -> None:
    write_hub_model(world.hub, "Qwen/Qwen3-8B")
    catalog = world.catalog({"small": {"source": "Qwen/Qwen3-8B", "aliases": ["s"]}})
    entry = openai_entry(catalog.models[ModelId("small")], "ready")
    assert {key: entry[key] for key in ("id", "object", "owned_by", "state", "engine", "aliases")} == {
        "id": "small",
        "object": "model",
        "owned_by": "Qwen",
        "state": "ready",
        "engine": "mlx-lm",
        "aliases": ["s"],
    }
    assert entry["created"] > 0
    assert entry["capabilities"] == ["generate"]
    assert entry["context_length"] == 2048
    assert entry["sources"]["context_length"] == {
        "source": "config.json max_position_embeddings",
        "others": [{"value": 40960, "source": "name (its family)"}],
    }
    assert "problem" not in entry


def test_an_entry_tells_what_is_wrong(world: World) -> None:
    write_checkpoint(world.models / "broken", model__safetensors=None)
    entry = openai_entry(world.catalog().models[ModelId("broken")], "stopped")
    assert entry["problem"]["code"] == "model_unusable"
    assert "no weights" in entry["problem"]["message"]


# -- the whole -------------------------------------------------------------------------------------


def test_a_catalog_can_be_built_in_a_thread(world: World) -> None:
    write_checkpoint(world.models / "m")
    built: list[Catalog] = []
    thread = threading.Thread(target=lambda: built.append(world.catalog()))
    thread.start()
    thread.join()
    assert list(built[0].models) == ["m"]


def test_hundreds_of_models_are_found_once_and_in_order(world: World) -> None:
    for number in range(100):
        write_checkpoint(world.models / f"m{number:03}", {**QWEN3, "max_position_embeddings": 128 + number})
    catalog = world.catalog()
    assert [model.facts.context_length.value for model in catalog.models.values()] == list(range(128, 228))


DEMO = Path(__file__).resolve().parents[2] / "demo" / "models"


@pytest.mark.skipif(not list(DEMO.glob("*/config.json")), reason="the demo models are not built")
def test_the_demo_models_are_complete_and_can_chat(world: World) -> None:
    world.demo = DEMO
    catalog = world.catalog()
    assert catalog.models
    for model in catalog.models.values():
        assert model.problem is None, str(model.problem)
        assert model.checkpoint is not None
        assert model.checkpoint.has_chat_template
        assert model.facts.context_length.known
        assert catalog.resolve(model.id, CHAT) is model


def test_a_virtual_name_is_not_taken_over_by_an_endpoint(world: World) -> None:
    catalog = world.catalog(
        {"mine": {"cmd": "serve {port}"}},
        endpoints=(LOCAL,),
        virtual={"smart": VirtualConfig(models=("mine",))},
    ).with_endpoints({"local": (ServedModel("smart"),)})
    assert catalog.find("smart") == Virtual("smart")
    assert catalog.resolve("smart@local").endpoint is not None
