"""YAML text to plain values that remember their lines. Pure.

Stricter and plainer than PyYAML's own loader: duplicate keys are refused, aliases are expanded only up to a
bound, and scalars follow YAML 1.2's core schema, so that `off` is a word and `1:30` is not ninety. Numbers
with a point stay text: every setting that takes one reads it from text, and `1.10` in an argument must
reach the engine as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_NODES = 50_000
"""After expansion of aliases: 100 times the largest real file, and far below what an alias bomb makes."""
MAX_DEPTH = 50

Path = tuple[str | int, ...]

_NULL, _BOOL, _INT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "merge"))
_STR, _SEQ, _MAP = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's resolution of plain scalars, and an end to nesting."""

    depth = 0
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own shape

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A node with all that is in it, each of which is made here as well. Raises DocumentError."""
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:  # the document itself is the first
            raise _too_deep(self.peek_event().start_mark.line + 1)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    (_NULL, r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (_MERGE, r"<<$", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


class DocumentError(Exception):
    """The text is no YAML that we take; `line` is 1-based."""

    def __init__(self, what: str, line: int | None = None, key: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.key = key


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain values, and the line of every key and item."""

    value: Any
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int | None:
        """Line of *path*, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse(text: str) -> Document:
    """The document in *text*; an empty one has the value None. Raises DocumentError."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ": ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"not valid YAML: {what}", mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(
            f"not valid YAML: character #x{error.character:04x} is not allowed", line
        ) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {error}") from None
    if node is None:
        return Document(None, {})
    builder = _Builder()
    value = builder.build(node, ())
    return Document(value, builder.lines)


def _too_deep(line: int) -> DocumentError:
    return DocumentError(f"nested deeper than {MAX_DEPTH} levels", line)


class _Builder:
    """Turns composed nodes into values, counting what aliases multiply."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._left = MAX_NODES

    def build(self, node: Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._left -= 1
        if self._left < 0:
            raise DocumentError(f"more than {MAX_NODES} values once aliases are expanded", line)
        if len(path) > MAX_DEPTH:
            raise _too_deep(line)
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if node.tag not in (_SEQ, _MAP):
            raise _unknown_tag(node)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)  # compose knows no fourth kind
        return self._mapping(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[MappingNode] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged.extend(_merge_sources(value_node, line))
                continue
            key = self._key(key_node, line)
            if key in result:
                raise DocumentError(
                    f"this key is already on line {self.lines[(*path, key)]}; keep one of them",
                    line,
                    dotted((*path, key)),
                )
            self.lines[*path, key] = line
            result[key] = self.build(value_node, (*path, key))
        for source in merged:
            for key, value in self._mapping(source, path).items():
                result.setdefault(key, value)
        return result

    def _key(self, node: Node, line: int) -> str:
        if not isinstance(node, ScalarNode):
            raise DocumentError("a key must be a word, not a list or a mapping", line)
        return str(node.value)


def _merge_sources(node: Node, line: int) -> Iterator[MappingNode]:
    for source in node.value if isinstance(node, SequenceNode) else (node,):
        if not isinstance(source, MappingNode):
            raise DocumentError("<< takes a mapping, for example <<: *defaults", line)
        yield source


def _scalar(node: ScalarNode) -> str | int | bool | None:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        # int() itself is bounded (4300 digits); nobody means a number that long.
        return int(text) if len(text) <= 30 else text
    if node.tag == _STR:
        return text
    raise _unknown_tag(node)


def _unknown_tag(node: Node) -> DocumentError:
    return DocumentError(f"the tag {node.tag} is not taken here", node.start_mark.line + 1)


def dotted(path: Path) -> str:
    """`models.qwen.args[2]` for ("models", "qwen", "args", 2); keys that hold dots are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = f'"{part}"' if "." in part or part == "" else part
            text += f".{word}" if text else word
    return text
