"""Pages that are generated from code say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from config import reference
from config.generated import marks, refresh, replaced
from config.schema import ModelConfig, Section, Settings
from modelyard import outputs
from registry.capability import ENDPOINTS
from router.control import api_page, metrics_page
from router.control.exposition import FAMILIES
from router.control.openapi import document
from supervisor import lifecycle_diagram
from supervisor.lifecycle import TRANSITIONS, Command, Event, State, Step

BEGIN, END = marks("diagrams")


def test_the_committed_lifecycle_page_is_what_the_table_says() -> None:
    current = lifecycle_diagram.PAGE.read_text(encoding="utf-8")
    assert lifecycle_diagram.page_with(current) == current, "run `make diagrams`"


def test_the_committed_configuration_page_is_what_the_schema_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make reference`"


def test_the_committed_schemas_of_the_command_line_are_what_the_commands_print() -> None:
    assert outputs.PAGE.read_text(encoding="utf-8") == outputs.text(), "run `make reference`"


@pytest.mark.parametrize("module", [metrics_page, api_page], ids=lambda module: module.__name__)
def test_the_committed_tables_are_what_the_code_says(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(["--check"]) == 0, capsys.readouterr().err


def test_every_metric_is_on_the_page_with_all_its_labels() -> None:
    page = metrics_page.PAGE.read_text(encoding="utf-8")
    for family in metrics_page.families():
        name = family.name + "_total" * (family.type == "counter")
        (row,) = re.findall(rf"^\| `{name}` \| (.*)$", page, re.MULTILINE)
        assert f"{family.type} |" in row
        for label in {label for sample in family.samples for label in sample.labels} - {"le"}:
            assert f"`{label}`" in row
            assert f"| `{label}` | {metrics_page.LABELS[label]} |" in page
    assert len(metrics_page.families()) == len(FAMILIES)


def test_closed_labels_are_shown_with_every_value() -> None:
    page = metrics_page.tables()
    for value in ("`client_gone`", "`refused`", "`control`", "`backoff`", "`budget`", "`instance_ready`"):
        assert value in page


def test_every_path_is_in_the_reference_with_its_method() -> None:
    page = api_page.PAGE.read_text(encoding="utf-8")
    for path in ENDPOINTS:
        assert f"`{path}`" in page
    for path, verbs in document("")["paths"].items():
        for verb in verbs:
            assert f"| `{verb.upper()} {path}` |" in page


@pytest.mark.parametrize(
    ("path", "scope"),
    [("GET /health", "none"), ("GET /metrics", "any"), ("POST /api/models/{id}/load", "admin")],
)
def test_the_reference_says_which_key_a_path_takes(path: str, scope: str) -> None:
    assert f"| `{path}` | {scope} |" in api_page.tables()


def test_a_stale_page_is_found_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "docs" / "page.md"
    assert refresh(page, "new", ["--check"], source="the code", target="reference") == 1
    assert capsys.readouterr().err == "page.md is not what the code says: run `make reference`\n"
    assert not page.exists()
    assert refresh(page, "new", [], source="the code", target="reference") == 0
    assert page.read_text(encoding="utf-8") == "new"
    assert refresh(page, "new", ["--check"], source="the code", target="reference") == 0


def test_the_diagram_has_an_arrow_for_every_change_of_state_and_none_else() -> None:
    arrows = {
        tuple(line.split(":")[0].strip().split(" --> "))
        for line in lifecycle_diagram.diagram().splitlines()
        if "-->" in line and "[*]" not in line
    }
    changes = {
        (state.name, step.state.name)
        for state, row in TRANSITIONS.items()
        for step in row.values()
        if step.state is not state
    }
    assert arrows == changes


def test_the_rows_are_one_per_legal_event() -> None:
    assert len(lifecycle_diagram.rows().splitlines()) == 2 + sum(len(row) for row in TRANSITIONS.values())


def test_a_changed_table_changes_the_page() -> None:
    table = {State.STOPPED: {Event.WANTED: Step(State.READY, (Command.SPAWN,))}}
    page = lifecycle_diagram.page_with(f"a\n{BEGIN}\nold\n{END}\nb\n", table)
    assert "    STOPPED --> READY: wanted\n" in page
    assert "| STOPPED | `wanted` | READY | `spawn` |" in page
    assert "old" not in page
    assert page.startswith("a\n")
    assert page.endswith("\nb\n")


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}"])
def test_a_page_without_its_marks_is_refused_and_not_overwritten(page: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        replaced(page, "part", "diagrams")


def test_every_key_of_every_section_is_on_the_page() -> None:
    page = reference.page()
    paths = dict(reference.sections())
    assert paths[""] is Settings
    assert paths["models.<name>"] is ModelConfig
    for section in paths.values():
        for key in section.model_fields:
            assert f"| `{key}` |" in page, f"{section.__name__}.{key}"


@pytest.mark.parametrize(
    ("section", "key", "kind", "default"),
    [
        (Settings, "ttl", "duration", "`10m`"),
        (Settings, "listen", "text or list of text", "`127.0.0.1:8080`"),
        (Settings, "default_model", "text", "unset"),
        (ModelConfig, "memory", "size, or device to size", "unset"),
        (ModelConfig, "args", "list of text", "none"),
        (ModelConfig, "pin", "true or false", "`false`"),
        (ModelConfig, "cmd", "text or list of text", "unset"),
    ],
)
def test_types_and_defaults_are_in_an_operators_words(
    section: type[Section], key: str, kind: str, default: str
) -> None:
    field = section.model_fields[key]
    assert (reference.type_name(field), reference.default_of(field)) == (kind, default)


def test_every_key_has_a_meaning() -> None:
    silent = [
        f"{path}.{key}".lstrip(".")
        for path, section in reference.sections()
        for key, field in section.model_fields.items()
        if not field.description and reference.default_of(field) != "see below"
    ]
    assert silent == []
