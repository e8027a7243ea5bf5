"""What the documents claim: links, commands, options, statuses, examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import modelyard
from cli.errors import Status
from cli.main import COMMANDS
from cli.main import modelyard as command_line
from config.schema import Settings

ROOT = Path(modelyard.__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CLI_PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADRS = sorted((ROOT / "docs" / "adr").glob("0*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'\b(?:src|srcset|href)="([^"#]+)"', text)
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / "demo").rglob("*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_no_page_was_left_with_a_gap(page: Path) -> None:
    assert re.findall(r"@[A-Z]+@|\bTODO\b|\bTBD\b|\bFIXME\b", page.read_text(encoding="utf-8")) == []


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command_line)
    for name in COMMANDS:
        command = command_line.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


def section_of(name: str) -> str:
    found = re.search(rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)", CLI_PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/reference/cli.md has no section `## {name}`"
    return found[1]


def test_every_command_and_option_is_in_the_reference() -> None:
    for name, command in commands():
        words = name.split()
        section = section_of(words[0])
        assert words[-1] in section
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert any(option in section for option in parameter.opts), f"{name} {parameter.opts}"


def test_every_exit_status_is_in_the_reference() -> None:
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", CLI_PAGE, re.MULTILINE)}
    assert documented == {status.value for status in Status}


def test_the_readmes_commands_exist() -> None:
    named = set(re.findall(r"modelyard ([a-z]+)", README)) & set(
        re.findall(r"`(?:modelyard )?([a-z]+)", README)
    )
    table = set(re.findall(r"^\| `modelyard ([a-z]+)", README, re.MULTILINE))
    assert table <= set(COMMANDS)
    assert {"serve", "chat", "models"} <= named | table


def test_the_readmes_configuration_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    settings = Settings.model_validate(yaml.safe_load(example))
    assert settings.default_model in settings.models


def test_the_readmes_questions_are_ones_the_demo_models_know() -> None:
    known = yaml.safe_load((ROOT / "demo" / "questions.yaml").read_text(encoding="utf-8"))["readme"]
    asked = re.findall(r'^>>> ([^/].*)$|"content": "([^"]+\?)"', README, re.MULTILINE)
    questions = [first or second for first, second in asked]
    assert len(questions) >= 3
    assert [question for question in questions if question not in known] == []


@pytest.mark.parametrize("page", ADRS, ids=lambda page: page.stem[:4])
def test_a_decision_says_why_what_was_given_up_and_when_to_reopen(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in ("**Context.**", "**Decision", "**What we gave up.**", "**Reopen when**"):
        assert part in text
    assert len(text.split()) < 600, "one page"


def test_every_decision_is_in_the_list() -> None:
    listed = re.findall(
        r"\((0[^)]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    )
    assert listed == [page.name for page in ADRS]


def test_the_makefile_explains_its_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    internal = {"engine-for-tests"}
    unexplained = [
        target
        for target in targets
        if target not in internal and not re.search(rf"^{target}:.*## ", text, re.MULTILINE)
    ]
    assert unexplained == []


@pytest.mark.parametrize("target", ["setup", "run", "test", "test-fast", "check", "lint", "type", "bench"])
def test_the_makefiles_promised_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
