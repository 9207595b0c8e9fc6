"""Test what a run says at its end."""

from __future__ import annotations

from chexseg import launch
from chexseg.store.store import Store
from tests.search.searches import finish, grid

GRID = """
name: g
axes:
  labels.p: [0.5, 1]
  draw: [0, 1]
  trial: [0, 1]
settings: {labels: {weak: cam}, fit: {epochs: 3}}
"""


def test_the_best_arm_has_the_best_mean_of_its_finished_cells(tmp_path):
    store, planned = Store(tmp_path), grid(GRID)
    assert launch.best_arms(planned, store) is None
    full = [cell for cell in planned.cells if cell.name.startswith("full")]
    mixed = [cell for cell in planned.cells if cell not in full]
    for cell, miou in zip(full, (0.9, 0.1, 0.3, 0.5), strict=True):  # mean 0.45
        finish(store, planned, cell.fit, miou)
        finish(store, planned, cell.score, None)
    assert launch.best_arms(planned, store) is None, "one arm isn't the best of several"
    for cell, miou in zip(mixed, (0.5, 0.7, 0.9, 0.9), strict=True):
        finish(store, planned, cell.fit, miou)
    for cell in mixed[:2]:  # mean 0.6; the others have no scores yet
        finish(store, planned, cell.score, None)
    expected = "best mean selection mIoU 0.600: cam p=0.5 (2 cells)"
    assert launch.best_arms(planned, store) == expected


def test_equally_good_arms_are_all_named(tmp_path):
    store, planned = Store(tmp_path), grid(GRID.replace("[0, 1]", "[0]"))
    for cell in planned.cells:
        finish(store, planned, cell.fit, 0.25)
        finish(store, planned, cell.score, None)
    names = launch.best_arms(planned, store).partition(": ")[2]
    assert sorted(names.split(", ")) == ["cam p=0.5 (1 cell)", "full (1 cell)"]
