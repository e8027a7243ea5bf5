"""Every example of every page: commands, options, addresses, configurations, names of keys and metrics."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import modelyard
from cli.main import modelyard as command_line
from config.reference import sections
from config.schema import Settings
from registry.capability import ENDPOINTS
from router.control.exposition import FAMILIES
from router.control.metrics_page import families
from router.control.openapi import document

ROOT = Path(modelyard.__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "README.md"])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OPERATORS = frozenset({"|", "&&", "||", ";", "&"})


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [match[1] for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


ALL = [(page, block) for page in PAGES for block in blocks(page, "yaml")]
OURS = [(page, block) for page, block in ALL if not block.startswith("# ")]
"""A block that begins with a comment is another program's file: the comment is its name."""

OTHERS = [(page, block) for page, block in ALL if block.startswith("# ")]


@pytest.mark.parametrize(
    ("page", "block"), OURS, ids=lambda value: name(value) if isinstance(value, Path) else ""
)
def test_configurations_are_valid(page: Path, block: str) -> None:
    assert Settings.model_validate(yaml.safe_load(block)) != Settings(), name(page)


@pytest.mark.parametrize(
    ("page", "block"), OTHERS, ids=lambda value: name(value) if isinstance(value, Path) else ""
)
def test_other_programs_files_are_yaml_and_have_a_name(page: Path, block: str) -> None:
    assert re.match(r"# [.\w]+\.ya?ml\n", block), name(page)
    assert isinstance(yaml.safe_load(block), dict)


# -- commands


def command_lines(page: Path) -> Iterator[str]:
    """What follows a `$ ` in the console blocks, continued lines joined, without what a shell would skip."""
    for block in blocks(page, "console"):
        for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE):
            yield re.sub(r"\\\n\s*", "", match[1])


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line as words, those in `$( )` too, without `sudo` and variables."""
    for inner in re.findall(r"\$\(([^()]*)\)", line):
        yield from simple_commands(inner)
    line = re.sub(r"\$\([^()]*\)", "X", line)
    lexer = shlex.shlex(re.sub(r"\s#\s.*", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in OPERATORS:
            if words := bare(words):
                yield words
            words = []
        else:
            words.append(word)


def bare(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["sudo"]:
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] == "-u" else words[1:]
    if words[:1] == ["docker"] and "modelyard" in words:
        # `docker compose run|exec … modelyard` names the service; the image's program is modelyard itself.
        rest = words[words.index("modelyard") + 1 :]
        return rest if rest[:1] == ["modelyard"] else ["modelyard", *rest] if "run" in words else words
    for place, word in enumerate(words):
        if word in {">", ">>", "<"}:
            return words[:place]
    return words


def accept(command: click.Command, words: list[str]) -> None:
    """Parse *words* as the command line would, and run nothing; whatever is wrong with them raises."""
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words))
        return
    context = click.Context(command, info_name=command.name)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest or not command.invoke_without_command:
        _, found, rest = command.resolve_command(context, rest or [""])
        assert found is not None
        accept(found, rest)


COMMANDS = [
    (page, words) for page in PAGES for line in command_lines(page) for words in simple_commands(line)
]


def test_there_are_examples_to_look_at() -> None:
    assert len([words for _, words in COMMANDS if Path(words[0]).name == "modelyard"]) > 30
    assert len(OURS) > 12


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda value: value[0] if isinstance(value, list) else name(value)
)
def test_commands_exist_with_their_options(page: Path, words: list[str]) -> None:
    program = Path(words[0]).name
    if program == "modelyard":
        accept(command_line, words[1:])
    elif program == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert [
            target
            for target in targets
            if not re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", MAKEFILE, re.MULTILINE)
        ] == []


@pytest.mark.parametrize(
    "line",
    ["modelyard fly", "modelyard ps --nothing", "modelyard load", "modelyard ps extra", "modelyard engine"],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    (words,) = simple_commands(line)
    with pytest.raises(click.UsageError):
        accept(command_line, words[1:])


# -- names


def is_served(path: str) -> bool:
    if path in ENDPOINTS or path in ("/v1", "/api/v1", ""):
        return True
    known = document("")["paths"]
    return any(re.fullmatch(re.sub(r"\\\{id\\\}", ".+", re.escape(one)), path) for one in known)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_addresses_of_the_daemon_are_ones_it_serves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(
        r"https?://(?:127\.0\.0\.1|localhost|host\.docker\.internal):80[89]\d(/[\w./{}-]*|)", text
    )
    assert [path for path in found if not is_served(path.rstrip("/.") if path != "/" else path)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_metrics_are_ones_that_are_exported(page: Path) -> None:
    exported = set(FAMILIES) | {sample.name for family in families() for sample in family.samples}
    found = set(re.findall(r"\bmodelyard_[a-z_]+[a-z]\b", page.read_text(encoding="utf-8")))
    assert found - exported == set()


def keys() -> set[str]:
    found = set()
    for path, section in sections():
        for key in section.model_fields:
            found.add(f"{path}.{key}".lstrip("."))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_are_ones_that_exist(page: Path) -> None:
    known = keys()
    tops = {key.partition(".")[0] for key in known if "." in key} - {"models", "keys", "engines"}
    words = re.findall(r"`([a-z_]+)\.([a-z_]+)`", page.read_text(encoding="utf-8"))
    assert [f"{top}.{key}" for top, key in words if top in tops and f"{top}.{key}" not in known] == []


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    text = index.read_text(encoding="utf-8")
    listed = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", text)}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "adr"} - {index}
    assert pages - listed == set()


def test_troubleshooting_is_by_codes_that_exist() -> None:
    page = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text(encoding="utf-8")
    reference = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    codes = [code for heading in headings for code in re.findall(r"`([a-z_]+)`", heading)]
    assert len(codes) > 8
    assert [code for code in codes if f"| `{code}` |" not in reference] == []


def test_anchors_lead_to_headings() -> None:
    broken: list[Any] = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
            goal = page if not target else (page.parent / target).resolve()
            headings = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {
                re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }
            if anchor not in anchors:
                broken.append((name(page), target, anchor))
    assert broken == []
