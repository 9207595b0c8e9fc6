"""Write pydantic's errors as one line: file, line, key, value, expected value, nearest name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from chexseg.config import search_space
from chexseg.config.settings import Section, Settings, setting_names
from chexseg.config.yaml_source import Document
from chexseg.errors import nearest

#: Type of pydantic's error -> the expected value; fields are filled from the error's context.
EXPECTED = {
    "int_type": "expected: a whole number",
    "int_parsing": "expected: a whole number",
    "int_from_float": "expected: a whole number",
    "float_type": "expected: a number",
    "float_parsing": "expected: a number",
    "finite_number": "expected: a finite number",
    "bool_type": "expected: true or false",
    "bool_parsing": "expected: true or false",
    "string_type": "expected: text",
    "string_pattern_mismatch": "expected: a lower-case letter or digit, then lower-case letters,"
    " digits, '.', '_' and '-'",
    "string_too_long": "expected: at most {max_length} characters",
    "dict_type": "expected: a mapping",
    "model_type": "expected: a mapping",
    "tuple_type": "expected: a list",
    "greater_than": "expected: above {gt:g}",
    "greater_than_equal": "expected: at least {ge:g}",
    "less_than": "expected: below {lt:g}",
    "less_than_equal": "expected: at most {le:g}",
    "multiple_of": "expected: a multiple of {multiple_of:g}",
    "literal_error": "allowed: {expected}",
}


def format_validation_error(
    error: ValidationError, error_location: Callable[[str], str], model: type[Section]
) -> str:
    """Return the first fault of a validation error as one line.

    An unknown key comes before other faults, because it may be a misspelt required key.
    error_location: dotted key -> start of the line, which names the key.
    """
    faults = error.errors()
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    kind, steps = fault["type"], [str(part) for part in fault["loc"]]
    begin = error_location(".".join(steps))
    if kind == "missing":
        expected = "a number" if model is search_space.Range else "text"
        return f"{begin}: is missing; expected: {expected}"
    if kind == "extra_forbidden":
        inner: Any = model
        for part in steps[:-1]:
            annotation = inner.model_fields[part].annotation
            inner = next(
                (kind for kind in get_args(annotation) if kind is not type(None)), annotation
            )
        allowed = list(inner.model_fields)
        hint = _nearest_key(steps[-1], allowed, inner)
        return f"{begin}: no such key{hint}; allowed: {', '.join(allowed)}"
    message = fault["msg"].removeprefix("Value error, ")
    hint = ""
    if kind in EXPECTED:
        message = EXPECTED[kind].format(**fault.get("ctx", {}))
    if kind == "literal_error":
        hint = nearest(fault["input"], re.findall(r"'([^']+)'", fault["ctx"]["expected"]))
    return f"{begin}: found {shown(fault['input'])}{hint}; {message[:1].lower() + message[1:]}"


def _nearest_key(key: str, allowed: list[str], model: type[Section]) -> str:
    if model is Settings:
        # A dotted setting is right as an axis, but in `settings` sections are nested.
        names = [name for name in setting_names() if name == key or name.endswith(f".{key}")]
        if names:
            return f" (did you mean {_alternatives([_nested(name) for name in names])}?)"
    return nearest(key, allowed)


def _nested(name: str) -> str:
    """Return a dotted setting as it is written in `settings`."""
    *sections, last = name.split(".")
    return f"{': {'.join(sections)}: {{{last}: ...}}{'}' * (len(sections) - 1)}"


def _alternatives(texts: Sequence[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last


def nearest_settings(key: str) -> str:
    """Return `` (did you mean 'x' or 'y'?)`` for a dotted key that is no setting, or "".

    If its last part is a setting of several sections, all are named, because the nearest name may
    be of another stage: ``architecture`` alone is nearest to IRNet's.
    """
    section, _, last = key.rpartition(".")
    same = [name for name in setting_names() if name.rpartition(".")[2] == last]
    sections = [name.rpartition(".")[0] for name in same]
    misspelt = section not in Settings.model_fields and nearest(section, sections)
    if not same or misspelt:
        return nearest(key, same if misspelt else setting_names())
    return f" (did you mean {_alternatives([repr(name) for name in same])}?)"


def shown(value: Any) -> str:
    """Return a value as in YAML, cut to 120 characters."""
    plain = {None: "nothing", True: "true", False: "false"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 120 else f"{text[:120]} ..."


def error_location(document: Document, dotted_overrides: Mapping[str, Any], key: str) -> str:
    """Return the start of an error line about a dotted key of a study file.

    It names the ``--set`` that caused the error, if one did, or else the line of the file.
    """
    setting = key.removeprefix("settings.")
    if setting != key or key.startswith(("resources.", "execution.")):
        for name in dotted_overrides:
            if f"{setting}.".startswith(f"{name}."):
                return f"--set {name}"
            if name.startswith(f"{setting}."):
                return f"--set {name}: {setting}"
    return f"{document.location(key)}: {key}"
