"""The units of a run, which start and end as a whole, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Mapping, Set

from chexseg.plan.graph import Plan
from chexseg.plan.scheduling import schedule


class Units:
    """The units of what a store lacks of a plan.

    A unit is a stage run, named by its key, or a cell, named by its score's key: its fit and its
    scores. A fit that several cells use belongs to the first of them, and the others wait for it.

    done: keys of nodes with a result. seconds: key -> expected time. whole_cells: make units of
        cells; otherwise fits and scores are units of their own.
    nodes: unit -> its nodes without a result, inputs first.
    """

    def __init__(
        self, plan: Plan, done: Set[str], seconds: Mapping[str, float], whole_cells: bool
    ) -> None:
        cells: dict[str, str] = {}  # fit -> the score of its cell
        if whole_cells:
            for cell in plan.cells:
                if not {cell.fit, cell.score} <= done:
                    cells.setdefault(cell.fit, cell.score)
        self.nodes: dict[str, list[str]] = {}
        for node in plan.needed(done):
            unit = cells.get(node.key, node.key)
            self.nodes.setdefault(unit, []).append(node.key)
        longest = schedule.remaining(plan.nodes, seconds)
        self._longest = {
            unit: max(longest[key] for key in keys) for unit, keys in self.nodes.items()
        }
        unit_of = {key: unit for unit, keys in self.nodes.items() for key in keys}
        #: Unit -> what it still waits for, and key -> the units that wait for it.
        self._missing: dict[str, set[str]] = {}
        self._waiting: dict[str, list[str]] = {}
        for unit, keys in self.nodes.items():
            inputs = {one for key in keys for one in plan.nodes[key].inputs.values()}
            self._missing[unit] = {key for key in inputs if unit_of.get(key, unit) != unit}
            for key in self._missing[unit]:
                self._waiting.setdefault(key, []).append(unit)

    def longest(self, unit: str) -> float:
        """Return the expected seconds from a unit's start to the end of the study behind it."""
        return self._longest[unit]

    def ready(self) -> list[str]:
        """Return the units that wait for nothing, in the plan's order."""
        return [unit for unit, missing in self._missing.items() if not missing]

    def ready_after(self, key: str) -> list[str]:
        """Take note that a node has a result; return the units that waited for this one last."""
        freed = []
        for unit in self._waiting.pop(key, ()):
            self._missing[unit].discard(key)
            if not self._missing[unit]:
                freed.append(unit)
        return freed
