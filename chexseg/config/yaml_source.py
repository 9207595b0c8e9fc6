"""Read a YAML file into plain values, and remember the line of every key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from chexseg.errors import UserError, reason

#: Values that all aliases of a file may expand to; the shipped studies need dozens.
MOST_ALIASED = 10_000
#: Characters of all values and dotted keys of a file, with every alias expanded.
MOST_TEXT = 10_000_000
#: Characters of a key: it is in messages.
LONGEST_KEY = 1000
#: Digits of a whole number. A float overflows from 309 digits on.
MOST_DIGITS = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Numbers that YAML 1.1 doesn't read as decimal: 010 is 8, and 1:30 is 90.
_OLD_NOTATION = re.compile(r"[-+]?0[0-7_]+$|.*:")


@dataclass(frozen=True)
class Document:
    """A parsed YAML file. lines: dotted key -> line; a list entry's key is its index."""

    where: str
    content: Any
    lines: Mapping[str, int]

    def location(self, key: str) -> str:
        """Return ``file:line`` of a dotted key, or of the innermost key around it with a line."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.where}:{self.lines[key]}" if key else self.where


@dataclass(frozen=True)
class Source:
    """File of a study. overrides: dotted settings and others of ``--set``."""

    document: Document
    overrides: Mapping[str, Any]


def read(text: str, where: str) -> Document:
    """Parse YAML into plain values.

    Raises `UserError`, with file and line, for invalid YAML, duplicate keys, keys that are not
    text, lone surrogates, octal and sexagesimal numbers, recursive aliases, and aliases that expand
    to more than `MOST_ALIASED` values or `MOST_TEXT` characters. PyYAML itself silently accepts
    duplicate keys, and expands ten lines of aliases to a billion values.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_nodes(root, where)
        lines = _lines(root, where, "")
        return Document(where, yaml.safe_load(text), lines)
    except RecursionError:
        raise UserError(
            f"{where}: found lists or mappings nested hundreds deep; expected: fewer levels"
        ) from None
    # PyYAML's constructors raise these, for example for a date in month 13 or for `!!int x`.
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
            fault = "found a tab; expected: spaces before keys"
        line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
        raise UserError(f"{where}:{line}: not YAML ({fault})") from None


def _check_nodes(root: yaml.Node, where: str) -> None:
    """Raise `UserError` for bad aliases, too long numbers, and text that UTF-8 can't encode."""
    # Node -> number of values in it, itself included, with every alias expanded, and characters of
    # their text and dotted keys. The keys begin at the node.
    values: dict[yaml.Node, int] = {}
    characters: dict[yaml.Node, int] = {}

    def count(node: yaml.Node, ancestors: tuple[yaml.Node, ...]) -> int:
        location = f"{where}:{node.start_mark.line + 1}"
        if node in ancestors:
            raise UserError(f"{location}: found an alias of a value that contains it")
        if node in values:
            return values[node]
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, location)
            values[node], characters[node] = 1, len(node.value)
            return 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        values[node] = 1 + sum(count(part, (*ancestors, node)) for part in parts)
        # Without aliases, there are as many values as nodes.
        if values[node] > len(values) + MOST_ALIASED:
            raise UserError(
                f"{location}: found aliases that expand to more than {MOST_ALIASED:,} values;"
                " expected: fewer"
            )
        characters[node] = sum(characters[part] for part in parts)
        if isinstance(node, yaml.MappingNode):
            # A key is part of the dotted key of each value below it.
            characters[node] += sum(characters[key] * values[value] for key, value in node.value)
        if characters[node] > MOST_TEXT:
            raise UserError(
                f"{location}: found more than {MOST_TEXT:,} characters of keys and values, with"
                " aliases expanded; expected: fewer"
            )
        return values[node]

    count(root, ())


def _check_scalar(node: yaml.ScalarNode, location: str) -> None:
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
        raise UserError(
            f"{location}: found a number of {len(node.value)} digits;"
            f" expected: at most {MOST_DIGITS}"
        )
    if node.tag in _NUMBERS and _OLD_NOTATION.match(node.value):
        raise UserError(
            f"{location}: found {node.value}, an octal or sexagesimal number in YAML;"
            " expected: a decimal number, without a leading 0 or a colon"
        )
    # YAML escapes can spell half a surrogate pair, which no file of a report could contain.
    if surrogate := _SURROGATE.search(node.value):
        raise UserError(
            f"{location}: found the lone surrogate \\u{ord(surrogate[0]):x};"
            " expected: the character itself"
        )


def _lines(node: yaml.Node | None, where: str, prefix: str) -> dict[str, int]:
    """Return dotted key -> line. Raises `UserError` for duplicate, long and unprintable keys."""
    out: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                inside = f" {prefix[:-1]}:" if prefix else ""
                raise UserError(f"{where}:{line}:{inside} found {shown} as a key; expected: text")
            if len(key.value) > LONGEST_KEY:
                raise UserError(
                    f"{where}:{line}: found a key of {len(key.value):,} characters;"
                    f" expected: at most {LONGEST_KEY:,}"
                )
            if not key.value.isprintable():
                raise UserError(
                    f"{where}:{line}: found the key {key.value!r}; expected: printable characters"
                )
            name = f"{prefix}{key.value}"
            inner = {name: line, **_lines(value, where, f"{name}.")}
            # One of two equal keys may be dotted and the other nested.
            for duplicate in (name for name in inner if name in out):
                raise UserError(
                    f"{where}:{inner[duplicate]}: {duplicate}: duplicate key"
                    f" (first in line {out[duplicate]})"
                )
            out |= inner
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out[f"{prefix}{number}"] = value.start_mark.line + 1
            out |= _lines(value, where, f"{prefix}{number}.")
    return out
