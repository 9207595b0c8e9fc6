"""Describe every setting of a study file, from the code: its type, bounds, default and meaning.

`chexseg study settings` and docs/reference/settings.md show it.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chexseg.config.search_space import Range, Search
from chexseg.config.settings import Settings, is_section
from chexseg.config.study import Execution, Resources, StudyFile
from chexseg.stages import configs

#: Section of `Settings` -> the stage's config that its fields and their comments come from.
STAGE_OF: dict[str, type[BaseModel]] = {
    "ingest": configs.IngestConfig,
    "classify": configs.ClassifyConfig,
    "pretrain": configs.PretrainConfig,
    "moco": configs.MoCoConfig,
    "saliency": configs.SaliencyConfig,
    "irnet": configs.IRNetConfig,
    "fit": configs.FitConfig,
}
#: Section without a stage -> its sentence.
SENTENCES = {
    "encoder": "The segmenter's encoder and its initial weights.",
    "labels": "Expert and weak labels of the training images.",
    "labels.expert_split": "Split of the validation images that have expert masks.",
    "distil": "Distillation of a student from a fully supervised teacher.",
    "score": "Counting of pixels on the test images.",
}
#: Attribute of a pydantic constraint -> its words.
BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "multiple of",
    "pattern": "pattern",
}
TYPES = {str: "text", int: "integer", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Entry:
    """One setting. facts: its type and bounds. default: as in a study file; None if required."""

    name: str
    facts: tuple[str, ...]
    default: str | None
    meaning: str

    @property
    def title(self) -> str:
        """Return type, bounds and default as one line, with code in backticks."""
        default = "required" if self.default is None else f"default {self.default}"
        return f"{', '.join(self.facts)}; {default}."


@dataclass(frozen=True)
class Section:
    """Settings that belong together. name: their common prefix, empty for a study file's keys."""

    name: str
    sentence: str
    entries: tuple[Entry, ...]


def study_sections() -> Iterator[Section]:
    """Yield the parts of a study file: its keys, `resources`, `execution`, `search`, a range."""
    yield Section("", "Keys of a study file", _entries(StudyFile))
    yield Section("resources", "Resources", _entries(Resources, prefix="resources."))
    yield Section("execution", "Execution", _entries(Execution, prefix="execution."))
    yield Section("search", first_line(Search), _entries(Search, prefix="search."))
    yield Section("", "A range of an axis:", _entries(Range))


def settings_sections() -> Iterator[Section]:
    """Yield the settings of a cell, section by section, the ones without a section first."""
    yield Section("", "Settings of a cell", _entries(Settings))
    for name, section in _sections(Settings):
        source = STAGE_OF.get(name, section)
        sentence = SENTENCES[name] if name in SENTENCES else first_line(source)
        yield Section(name, sentence, _entries(section, _comments(source), f"{name}."))


def first_line(item: object) -> str:
    """Return the first sentence of a docstring, from its first line."""
    return (inspect.getdoc(item) or "").splitlines()[0].replace("``", "`")


def words(annotation: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in arguments)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "mapping"
    return "null" if annotation is type(None) else TYPES[annotation]


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (dotted name, class) of every section below a model."""
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            assert field.annotation is not None
            yield prefix + name, field.annotation
            yield from _sections(field.annotation, f"{prefix}{name}.")


def _entries(
    model: type[BaseModel], meanings: dict[str, str] | None = None, prefix: str = ""
) -> tuple[Entry, ...]:
    """Return the fields of a model that are not sections.

    Raises KeyError for a field without a comment.
    """
    meanings = _comments(model) if meanings is None else meanings
    return tuple(
        Entry(
            prefix + name,
            (words(field.annotation), *_bounds(field)),
            None if field.is_required() else _as_yaml(field.default),
            meanings[name],
        )
        for name, field in model.model_fields.items()
        if not is_section(field.annotation) and Search not in typing.get_args(field.annotation)
    )


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return field -> text of the ``#:`` comment above it, in a class and its base classes."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        block: list[str] = []
        for line in inspect.getsource(cls).splitlines():
            if comment := re.match(r" {4}#: ?(.*)", line):
                block.append(comment[1])
            elif (field := re.match(r" {4}(\w+): ", line)) and block:
                texts[field[1]] = " ".join(block)
                block = []
            else:
                block = []
    return texts


def _bounds(field: FieldInfo) -> list[str]:
    """Return the bounds of a field in words, as far as its type has some."""
    return [
        f"{text} {value if name != 'pattern' else f'`{value}`'}"
        for constraint in field.metadata
        for name, text in BOUNDS.items()
        if (value := getattr(constraint, name, None)) is not None
    ]


def _as_yaml(value: Any) -> str:
    """Return a default as it is written in a study file."""
    if isinstance(value, float) and not 1e-3 <= abs(value) < 1e6 and value:
        return f"`{value:.1e}`".replace("e-0", "e-")
    if value == "":
        return "empty"
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    return f"`{text}`"
