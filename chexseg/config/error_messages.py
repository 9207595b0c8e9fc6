"""Mistakes in a study file, each as one line: where, what was found, what is expected, the nearest correct name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from chexseg.config import search_space
from chexseg.config.settings import Section, Settings, setting_names
from chexseg.config.yaml_source import Document
from chexseg.errors import nearest

#: pydantic's types of faults -> what it takes instead, with the fault's own context to be filled in.
ALLOWED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "lower-case letters, digits, '.', '_' and '-', of these a letter or digit first",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}


def format_validation_error(
    error: ValidationError, error_location: Callable[[str], str], model: type[Section]
) -> str:
    """The first fault of a model as one line; a key that isn't known first, for it may be what another one misses.

    subject: dotted key -> how the line begins, which names the key.
    """
    faults = error.errors()
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    kind, steps = fault["type"], [str(part) for part in fault["loc"]]
    begin = error_location(".".join(steps))
    if kind == "missing":
        return (
            f"{begin}: is missing; allowed: {'a number' if model is search_space.Range else 'text'}"
        )
    if kind == "extra_forbidden":
        inner: Any = model
        for part in steps[:-1]:
            annotation = inner.model_fields[part].annotation
            inner = next(
                (kind for kind in get_args(annotation) if kind is not type(None)), annotation
            )
        allowed = list(inner.model_fields)
        return f"{begin}: no such key{_nearest_key(steps[-1], allowed, inner)}; allowed: {', '.join(allowed)}"
    message = fault["msg"].removeprefix("Value error, ")
    hint = ""
    if kind in ALLOWED:
        message = f"allowed: {ALLOWED[kind].format(**fault.get('ctx', {}))}"
    if kind == "literal_error":
        hint = nearest(fault["input"], re.findall(r"'([^']+)'", fault["ctx"]["expected"]))
    return f"{begin}: found {shown(fault['input'])}{hint}; {message[:1].lower() + message[1:]}"


def _nearest_key(key: str, allowed: list[str], model: type[Section]) -> str:
    if (
        model is Settings and key in setting_names()
    ):  # right for an axis, but here sections are nested
        *sections, last = key.split(".")
        return (
            f" (did you mean {': {'.join(sections)}: {{{last}: ...}}{'}' * (len(sections) - 1)}?)"
        )
    return nearest(key, allowed)


def shown(value: Any) -> str:
    """A value as a reader of YAML knows it, cut where it is long."""
    plain = {None: "nothing", True: "true", False: "false"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 120 else f"{text[:120]} ..."


def error_location(document: Document, dotted_overrides: Mapping[str, Any], key: str) -> str:
    """How a line about a dotted key of the file begins: with the ``--set`` that is to blame, else with the file's line."""
    setting = key.removeprefix("settings.")
    if setting != key or key.startswith("resources."):
        for name in dotted_overrides:
            if f"{setting}.".startswith(f"{name}."):
                return f"--set {name}"
            if name.startswith(f"{setting}."):
                return f"--set {name}: {setting}"
    return f"{document.place(key)}: {key}"
