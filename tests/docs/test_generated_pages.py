"""Pages that are generated from code say what the code says."""

from __future__ import annotations

import pytest

from config import reference
from config.schema import ModelConfig, Section, Settings
from modelyard import outputs
from supervisor import lifecycle_diagram
from supervisor.lifecycle import TRANSITIONS, Command, Event, State, Step


def test_the_committed_lifecycle_page_is_what_the_table_says() -> None:
    current = lifecycle_diagram.PAGE.read_text(encoding="utf-8")
    assert lifecycle_diagram.page_with(current) == current, "run `make diagrams`"


def test_the_committed_configuration_page_is_what_the_schema_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make reference`"


def test_the_committed_schemas_of_the_command_line_are_what_the_commands_print() -> None:
    assert outputs.PAGE.read_text(encoding="utf-8") == outputs.text(), "run `make reference`"


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
    page = lifecycle_diagram.page_with(
        f"a\n{lifecycle_diagram.BEGIN}\nold\n{lifecycle_diagram.END}\nb\n", table
    )
    assert "    STOPPED --> READY: wanted\n" in page
    assert "| STOPPED | `wanted` | READY | `spawn` |" in page
    assert "old" not in page
    assert page.startswith("a\n")
    assert page.endswith("\nb\n")


@pytest.mark.parametrize(
    "page", ["", lifecycle_diagram.BEGIN, f"{lifecycle_diagram.END}{lifecycle_diagram.BEGIN}"]
)
def test_a_page_without_its_marks_is_refused_and_not_overwritten(page: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        lifecycle_diagram.page_with(page)


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
        (Settings, "listen", "text", "`127.0.0.1:8080`"),
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
