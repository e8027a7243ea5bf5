"""Choosing one of several models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import ENDPOINTS, NO_NEEDS, Capability, Needs
from registry.catalog import Catalog
from registry.errors import VirtualNameError
from registry.model import Model
from registry.resolve import Named
from registry.virtual import Standing, Virtual, Warmth, Wish, choose, fits, in_order, parse_wish
from tests.support.models import catalog_of, command

C = Capability
CHAT, EMBED = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/embeddings"]
GIB = 2**30

CATALOG = catalog_of(
    {
        "big": command("generate", "tool_use", "vision", context=131072, memory=40 * GIB),
        "small": command("generate", "tool_use", context=32768, memory=4 * GIB),
        "tiny": command("generate", context=2048, memory=GIB),
        "vectors": command("embed", context=512, memory=GIB),
        "unknown": command(memory=GIB),
    }
)


def chosen(name: str, *, catalog: Catalog = CATALOG, **standings: Standing) -> list[str]:
    wish = parse_wish(name)
    found = choose(
        fitting(wish, catalog=catalog), wish, CHAT, standing=lambda model: standings.get(model.id, Standing())
    )
    return [model.id for model in found]


def fitting(
    wish: Wish, needs: Needs = NO_NEEDS, path: str = "/v1/chat/completions", *, catalog: Catalog = CATALOG
) -> list[Model]:
    return [model for model in catalog.models.values() if fits(model, wish, ENDPOINTS[path], needs)]


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("auto", Wish()),
        ("auto:vision", Wish(frozenset({C.VISION}))),
        ("auto:tools,context>=32k", Wish(frozenset({C.TOOL_USE}), 32000)),
        ("auto:tools, context>=32K", Wish(frozenset({C.TOOL_USE}), 32768)),
        ("auto:embed", Wish(frozenset({C.EMBED}))),
        ("auto:loaded", Wish(loaded=True)),
        ("auto:loaded,thinking,context>=1M", Wish(frozenset({C.REASONING}), 2**20, loaded=True)),
    ],
)
def test_a_wish_is_read(name: str, wish: Wish) -> None:
    assert parse_wish(name) == wish


@pytest.mark.parametrize(
    "name", ["auto:", "auto:visoin", "auto:vision,", "auto:context>32k", "auto:context>=x"]
)
def test_a_word_nobody_knows_is_refused_with_the_words_there_are(name: str) -> None:
    with pytest.raises(VirtualNameError, match="vision"):
        parse_wish(name)


@given(st.text(max_size=60))
def test_no_wish_makes_it_raise_anything_else(text: str) -> None:
    try:
        parse_wish(f"auto:{text}")
    except VirtualNameError:
        return


def test_the_cheapest_to_bring_up_is_preferred_where_nothing_is_warm() -> None:
    assert chosen("auto") == ["tiny", "small", "big"]
    assert chosen("auto:tools") == ["small", "big"]
    assert chosen("auto:context>=32K") == ["small", "big"]
    assert chosen("auto:vision") == ["big"]


def test_what_a_start_took_counts_more_than_bytes() -> None:
    slow = Standing(load_seconds=300.0)
    assert chosen("auto:tools", small=slow) == ["big", "small"]


def test_what_is_warm_comes_first_and_the_least_busy_of_those() -> None:
    ready, busy = Standing(Warmth.READY, in_flight=3), Standing(Warmth.BUSY)
    assert chosen("auto", big=ready) == ["big", "tiny", "small"]
    assert chosen("auto", big=ready, small=Standing(Warmth.READY)) == ["small", "big", "tiny"]
    assert chosen("auto", big=busy, tiny=Standing(Warmth.UNWELL)) == ["big", "small", "tiny"]


def test_loaded_takes_only_what_is_there_or_on_its_way() -> None:
    assert chosen("auto:loaded") == []
    assert chosen("auto:loaded", big=Standing(Warmth.BUSY)) == ["big"]


def test_the_request_and_the_endpoint_narrow_the_choice() -> None:
    def by(needs: Needs, path: str = "/v1/chat/completions") -> list[str]:
        return [model.id for model in fitting(Wish(), needs, path)]

    assert by(Needs(frozenset({C.VISION}))) == ["big"]
    assert by(Needs(frozenset(), 60_000)) == ["big"]
    assert by(NO_NEEDS, "/v1/embeddings") == ["vectors"]


def test_only_what_is_allowed_is_chosen() -> None:
    found = choose(fitting(Wish()), Wish(), CHAT, standing=lambda _: Standing(), allowed={"big"}.__contains__)
    assert [model.id for model in found] == ["big"]


def test_the_operators_order_holds_but_for_the_unwell() -> None:
    models = [CATALOG.models[CATALOG.resolve(name).id] for name in ("big", "small", "tiny")]
    standings = {"big": Standing(Warmth.UNWELL), "tiny": Standing(Warmth.READY)}

    def standing(model: Model) -> Standing:
        return standings.get(model.id, Standing())

    plain = in_order(models, standing=standing, prefer_warm=False)
    assert [model.id for model in plain] == ["small", "tiny", "big"]
    warm = in_order(models, standing=standing, prefer_warm=True)
    assert [model.id for model in warm] == ["tiny", "small", "big"]


def test_names_are_read_in_the_order_of_the_grammar() -> None:
    catalog = catalog_of(
        {"org/model": command("generate", aliases=["alias"], variants={"v": {"set": {"seed": 1}}})},
        virtual={"smart": {"models": ["org/model"]}, "model": {"models": ["org/model"]}},
    )
    base = catalog.resolve("org/model").id
    assert catalog.find("org/model") == Named(base)
    assert catalog.find("alias") == Named(base)
    assert catalog.find("alias:v") == Named(base, "v")
    assert catalog.find("smart") == Virtual("smart")
    assert catalog.find("model") == Virtual("model")  # before the part after the last slash
    assert catalog.find("auto:vision") == Virtual("auto:vision")
    assert catalog.find("ORG/Model") == Named(base)
    assert catalog.find(None) == Named(base)
    with pytest.raises(VirtualNameError, match="name one"):
        catalog.resolve("smart")


def test_a_virtual_name_or_a_variant_can_be_the_default() -> None:
    models = {"a": command("generate", variants={"v": {}}), "b": command("generate")}
    assert catalog_of(models, default_model="auto:tools").find(None) == Virtual("auto:tools")
    assert catalog_of(models, default_model="a:v").find(None) == Named(CATALOG_ID, "v")


CATALOG_ID = catalog_of({"a": command("generate")}).resolve("a").id


@pytest.mark.parametrize(
    ("virtual", "problem"),
    [
        ({"a": {"models": ["b"]}}, "a model has this name already"),
        ({"nick": {"models": ["b"]}}, "a model has this name already"),
        ({"one": {"models": ["a"]}, "two": {"models": ["one"]}}, "one is virtual itself"),
        ({"one": {"models": []}}, "at least 1"),
        ({"auto:x": {"models": ["a"]}}, "reserved"),
    ],
)
def test_a_virtual_name_has_one_meaning(virtual: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        catalog_of({"a": command("generate", aliases=["nick"]), "b": command()}, virtual=virtual)
