"""The shape of the repository: what a reviewer would otherwise have to look for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import modelyard

ROOT = Path(modelyard.__file__).parent.parent
PRODUCT = ("modelyard", "router", "supervisor", "registry", "config", "cli")
FOLDERS = (*PRODUCT, "tests", "demo", "bench")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PRODUCT]

MOST_LINES = 500
VAGUE = {"util", "utils", "helper", "helpers", "common", "core", "manager", "managers", "misc"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 50


def test_tests_are_no_packages() -> None:
    # tests/supervisor/__init__.py would hide our `supervisor` from the tests below it.
    assert [name(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [name(path) for path in SOURCES if VAGUE & set(path.stem.split("_"))] == []


def test_no_class_has_a_name_that_says_nothing() -> None:
    found = [
        f"{name(path)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Util", "Utils"))
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_module_is_named_like_the_installed_package() -> None:
    # `from modelyard.…` inside our packages would be a second name for the same thing, broken in a wheel.
    found = [
        name(path)
        for path in MODULES
        if path.relative_to(ROOT).parts[0] != "modelyard"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelyard.")
    ]
    assert found == []
