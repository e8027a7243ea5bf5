"""What a model certainly cannot do, and who could instead."""

from __future__ import annotations

from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.capability import ENDPOINTS, Capability, Needs
from registry.checkpoint import Checkpoint
from registry.engine import ModelId
from registry.errors import CapabilityMissingError, ContextExceededError
from registry.fact import Fact, Rank
from registry.gate import able, incapable, lacking, longest_answer, meets, unmet
from registry.model import Facts, Model, SourceKind

CHAT, EMBED = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/embeddings"]
C = Capability
IMAGES, TOOLS = Needs(frozenset({C.VISION})), Needs(frozenset({C.TOOL_USE}))


def model(
    name: str,
    *can: Capability,
    rank: Rank = Rank.NAME,
    no: frozenset[Capability] | None = None,
    context: Fact[int] | None = None,
) -> Model:
    """A model that can *can*; with *no*, its files rule these out."""
    return Model(
        id=ModelId(name),
        engine=EngineName.VLLM,
        source=name,
        source_kind=SourceKind.CONFIG,
        facts=Facts(
            capabilities=Fact(frozenset(can), rank, rank.name.lower()) if can else Fact(None),
            context_length=context or Fact(None),
        ),
        checkpoint=None if no is None else Checkpoint(yes=frozenset({C.GENERATE}), no=no),
        options=ModelConfig(source="x"),
    )


def test_what_nobody_knows_is_given_the_chance() -> None:
    assert lacking(model("unknown")) == frozenset()
    assert meets(model("unknown"), IMAGES)


def test_the_operator_and_a_running_server_are_taken_at_their_word() -> None:
    for rank in (Rank.OPERATOR, Rank.ENGINE):
        found = lacking(model("m", C.GENERATE, C.TOOL_USE, rank=rank, no=frozenset()))
        assert found == {C.VISION, C.VIDEO, C.AUDIO}


def test_files_count_by_what_they_rule_out() -> None:
    # No chat template: nothing is said about tools, though the name does not promise them either.
    seen = model("m", C.GENERATE, rank=Rank.FILES, no=frozenset({C.VISION, C.VIDEO, C.AUDIO}))
    assert lacking(seen) == {C.VISION, C.VIDEO, C.AUDIO}


def test_a_model_that_does_not_generate_lacks_nothing_of_this() -> None:
    assert lacking(model("vectors", C.EMBED, rank=Rank.OPERATOR)) == frozenset()


def test_a_context_that_only_a_name_tells_bounds_nothing() -> None:
    assert longest_answer(model("m", C.GENERATE, context=Fact(8192, Rank.NAME, "name"))) is None
    assert longest_answer(model("m", C.GENERATE, context=Fact(8192, Rank.DEFAULT, "default"))) is None
    assert longest_answer(model("m", C.GENERATE, context=Fact(8192, Rank.FILES, "config.json"))) == 8192


def test_the_wrong_endpoint_is_refused_with_those_who_could_serve_it() -> None:
    chat, vectors = model("chat", C.GENERATE), model("vectors", C.EMBED)
    error = incapable(chat, EMBED, (chat, vectors, model("unknown")))
    assert str(error) == ("chat cannot serve /v1/embeddings: it can generate, that needs embed; ask vectors")
    assert error.candidates == ("vectors",)
    assert str(incapable(chat, EMBED, (chat,))).endswith("no model here can")


def test_an_answer_names_no_model_that_the_asker_may_not_use() -> None:
    chat, vectors, secret = model("chat", C.GENERATE), model("vectors", C.EMBED), model("secret", C.EMBED)
    error = incapable(chat, EMBED, (chat, secret, vectors), allowed=lambda name: name != "secret")
    assert error.candidates == ("vectors",)
    seeing = model("seeing", C.GENERATE, C.VISION)
    found = unmet(chat, IMAGES, CHAT, (chat, seeing), allowed=lambda name: name == "chat")
    assert found is not None
    assert found.candidates == ()


def test_images_for_a_text_model_are_refused_with_the_reason_and_the_source() -> None:
    text, seeing = model("text", C.GENERATE, C.TOOL_USE), model("seeing", C.GENERATE, C.VISION)
    found = unmet(text, IMAGES, CHAT, (text, seeing))
    assert isinstance(found, CapabilityMissingError)
    assert str(found) == (
        "the request has images, and text has no vision (source: name); ask seeing; "
        "`check_requests: false` in the model's entry switches this check off"
    )
    assert (found.param, found.candidates) == ("messages", ("seeing",))
    assert unmet(seeing, IMAGES, CHAT, ()) is None


def test_tools_for_a_model_without_are_refused_at_the_tools() -> None:
    found = unmet(model("text", C.GENERATE), TOOLS, CHAT, ())
    assert found is not None
    assert (found.param, found.code) == ("tools", "capability_missing")
    assert unmet(model("text", C.GENERATE, C.TOOL_USE), TOOLS, CHAT, ()) is None


def test_an_answer_longer_than_the_context_is_refused_at_its_own_field() -> None:
    small = model("small", C.GENERATE, context=Fact(4096, Rank.FILES, "config.json max_position_embeddings"))
    large = model("large", C.GENERATE, context=Fact(131072, Rank.FILES, "config.json"))
    long = Needs(frozenset(), 5000, "max_completion_tokens")
    found = unmet(small, long, CHAT, (small, large))
    assert isinstance(found, ContextExceededError)
    assert (found.code, found.param) == ("context_length_exceeded", "max_completion_tokens")
    assert str(found).startswith(
        "max_completion_tokens is 5000, and the whole context of small is 4096 tokens (source: config.json "
        "max_position_embeddings): ask for less, or ask large; "
    )
    assert unmet(small, Needs(frozenset(), 4096), CHAT, ()) is None
    assert unmet(large, long, CHAT, ()) is None


def test_only_those_that_are_known_to_be_able_are_named() -> None:
    models = (
        model("unknown"), model("vectors", C.EMBED), model("text", C.GENERATE),
        model("seeing", C.GENERATE, C.VISION),
    )  # fmt: skip
    assert able(models, CHAT, IMAGES) == ("seeing",)
    many = tuple(model(f"seeing-{n}", C.GENERATE, C.VISION) for n in range(20))
    assert len(able(many, CHAT, IMAGES)) == 8
