"""The shape of the repository: what a reviewer would otherwise have to look for."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

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


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 50


def test_tests_are_no_packages() -> None:
    # tests/supervisor/__init__.py would hide our `supervisor` from the tests below it.
    assert [name(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_no_file_is_too_long_to_read() -> None:
    sizes = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in sizes.items() if lines > MOST_LINES} == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [name(path) for path in SOURCES if VAGUE & set(path.stem.split("_"))] == []


def test_no_class_has_a_name_that_says_nothing() -> None:
    found = [
        f"{name(path)}: {node.name}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Util", "Utils"))
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_no_module_is_named_like_the_installed_package() -> None:
    # `from modelyard.…` inside our packages would be a second name for the same thing, broken in a wheel.
    found = [
        name(path)
        for path in MODULES
        if path.relative_to(ROOT).parts[0] != "modelyard"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelyard.")
    ]
    assert found == []
