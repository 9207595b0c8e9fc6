"""A YAML file that people write: plain values, and the line of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from chexseg.errors import UserError, reason

#: Values that all aliases of a file may stand for together; those of the shipped studies stand for dozens.
MOST_ALIASED = 10_000
#: Digits of a whole number: one of 309 can't become a float.
MOST_DIGITS = 100


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
    """Parse YAML into plain values.

    Raises `UserError`, with file and line, for what is no YAML, for a key that stands twice or is no text, and for aliases
    within what they stand for, or that stand for more than `MOST_ALIASED` values. YAML itself would pass over the second of
    two equal keys in silence, and ten lines of aliases can stand for a billion values.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_nodes(root, where)
        lines = _lines(root, where, "")
        return Document(where, yaml.safe_load(text), lines)
    except RecursionError:
        raise UserError(
            f"{where}: found lists or mappings hundreds deep; allowed: what people write"
        ) from None
    # What PyYAML's constructors raise for a date of month 13, or for `!!int x`.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: not YAML ({reason(error)})") from None
    except yaml.YAMLError as error:
        mark, fault = (
            getattr(error, "problem_mark", None),
            getattr(error, "problem", None) or str(error).splitlines()[0],
        )
        if "'\\t'" in fault:
            fault = "found a tab; allowed: spaces before keys"
        line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
        raise UserError(f"{where}:{line}: not YAML ({fault})") from None


def _check_nodes(root: yaml.Node, where: str) -> None:
    """Raise `UserError` for an alias within what it stands for, for aliases of too many values, and for too long a number."""
    values: dict[
        yaml.Node, int
    ] = {}  # those a node stands for, itself included, when every alias is written out

    def count(node: yaml.Node, around: tuple[yaml.Node, ...]) -> int:
        line = node.start_mark.line + 1
        if node in around:
            raise UserError(
                f"{where}:{line}: found an alias within what it stands for; allowed: none there"
            )
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            raise UserError(
                f"{where}:{line}: found a number of {len(node.value)} digits; expected: at most {MOST_DIGITS}"
            )
        if node not in values:
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            values[node] = 1 + sum(count(part, (*around, node)) for part in parts)
        # Without aliases, there are as many values as nodes.
        if values[node] > len(values) + MOST_ALIASED:
            raise UserError(
                f"{where}:{line}: found aliases that stand for more than {MOST_ALIASED:,} values; expected: fewer"
            )
        return values[node]

    count(root, ())


def _lines(node: yaml.Node | None, where: str, prefix: str) -> dict[str, int]:
    out: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                found = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                inside = f" {prefix[:-1]}:" if prefix else ""
                raise UserError(f"{where}:{line}:{inside} found {found} as a key; allowed: text")
            name = f"{prefix}{key.value}"
            inner = {name: line, **_lines(value, where, f"{name}.")}
            for twice in (
                name for name in inner if name in out
            ):  # one of the two may be dotted, the other nested
                raise UserError(
                    f"{where}:{inner[twice]}: {twice}: stands twice (before in line {out[twice]})"
                )
            out |= inner
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out[f"{prefix}{number}"] = value.start_mark.line + 1
            out |= _lines(value, where, f"{prefix}{number}.")
    return out
