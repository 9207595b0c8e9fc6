"""A study file's mistakes, each said in one line: where, what was found, what is allowed, the nearest right name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from chexseg.config import search_space
from chexseg.config.error_messages import error_location, format_validation_error, shown
from chexseg.config.settings import Settings, flat, is_section, merged, setting_names
from chexseg.config.study import Study
from chexseg.config.yaml_source import Document
from chexseg.errors import UserError, nearest

#: Combinations of the axes' values; a hundred times the largest grid that has been planned.
MOST_COMBINATIONS = 1_000_000


def ranges(document: Document) -> dict[str, Any]:
    """The file's axes, if it has any, with every mapping read as a range."""
    axes = document.content.get("axes")
    if not isinstance(axes, dict):
        return {}
    out = dict(axes)
    for key, values in axes.items():
        if isinstance(values, dict):
            try:
                out[key] = search_space.Range.model_validate(values)
            except ValidationError as error:
                raise UserError(
                    format_validation_error(
                        error, partial(_in_axis, document, key), search_space.Range
                    )
                ) from None
    return {"axes": out}


def _in_axis(document: Document, axis: str, key: str) -> str:
    """`error_location` of what a range says."""
    return error_location(document, {}, f"axes.{axis}.{key}")


def check_key(key: str, begin: str, beside: Sequence[str] = ()) -> None:
    """Raises `UserError` for a dotted key that is neither a setting nor a section of them. beside: what else is
    allowed where no section is named."""
    model: Any = Settings
    parts = key.split(".")
    for position, part in enumerate(parts):
        fields = model.model_fields if is_section(model) else {}
        if part not in fields:
            inside = ".".join(parts[:position])
            allowed = [inside] * (not fields)
            for name, field in fields.items():
                allowed.append(f"{inside}.{name}".lstrip(".") + ".*" * is_section(field.annotation))
            allowed += [] if inside else beside
            raise UserError(
                f"{begin}: no such setting{nearest(key, setting_names())}; allowed: {', '.join(allowed)}"
            )
        model = fields[part].annotation


@dataclass(frozen=True)
class _Entry:
    """A dotted key of a point, of a setting or a section, and its value; said, place: what it is for readers, in the file."""

    key: str
    value: Any
    said: str
    place: str

    @property
    def settings(self) -> dict[str, Any]:
        return flat(self.key, self.value)

    def begin(self, name: str, document: Document) -> str:
        """How a line about it begins, or about a setting within it."""
        inside = name.removeprefix(self.key) if name.startswith(f"{self.key}.") else ""
        return f"{document.place(self.place + inside)}: {self.said}" + (
            f": {name}" if name != self.key else ""
        )


def check_points(study: Study, document: Document, dotted_overrides: Mapping[str, Any]) -> None:
    """Raises `UserError` for an axis or an entry of `also` that no cell can be made of. laid: dotted settings of ``--set``."""
    axes = {
        key: [
            _Entry(key, value, f"axes.{key}", f"axes.{key}.{number}")
            for number, value in enumerate(search_space.ends(values))
        ]
        for key, values in study.axes.items()
    }
    _check_search(study, document)
    also = [
        [_Entry(key, value, *2 * [f"also.{n}.{key}"]) for key, value in one.items()]
        for n, one in enumerate(study.also)
    ]
    for entry in itertools.chain(*axes.values(), *also):
        for name in entry.settings:
            _check_varied(name, entry.begin(name, document))
    _check_axes(axes, document, dotted_overrides)
    number = math.prod(
        len(values) for values in study.axes.values() if not isinstance(values, search_space.Range)
    )
    if number > MOST_COMBINATIONS:
        raise UserError(
            f"{document.place('axes')}: axes: found {number:,} combinations of values; expected: at most {MOST_COMBINATIONS:,}"
        )
    together: dict[str, list[list[_Entry]]] = {}
    for key, entries in axes.items():
        together.setdefault(key.partition(".")[0], []).append(entries)
    # Values of a section that are right by themselves may not go together; sections are right whatever the others are.
    for point in itertools.chain(
        *(itertools.product(*section) for section in together.values()), also
    ):
        _check_point(point, study.given, document)
    for key, values in study.axes.items():
        if isinstance(values, search_space.Range):
            _check_range(study, key, values, f"{document.place(f'axes.{key}')}: axes.{key}")


def _check_axes(
    axes: Mapping[str, Sequence[_Entry]], document: Document, dotted_overrides: Mapping[str, Any]
) -> None:
    """Each has different values, and is the only one that sets its settings."""
    owner: dict[str, str] = {}
    for key, entries in axes.items():
        begin, values = (
            f"{document.place(f'axes.{key}')}: axes.{key}",
            [entry.value for entry in entries],
        )
        if not values or len(
            {value if isinstance(value, Hashable) else repr(value) for value in values}
        ) != len(values):
            raise UserError(
                f"{begin}: found {shown(values)}; allowed: a list of different values, at least one"
            )
        for name in {name for entry in entries for name in entry.settings}:
            if owner.setdefault(name, key) != key:
                raise UserError(
                    f"{begin}: sets {name}, as axes.{owner[name]} does; allowed: one axis for a setting"
                )
    for name in dotted_overrides:
        if name in owner:
            place = document.place(f"axes.{owner[name]}")
            raise UserError(
                f"--set {name}: is an axis of the study ({place}); allowed: a setting that no axis has"
            )


def _check_varied(name: str, begin: str) -> None:
    """Whether cells may differ in a dotted setting: one report compares masks of one size and one set of pathologies."""
    check_key(name, begin)
    if name in ("pathologies", "size"):
        raise UserError(f"{begin}: cells can't differ in it; allowed: in settings, once")


def _check_point(entries: Sequence[_Entry], given: Mapping[str, Any], document: Document) -> None:
    point = {name: value for entry in entries for name, value in entry.settings.items()}

    def begin(fault: str) -> str:
        # Where settings of a section don't go together, the last one is told.
        blamed = [entry for entry in entries if f"{fault}.".startswith(f"{entry.key}.")] or list(
            entries
        )
        return blamed[-1].begin(fault, document)

    try:
        Settings.model_validate(merged(given, point))
    except ValidationError as error:
        raise UserError(format_validation_error(error, begin, Settings)) from None


def _check_search(study: Study, document: Document) -> None:
    """Raises `UserError` for what a grid may say and a search may not."""
    if study.search is None:
        return
    workers = study.resources.workers
    for key, wrong, message in (
        (
            "axes.trial",
            "trial" in study.axes,
            "found in a search; allowed: search.trials, how many",
        ),
        ("also", bool(study.also), "found in a search; allowed: axes alone"),
        ("search", not study.axes, "found no axes; allowed: at least one"),
        ("resources.workers", workers > 1, f"found {workers} in a search; allowed: 1"),
        (
            "settings.labels.expert_split.select",
            not study.settings.labels.expert_split.select,
            "found 0 in a search, which goes by the images held back; allowed: at least 1",
        ),
    ):
        if wrong:
            raise UserError(f"{document.place(key)}: {key}: {message}")


def _check_range(study: Study, key: str, values: search_space.Range, begin: str) -> None:
    """Raises `UserError` for a range outside a search, or of what is no number. That its ends are allowed is known."""
    if study.search is None:
        raise UserError(
            f"{begin}: found a range; allowed: a list of values, or a section search beside the axes"
        )
    number = attrgetter(key)(study.at({key: values.low}))
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(f"{begin}: found a range of what is no number; allowed: a list of values")
    if isinstance(number, int) and values.step is not None and not values.step.is_integer():
        raise UserError(
            f"{begin}.step: found {values.step:g} for whole numbers; allowed: a whole one"
        )
