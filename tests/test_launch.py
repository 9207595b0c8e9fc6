"""Test what a run says at its end."""

from __future__ import annotations

from unittest import mock

from chexseg import launch
from chexseg.progress import Reporter
from chexseg.run.progress import trackers
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


def test_a_run_reports_its_trainings_to_the_trackers_of_its_study(tmp_path, monkeypatch):
    tracker = mock.Mock()
    opened = mock.Mock(return_value=tracker)
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": opened})
    planned = grid(GRID + "execution: {trackers: [wandb]}")
    with launch._logged(planned, Store(tmp_path), Reporter()) as (record, logged):
        logged.settings_of = lambda name: {"name": name}  # as a scheduler does
        logged.update("full trial 0, fit", 8, 16, "samples", {"loss": 0.5})
        logged.finish("full trial 0, fit", "done in 1 s")
    opened.assert_called_once_with("g", record.removeprefix(".runs/g/"), mock.ANY)
    assert opened.call_args.args[2]("full trial 0, fit") == {"name": "full trial 0, fit"}
    assert tracker.mock_calls == [
        mock.call.write("full trial 0, fit", [(8, {"loss": 0.5})]),
        mock.call.end("full trial 0, fit", False),
        mock.call.close(),
    ]
