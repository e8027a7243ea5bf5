"""docs/reference/errors.md has every code that can be answered, with its statuses, and no other.

Codes are found in the source: a refusal is made by `Refusal(status, code, …)`, by one of two helpers with a
status of their own, or from an exception's `code` and the table in `router.errors`. A refusal whose code
cannot be read off is a failing test, so that none is missed.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import modelyard
from router import errors

ROOT = Path(modelyard.__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "router").rglob("*.py"))

MADE_FROM_VALUES = {
    ("errors.py", "_refusal"): "the table, looked at by itself",
    ("seed.py", "_only_loaded"): "a code of that table",
    ("openai.py", "refusal_of"): "what an engine answered: its own status and code, else `engine_error`",
    ("app.py", "answer_errors"): "what aiohttp refuses: `bad_request` with a status of its own",
    ("refused.py", "bad_request"): "a helper",
    ("keys.py", "_unauthorized"): "a helper",
}
"""Places where status or code are variables, and why that hides none."""

NEVER_ANSWERED = {"already_running", "handed_over"}
"""Ends the process before there is anybody to answer; sends who waits to another process."""

Found = dict[str, set[str]]


def constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def calls(node: ast.AST, scope: str = "") -> Iterator[tuple[str, str, ast.Call]]:
    """(enclosing function, name that is called, call) for every call by a plain or dotted name."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name | ast.Attribute):
            name = child.func.id if isinstance(child.func, ast.Name) else child.func.attr
            yield inside, name, child
        yield from calls(child, inside)


def made_here(name: str, call: ast.Call) -> tuple[object, object] | None:
    """(status, code) of the refusal that *call* makes, None for what is a variable; None for no maker."""
    given = dict(zip(("status", "code"), call.args, strict=False))
    given |= {one.arg: one.value for one in call.keywords if one.arg is not None}
    if name == "Refusal":
        return constant(given.get("status")), constant(given.get("code"))
    if name == "bad_request":
        return 400, constant(given["code"]) if "code" in given else "bad_request"
    if name == "_unauthorized":
        return 401, constant(call.args[0])
    return None


def in_the_source() -> tuple[Found, set[tuple[str, str]]]:
    """Codes to statuses, and the places (file, function) where one of the two is a variable."""
    found: Found = defaultdict(set)
    unread = set()
    for path in SOURCES:
        for scope, name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            made = made_here(name, call)
            if made is None:
                continue
            status, code = made
            if isinstance(status, int) and isinstance(code, str):
                found[code].add(str(status))
            else:
                unread.add((path.name, scope))
    return found, unread


def in_the_table() -> Found:
    """What exceptions are answered with."""
    found: Found = defaultdict(set)
    for cls, row in errors.TABLE.items():
        found[str(getattr(cls, "code"))].add(str(row.status))  # noqa: B009  # no common base has it
    return found


def in_the_engines() -> set[str]:
    """Codes of what a start failed of."""
    folder = ROOT / "registry" / "engines"
    found = set()
    for path in sorted(folder.glob("*.py")):
        for _, name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name == "rule":
                found.add(str(constant(call.args[1])))
            elif name == "Diagnosis" and isinstance(constant(call.args[-1]), str):
                found.add(str(constant(call.args[-1])))
    return found


def rows(section: str) -> dict[str, list[str]]:
    """Code to the other cells of its row, in the table below the heading *section*."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", text, re.MULTILINE)
    assert len({code for code, _ in lines}) == len(lines), "a code stands there twice"
    return {code: cells.split(" | ") for code, cells in lines}


def answered() -> dict[str, list[str]]:
    return rows("The request") | rows("The key") | rows("The model and its engine") | rows("The daemon")


def test_every_refusal_can_be_read_off_the_source() -> None:
    assert in_the_source()[1] <= set(MADE_FROM_VALUES)


def test_every_code_is_in_the_reference_with_its_statuses_and_no_other_is() -> None:
    wanted = in_the_source()[0]
    for code, statuses in in_the_table().items():
        wanted[code] |= statuses
    wanted = {code: statuses for code, statuses in wanted.items() if code not in NEVER_ANSWERED}
    documented = {code: set(re.findall(r"\d{3}", cells[0])) for code, cells in answered().items()}
    documented.pop("engine_error")
    assert documented == wanted


def test_every_cause_of_a_failed_start_is_in_the_reference_and_no_other_is() -> None:
    assert set(rows("Why a start failed")) == in_the_engines()


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    for code, (_, meaning, remedy) in answered().items():
        assert len(meaning) > 10, code
        assert len(remedy) > 5, code


def test_the_makers_of_refusals_are_looked_for_under_the_names_they_have() -> None:
    found = in_the_source()[0]
    assert {"bad_request", "missing_api_key", "answer_cut", "cross_origin"} <= set(found)
    assert found["buffer_full"] == {"429", "503"}
    assert {"port_taken", "engine_failed", "needs_remote_code"} <= in_the_engines()
