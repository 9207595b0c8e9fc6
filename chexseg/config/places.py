"""Say where a study file gives a setting: with this name and line a mistake is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config import search_space
from chexseg.config.error_messages import error_location
from chexseg.config.settings import Settings, flat
from chexseg.config.study import Study
from chexseg.config.yaml_source import Document


@dataclass(frozen=True)
class Entry:
    """A dotted setting or section of a point, and its value.

    label: its name in error lines. position: its dotted key in the file.
    """

    key: str
    value: Any
    label: str
    position: str

    @property
    def settings(self) -> dict[str, Any]:
        return flat(self.key, self.value)

    def begin(self, name: str, document: Document) -> str:
        """Return the start of an error line about this entry, or about a setting within it."""
        inside = name.removeprefix(self.key) if name.startswith(f"{self.key}.") else ""
        return f"{document.location(self.position + inside)}: {self.label}" + (
            f": {name}" if name != self.key else ""
        )


def axis_entries(key: str, values: Any) -> list[Entry]:
    """Return the entries of an axis; of a range, both ends."""
    return [
        Entry(key, value, f"axes.{key}", f"axes.{key}.{number}")
        for number, value in enumerate(search_space.ends(values))
    ]


def also_entries(number: int, point: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of a further cell."""
    return [Entry(key, value, *2 * [f"also.{number}.{key}"]) for key, value in point.items()]


def place(study: Study, settings: Settings, setting: str) -> str:
    """Return the start of an error line about a setting or a section of one cell of a study.

    It names file and line of the value in axes, also or settings, or the ``--set`` that gives it.
    A value that is given nowhere has the line of its section, and is called the default.
    """
    if study.source is None:
        return setting
    document, overrides = study.source.document, study.source.overrides
    if setting.partition(".")[0] not in Settings.model_fields:  # resources or execution
        return error_location(document, overrides, setting)
    for entry in _entries(study):
        names = [
            name for name in entry.settings if _within(name, setting) or _within(setting, name)
        ]
        if names:
            given = study.at({entry.key: entry.value})
            if all(attrgetter(name)(given) == attrgetter(name)(settings) for name in names):
                inside = _within(setting, entry.key)
                return entry.begin(setting if inside else entry.key, document)
    for key, values in study.axes.items():
        if isinstance(values, search_space.Range) and _within(key, setting):
            return f"{document.location(f'axes.{key}')}: axes.{key}"
    key = f"settings.{setting}"
    begin = error_location(document, overrides, key)
    if begin.startswith("--set ") or any(_within(line, key) for line in document.lines):
        return begin
    return f"{begin} (default)"


def _entries(study: Study) -> list[Entry]:
    axes = [entry for key, values in study.axes.items() for entry in axis_entries(key, values)]
    also = [
        entry for number, point in enumerate(study.also) for entry in also_entries(number, point)
    ]
    return axes + also


def _within(name: str, section: str) -> bool:
    """Return whether a dotted name is a section's, or one in it."""
    return f"{name}.".startswith(f"{section}.")
