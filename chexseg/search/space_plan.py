"""What a search means: points of its space, the cells of each, and the stages that all of them share. Nothing is run here.

A point has a value for every axis. Its objective is the mean over `search.trials` cells of the selection mIoU, which `fit`
counts on expert images held back for it: the test set has no say.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config.search_space import Range
from chexseg.config.study import Study
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A study with a section ``search``, the fingerprints of its data and the encoders to be had (Store.imported)."""

    study: Study
    data: Mapping[str, str]
    imported: Mapping[tuple[str, str], str]

    @property
    def ranges(self) -> dict[str, Range]:
        return {key: values for key, values in self.study.axes.items() if isinstance(values, Range)}

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: values for key, values in self.study.axes.items() if not isinstance(values, Range)
        }

    def combinations(self) -> Iterator[Point]:
        """Every combination of the choices."""
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    def plan(self, points: Sequence[Point]) -> Plan:
        """The cells of some points, trial by trial, and all stages they need. Its study is the search's.

        The plan of one point is what a grid's cell of the same settings would be, to the keys.
        """
        cells = tuple(
            {**point, "trial": trial}
            for point in points
            for trial in range(self.study.search.trials)
        )
        if not cells:
            return Plan(self.study, self.imported, data=self.data)
        grid = self.study.model_copy(update={"axes": {}, "also": cells, "search": None})
        planned = planner.plan(grid, self.data, self.imported)
        planned.study = self.study
        return planned

    def upstream(self) -> Plan:
        """No cells; its targets are all stages that points share, for every combination of the choices.

        Raises `UserError` for a range that reaches one of them: each of its values would need another run of it.
        """
        out = Plan(self.study, self.imported, data=self.data)
        for middle in self.middles():
            # At an end of a range settings may collapse (p = 1 needs no weak labels), so that less is needed there, never more.
            shared = _shared(self.plan([middle]))
            for key, values in self.ranges.items():
                for end in (values.low, values.high):
                    there = _shared(self.plan([{**middle, key: end}]))
                    other = next((node for name, node in there.items() if name not in shared), None)
                    if other:
                        raise UserError(
                            f"axes.{key}: found a range, and {other.stage} depends on it, which would run anew for every value;"
                            " allowed: a list of values"
                        )
            out.nodes |= shared
        out.targets, out.members = list(out.nodes), {self.study.name: ()}
        return out

    def check(self) -> None:
        """Raises `UserError` for a range that can't be searched."""
        self.upstream()
        self.fields()

    def middles(self) -> Iterator[Point]:
        """Every combination of the choices with each range in its middle."""
        middle = {key: self._middle(key) for key in self.ranges}
        for choice in self.combinations():
            yield {**choice, **middle}

    def fields(self) -> dict[str, str]:
        """Range -> the field of a fit's config that has its value. Raises `UserError` for a range that reaches no fit."""
        out: dict[str, str] = {}
        for middle in self.middles():
            config = self._fit_config(middle)
            for key in self.ranges.keys() - out.keys():
                end = next(
                    end
                    for end in (self.ranges[key].low, self.ranges[key].high)
                    if end != middle[key]
                )
                other = self._fit_config({**middle, key: end})
                moved = [
                    name
                    for name, value in config.items()
                    if value == middle[key] and other[name] != value
                ]
                if moved:
                    out[key] = moved[0]
        for key in self.ranges.keys() - out.keys():
            raise UserError(
                f"axes.{key}: found a range, and no cell of this study depends on it; allowed: what matters here"
            )
        return out

    def whole(self, key: str) -> bool:
        """Whether the setting is a whole number."""
        return isinstance(attrgetter(key)(self.study.at({key: self.ranges[key].low})), int)

    def identity(self) -> str:
        """Eight hex digits of everything that a point's value depends on: what the same Optuna study may hold."""
        return identity(self.study, self.data, self.imported)

    def _middle(self, key: str) -> float:
        values = self.ranges[key]
        if self.whole(key) or values.step is not None:
            step = values.step or 1
            return values.low + (values.high - values.low) // (2 * step) * step
        return (values.low * values.high) ** 0.5 if values.log else (values.low + values.high) / 2

    def _fit_config(self, point: Point) -> Mapping[str, Any]:
        planned = self.plan([point])
        return planned.nodes[planned.cells[0].fit].config


def describe(point: Point) -> str:
    """``p=0.83 weak=cam``: a point for people."""
    return " ".join(
        f"{key.rpartition('.')[2]}={f'{value:.4g}' if isinstance(value, float) else value}"
        for key, value in point.items()
    )


def _shared(planned: Plan) -> dict[str, Node]:
    """What a plan's cells are made from: all but their own fits and scores."""
    own = {key for cell in planned.cells for key in (cell.fit, cell.score)}
    return {key: node for key, node in planned.nodes.items() if key not in own}


def identity(study: Study, data: Mapping[str, str], imported: Mapping[tuple[str, str], str]) -> str:
    """Eight hex digits of what the values of a study's cells depend on, and of its axes."""
    axes = {
        key: values.model_dump() if isinstance(values, Range) else values
        for key, values in study.axes.items()
    }
    document = {
        "settings": study.settings.model_dump(mode="json"),
        "axes": axes,
        "also": study.also,
        "members": [identity(member, data, imported) for member in study.members],
        "trials": study.search and study.search.trials,
        "data": data,
        "imported": sorted(map(str, imported.items())),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[
        :8
    ]
