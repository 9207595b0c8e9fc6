"""Plan a search: the points of its space, the cells of each, and the stages that all points share.

A point has a value for every axis. Its objective is the mean selection mIoU over `search.trials`
cells. `fit` computes it on expert images held out for selection; the test set is never used.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config import search_space
from chexseg.config.canonical import canonical_irnet
from chexseg.config.published_rules import changed
from chexseg.config.search_space import Range
from chexseg.config.study import Study
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A study with a section ``search``.

    data: fingerprints of its data. imported: encoders in the store (`Store.imported`).
    """

    study: Study
    data: Mapping[str, str]
    imported: Mapping[tuple[str, str], str]

    @property
    def options(self) -> search_space.Search:
        """Return the section ``search``."""
        assert self.study.search is not None
        return self.study.search

    @property
    def ranges(self) -> dict[str, Range]:
        return {key: values for key, values in self.study.axes.items() if isinstance(values, Range)}

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: values for key, values in self.study.axes.items() if not isinstance(values, Range)
        }

    def combinations(self) -> Iterator[Point]:
        """Yield every combination of the choices."""
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    def plan(self, points: Sequence[Point]) -> Plan:
        """Return the plan of points: their cells by trial, and all stages these need.

        Its study is the search's. A point's nodes have the keys of a grid's cell with the same
        settings.
        """
        if not points:
            return Plan(self.study, self.imported, data=self.data)
        plan = planner.plan(self.grid(points), self.data, self.imported)
        plan.study = self.study
        return plan

    def grid(self, points: Sequence[Point]) -> Study:
        """Return a study of the cells of points."""
        cells = tuple(
            {**point, "trial": trial} for point in points for trial in range(self.options.trials)
        )
        return self.study.model_copy(update={"axes": {}, "also": cells, "search": None})

    def upstream(self) -> Plan:
        """Return a plan without cells, of the stages that points share, for all combinations.

        Raises `UserError` if one of them depends on a range, and would run for each of its values.
        """
        plan = Plan(self.study, self.imported, data=self.data)
        for middle in self.middles():
            # At an end of a range settings may coincide (p = 1 needs no weak labels), so that
            # fewer stages are needed there, never more.
            shared = _shared(self.plan([middle]))
            for key, values in self.ranges.items():
                for end in (values.low, values.high):
                    for name, node in _shared(self.plan([{**middle, key: end}])).items():
                        if name not in shared:
                            raise UserError(
                                f"axes.{key}: found a range that {node.stage} depends on,"
                                " which would run for each value; expected a list of values"
                            )
            plan.nodes |= shared
        plan.targets, plan.members = list(plan.nodes), {self.study.name: ()}
        return plan

    def check(self) -> None:
        """Raise `UserError` for a range that can't be searched."""
        self.upstream()
        self.fields()

    def middles(self) -> Iterator[Point]:
        """Yield every combination of the choices, with each range at its middle."""
        middle = {key: self._middle(key) for key in self.ranges}
        for choice in self.combinations():
            yield {**choice, **middle}

    def extremes(self) -> Iterator[Point]:
        """Yield every combination of the choices, with all ranges at their low or high ends."""
        for choice in self.combinations():
            for end in ("low", "high") if self.ranges else ("low",):
                yield {**choice, **{key: getattr(one, end) for key, one in self.ranges.items()}}

    def fields(self) -> dict[str, str]:
        """Return range -> the field of a fit's config that holds its value.

        Raises `UserError` for a range that no fit depends on.
        """
        fields: dict[str, str] = {}
        for middle in self.middles():
            config = self._fit_config(middle)
            for key in self.ranges.keys() - fields.keys():
                values = self.ranges[key]
                end = values.low if values.low != middle[key] else values.high
                other = self._fit_config({**middle, key: end})
                for name, value in config.items():
                    if value == middle[key] and other[name] != value:
                        fields.setdefault(key, name)
        for key in self.ranges.keys() - fields.keys():
            raise UserError(
                f"axes.{key}: found a range that no cell of this study depends on;"
                " expected a setting that its cells use"
            )
        return fields

    def whole(self, key: str) -> bool:
        """Return True if the setting is a whole number."""
        return isinstance(attrgetter(key)(self.study.at({key: self.ranges[key].low})), int)

    def _middle(self, key: str) -> float:
        values = self.ranges[key]
        if self.whole(key) or values.step is not None:
            step = values.step or 1
            return values.low + (values.high - values.low) // (2 * step) * step
        return (values.low * values.high) ** 0.5 if values.log else (values.low + values.high) / 2

    def _fit_config(self, point: Point) -> Mapping[str, Any]:
        plan = self.plan([point])
        return plan.nodes[plan.cells[0].fit].config


def describe(point: Point) -> str:
    """Return a point as text: ``p=0.83 weak=cam``."""
    return " ".join(
        f"{key.rpartition('.')[2]}={f'{value:.4g}' if isinstance(value, float) else value}"
        for key, value in point.items()
    )


def _shared(plan: Plan) -> dict[str, Node]:
    """Return the nodes that a plan's cells are made from: all but fits and scores."""
    in_cells = {key for cell in plan.cells for key in (cell.fit, cell.score)}
    return {key: node for key, node in plan.nodes.items() if key not in in_cells}


def identity(study: Study, data: Mapping[str, str], imported: Mapping[tuple[str, str], str]) -> str:
    """Return eight hex digits that identify everything a study's values depend on, and its axes.

    Values of one identity may share an Optuna study. It stays the same when a later version adds a
    setting whose default means what was done before.
    """
    settings = study.settings
    # `freeze_backbone` was a boolean once.
    irnet = canonical_irnet(settings.irnet, settings.size)
    document = {
        "settings": changed(settings, irnet=irnet).document(),
        "axes": {
            key: values.model_dump() if isinstance(values, Range) else values
            for key, values in study.axes.items()
        },
        "also": study.also,
        "members": [identity(member, data, imported) for member in study.members],
        "trials": study.search and study.search.trials,
        "data": data,
        "imported": sorted(map(str, imported.items())),
    }
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
