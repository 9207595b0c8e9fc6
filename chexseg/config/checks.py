"""Check a parsed study: its ranges, axes and further cells. Each error is one line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from chexseg.config import search_space
from chexseg.config.error_messages import (
    error_location,
    format_validation_error,
    nearest_settings,
    shown,
)
from chexseg.config.places import Entry, also_entries, axis_entries
from chexseg.config.settings import SHARED, Settings, is_section, merged
from chexseg.config.study import Study
from chexseg.config.yaml_source import Document
from chexseg.errors import UserError

#: Combinations of the axes' values; a hundred times the largest grid planned so far.
MOST_COMBINATIONS = 1_000_000


def ranges(document: Document) -> dict[str, Any]:
    """Return the file's axes with every mapping parsed as a range; {} if it has no axes."""
    axes = document.content.get("axes")
    if not isinstance(axes, dict):
        return {}
    return {"axes": {key: _axis(document, key, values) for key, values in axes.items()}}


def _axis(document: Document, key: str, values: Any) -> Any:
    """Return the values of an axis, with a mapping parsed as a range."""
    try:
        return search_space.Range.model_validate(values) if isinstance(values, dict) else values
    except ValidationError as error:
        raise UserError(
            format_validation_error(
                error,
                lambda field: error_location(document, {}, f"axes.{key}.{field}"),
                search_space.Range,
            )
        ) from None


def check_key(key: str, begin: str, beside: Sequence[str] = ()) -> None:
    """Raise `UserError` for a dotted key that is neither a setting nor a section.

    begin: start of the error line. beside: further allowed keys outside of all sections.
    """
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
            hint = nearest_settings(key)
            raise UserError(f"{begin}: no such setting{hint}; allowed: {', '.join(allowed)}")
        model = fields[part].annotation


def check_points(study: Study, document: Document, dotted_overrides: Mapping[str, Any]) -> None:
    """Raise `UserError` for an axis or an entry of `also` with no valid cell.

    dotted_overrides: dotted settings of ``--set``.
    """
    axes = {key: axis_entries(key, values) for key, values in study.axes.items()}
    _check_search(study, document)
    also = [also_entries(number, point) for number, point in enumerate(study.also)]
    for entry in itertools.chain(*axes.values(), *also):
        for name in entry.settings:
            _check_varied(name, entry.begin(name, document))
    _check_axes(axes, document, dotted_overrides)
    number = math.prod(
        len(values) for values in study.axes.values() if not isinstance(values, search_space.Range)
    )
    if number > MOST_COMBINATIONS:
        raise UserError(
            f"{document.location('axes')}: axes: found {number:,} combinations of values;"
            f" expected: at most {MOST_COMBINATIONS:,}"
        )
    together: dict[str, list[list[Entry]]] = {}
    for key, entries in axes.items():
        together.setdefault(key.partition(".")[0], []).append(entries)
    # Values of one section may be incompatible with each other; sections are independent.
    for point in itertools.chain(
        *(itertools.product(*section) for section in together.values()), also
    ):
        _check_point(point, study.given, document)
    for key, values in study.axes.items():
        if isinstance(values, search_space.Range):
            _check_range(study, key, values, f"{document.location(f'axes.{key}')}: axes.{key}")


def _check_axes(
    axes: Mapping[str, Sequence[Entry]], document: Document, dotted_overrides: Mapping[str, Any]
) -> None:
    """Raise `UserError` for an axis without values, with equal ones, or for a setting set twice."""
    owner: dict[str, str] = {}
    for key, entries in axes.items():
        begin, values = (
            f"{document.location(f'axes.{key}')}: axes.{key}",
            [entry.value for entry in entries],
        )
        if not values or len(
            {value if isinstance(value, Hashable) else repr(value) for value in values}
        ) != len(values):
            raise UserError(
                f"{begin}: found {shown(values)}; expected: a list of one or more different values"
            )
        for name in {name for entry in entries for name in entry.settings}:
            if owner.setdefault(name, key) != key:
                raise UserError(
                    f"{begin}: sets {name}, as axes.{owner[name]} does;"
                    " expected: one axis for a setting"
                )
    for name in dotted_overrides:
        if name in owner:
            location = document.location(f"axes.{owner[name]}")
            raise UserError(
                f"--set {name}: is an axis of the study ({location});"
                " expected: a setting that is not an axis"
            )


def _check_varied(name: str, begin: str) -> None:
    """Raise `UserError` for a setting in which cells can't differ.

    See `settings.SHARED`.
    """
    check_key(name, begin)
    if name.partition(".")[0] in SHARED:
        raise UserError(f"{begin}: cells can't differ in it; hint: put it in settings")


def _check_point(entries: Sequence[Entry], given: Mapping[str, Any], document: Document) -> None:
    point = {name: value for entry in entries for name, value in entry.settings.items()}

    def begin(fault: str) -> str:
        # If several entries of a section are incompatible, name the last one.
        blamed = [entry for entry in entries if f"{fault}.".startswith(f"{entry.key}.")] or list(
            entries
        )
        return blamed[-1].begin(fault, document)

    try:
        Settings.model_validate(merged(given, point))
    except ValidationError as error:
        raise UserError(format_validation_error(error, begin, Settings)) from None


def _check_search(study: Study, document: Document) -> None:
    """Raise `UserError` for what a grid may contain and a search may not."""
    if study.search is None:
        return
    workers = study.resources.workers
    epochs = search_space.ends(study.axes.get("fit.epochs", (study.settings.fit.epochs,)))
    for key, wrong, message in (
        (
            "axes.trial",
            "trial" in study.axes,
            "found in a search; hint: search.trials is the number of trials",
        ),
        ("axes.draw", "draw" in study.axes, "found in a search; expected: no axis of draws"),
        ("also", bool(study.also), "found in a search; expected: axes only"),
        ("search", not study.axes, "found no axes; expected: at least one"),
        (
            "axes.fit.epochs" if "fit.epochs" in study.axes else "settings.fit.epochs",
            0 in epochs,
            "found 0 in a search; expected: at least 1",
        ),
        ("resources.workers", workers > 1, f"found {workers} in a search; expected: 1"),
        (
            "settings.labels.expert_split.select",
            not study.settings.labels.expert_split.select,
            "found 0 in a search, whose objective is computed on these images;"
            " expected: at least 1",
        ),
    ):
        if wrong:
            raise UserError(f"{document.location(key)}: {key}: {message}")


def _check_range(study: Study, key: str, values: search_space.Range, begin: str) -> None:
    """Raise `UserError` for a range outside a search, or of a setting that is not a number.

    The ends of the range are valid values of the setting.
    """
    if study.search is None:
        raise UserError(
            f"{begin}: found a range; expected: a list of values, or a section search beside axes"
        )
    number = attrgetter(key)(study.at({key: values.low}))
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(
            f"{begin}: found a range for a setting that is not a number; expected: a list of values"
        )
    if isinstance(number, int) and values.step is not None and not values.step.is_integer():
        raise UserError(f"{begin}.step: found {values.step:g}; expected: a whole number")
