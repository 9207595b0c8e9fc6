"""Provide a small search, a grid over the same axes, and stores with their cells finished."""

from __future__ import annotations

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.search.space_plan import Search
from chexseg.store.store import Store

DATA = {"train": "a", "valid": "b", "test": "c"}
IMAGES = {"train": 40, "valid": 20, "test": 20}
SEARCH = """
name: s
axes:
  labels.weak: [cam, irnet]
  labels.p: {low: 0, high: 1}
  fit.learning_rate: {low: 0.0001, high: 0.01, log: true}
settings: {fit: {epochs: 3}}
search: {points: 6, trials: 2}
"""
GRID = """
name: g
axes:
  labels.weak: [cam, irnet]
  labels.p: [0, 0.5, 1]
  trial: [0, 1]
settings: {fit: {epochs: 3, learning_rate: 0.001}}
"""


def searched(text: str = SEARCH) -> Search:
    return Search(study_file.parse(text, "x.yaml"), DATA, {})


def grid(text: str = GRID) -> Plan:
    return planner.plan(study_file.parse(text, "x.yaml"), DATA)


def finish(store: Store, planned: Plan, key: str, miou: float | None) -> None:
    """Put a result into the store: for a fit its figures, for a score only the manifest."""
    node = planned.nodes[key]
    with store.working_on(node) as partial:
        partial.mkdir()
        curve = [miou and miou * (epoch + 1) / 3 for epoch in range(3)]
        store.commit(node, partial, {"selection_miou": miou, "selection_curve": curve}, 1.0)


def finish_cells(store: Store, planned: Plan) -> dict[str, float]:
    """Finish all cells; return score key -> selection mIoU, all different."""
    values = {cell.score: (number + 1) / 100 for number, cell in enumerate(planned.cells)}
    for cell in planned.cells:
        finish(store, planned, cell.fit, values[cell.score])
        finish(store, planned, cell.score, None)
    return values
