"""A YAML file that people write: plain values, and the line of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from chexseg.errors import UserError


@dataclass(frozen=True)
class Document:
    """content: what the file says. lines: dotted key -> line; an entry of a list has its number for a key."""

    where: str
    content: Any
    lines: Mapping[str, int]

    def place(self, key: str) -> str:
        """``file:line`` of a dotted key, or of the innermost thing around it that has a line."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.where}:{self.lines[key]}" if key else self.where


def read(text: str, where: str) -> Document:
    """Raises `UserError`, with file and line, for what is no YAML, for a key that stands twice or is no text, and for an alias
    within what it stands for; YAML itself would pass over the second of two equal keys in silence."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = _lines(root, where, "", ())
        return Document(where, yaml.safe_load(text), lines)
    except RecursionError:
        raise UserError(f"{where}: found lists or mappings hundreds deep; allowed: what people write") from None
    except yaml.YAMLError as error:
        mark, fault = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error).splitlines()[0]
        if "'\\t'" in fault:
            fault = "found a tab; allowed: spaces before keys"
        line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
        raise UserError(f"{where}:{line}: not YAML ({fault})") from None


def _lines(node: yaml.Node | None, where: str, prefix: str, around: tuple[yaml.Node, ...]) -> dict[str, int]:
    out: dict[str, int] = {}
    if node in around:
        raise UserError(f"{where}:{node.start_mark.line + 1}: found an alias within what it stands for; allowed: none there")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                found = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                inside = f" {prefix[:-1]}:" if prefix else ""
                raise UserError(f"{where}:{line}:{inside} found {found} as a key; allowed: text")
            name = f"{prefix}{key.value}"
            inner = {name: line, **_lines(value, where, f"{name}.", (*around, node))}
            for twice in (name for name in inner if name in out):  # one of the two may be dotted, the other nested
                raise UserError(f"{where}:{inner[twice]}: {twice}: stands twice (before in line {out[twice]})")
            out |= inner
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out[f"{prefix}{number}"] = value.start_mark.line + 1
            out |= _lines(value, where, f"{prefix}{number}.", (*around, node))
    return out
