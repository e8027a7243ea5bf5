"""The questions that the demo models learn from: every template works, and nothing held out leaks."""

from __future__ import annotations

from random import Random

import pytest
import yaml

from demo.paraphrase import ELSEWHERE, HERE, Grammar, Questions, slip


def every_template() -> list[tuple[str, str, str]]:
    """(data file, topic, template)"""
    yard = yaml.safe_load((HERE / "questions.yaml").read_text("utf-8"))
    world = yaml.safe_load((HERE / "elsewhere.yaml").read_text("utf-8"))
    cases = [("questions.yaml", n, t) for n, c in yard["topics"].items() for t in c["ask"].splitlines()]
    cases += [("elsewhere.yaml", ELSEWHERE, t) for t in world["ask"].splitlines()]
    return cases + [("elsewhere.yaml", "system", t) for t in world["system"].splitlines()]


def test_every_template_expands_and_leaves_no_unknown_word_behind() -> None:
    grammars = {}
    for file in ("questions.yaml", "elsewhere.yaml"):
        words = yaml.safe_load((HERE / file).read_text("utf-8"))["words"]
        grammars[file] = Grammar(words)
    rng = Random(1)
    for file, topic, template in every_template():
        for _ in range(5):
            phrase = grammars[file].expand(template, rng)
            assert phrase, (topic, template)
            assert "|" not in phrase, (topic, template, phrase)


def test_every_parenthesis_of_a_template_is_closed() -> None:
    for file, topic, template in every_template():
        assert template.count("(") == template.count(")"), (file, topic, template)
        assert template.count("{") == template.count("}"), (file, topic, template)


@pytest.mark.parametrize(
    ("template", "phrases"),
    [
        ("plain words", {"plain words"}),
        ("(a|b) c", {"a c", "b c"}),
        ("(a |)b", {"a b", "b"}),
        ("x|y", {"x", "y"}),
        ("((a|b)c|d)", {"ac", "bc", "d"}),
        ("{colour} train", {"red train", "dark blue train", "light blue train"}),
        ("{code}", {"f(x) {}"}),
    ],
)
def test_a_template_yields_exactly_its_phrases(template: str, phrases: set[str]) -> None:
    grammar = Grammar({"colour": "red|(dark|light) blue", "code": ["f(x) {}"]})
    rng = Random(1)
    assert {grammar.expand(template, rng) for _ in range(200)} == phrases


def test_a_held_out_question_is_never_asked_in_training() -> None:
    questions, rng = Questions("yard-demo"), Random(1)
    held_out = {question.lower().rstrip("?!. ") for _, question in questions.held_out}
    asked = {questions.ask(rng)[1].lower().rstrip("?!. ") for _ in range(20_000)}
    assert not asked & held_out


def test_one_seed_asks_the_same_questions_again() -> None:
    questions = Questions("yard-demo")
    one, two = Random(7), Random(7)
    assert [questions.ask(one) for _ in range(500)] == [questions.ask(two) for _ in range(500)]


def test_every_topic_is_asked_about_and_has_an_answer() -> None:
    questions, rng = Questions("yard-foreman"), Random(1)
    assert {questions.ask(rng)[0] for _ in range(20_000)} == set(questions.answers)


def test_a_suggested_question_is_the_plainest_template_of_its_topic() -> None:
    content = yaml.safe_load((HERE / "questions.yaml").read_text("utf-8"))
    plainest = {topic["ask"].splitlines()[0] for topic in content["topics"].values()}
    assert {question.rstrip("?") for question in content["readme"]} <= plainest


def test_a_slip_changes_a_long_word_and_leaves_short_ones_alone() -> None:
    rng = Random(1)
    assert all(slip("to be or not", rng) == "to be or not" for _ in range(50))
    assert any(slip("the engine", rng) != "the engine" for _ in range(50))
    assert all(slip("the engine", rng).startswith("the e") for _ in range(50))
