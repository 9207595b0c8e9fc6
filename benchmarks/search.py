"""Benchmark the search of studies/search.yaml against a grid over the same axes.

    python benchmarks/search.py [--grid-trials N]

It compares the mIoU that each finds and the training that it takes. Both run on the demo's phantom,
one after another, from the same classifier, encoder and weak labels; the search imports nothing
from the grid. A grid's training time is that of its fits by their manifests. The search's is from
the request of a point to its result, pruned ones too. So it includes the workers' start and
Optuna's computation. On a shared machine, epochs are the steadier measure: all are of the same
number of samples. Both choose by the mIoU "held back". "test" is of the setting that each would
choose, and neither has seen it before.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean
from time import perf_counter

import bare

from chexseg.analysis import load
from chexseg.analysis.statistics import scores
from chexseg.cli.demo import DEMO_DATA
from chexseg.config import study_file
from chexseg.phantom import dataset
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.progress import Quiet
from chexseg.run import scheduler
from chexseg.search import journal, searcher
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Search, describe
from chexseg.store.store import Store

STUDY = Path(__file__).resolve().parent.parent / "studies" / "search.yaml"
GRID = {
    "labels.weak": ("cam", "irnet"),
    "labels.p": (0, 0.5, 0.9, 1),
    "fit.learning_rate": (3e-4, 1e-3, 3e-3),
}


def test_miou(planned: Plan, store: Store) -> float:
    """Return the mean over the plan's cells of the pooled mIoU on the test images."""
    results = load.study_results(planned, store)
    return float(scores.miou(scores.cell_iou(results))[0].mean())


def measure(trials: int, scratch: Path) -> None:
    data = scratch / "data"
    dataset.write(data, dataset.Config(**DEMO_DATA))
    study, prints = study_file.load(STUDY), planner.fingerprints(data)
    search, alone = Search(study, prints, {}), Store(scratch / "search")
    axes = {**GRID, "trial": tuple(range(trials))}
    grid = planner.plan(
        study.model_copy(update={"name": "grid", "axes": axes, "search": None}), prints
    )
    store = Store(scratch / "grid")
    with bare.own_ray():
        started = perf_counter()
        scheduler.run(search.upstream(), store, data, Quiet())
        shared = perf_counter() - started
        shutil.copytree(store.backend.local, alone.backend.local)
        started = perf_counter()
        outcome = scheduler.run(grid, store, data, Quiet())
        grid_wall = perf_counter() - started
        started = perf_counter()
        searched = searcher.run_search(search, alone, data, Quiet())
        search_wall = perf_counter() - started
    if outcome.failed or searched.failed:
        raise SystemExit(f"failed: {[*outcome.failed.values(), *searched.failed.values()]}")

    arms = defaultdict(list)
    for cell in grid.cells:
        arms[cell.name.rpartition(" trial ")[0]].append(cell)
    values = {
        name: mean(store.find("fit", cell.fit).facts["selection_miou"] for cell in cells)
        for name, cells in arms.items()
    }
    best = max(values, key=values.__getitem__)
    grid_training = sum(outcome.computed[cell.fit] for cell in grid.cells)
    chosen = Plan(grid.study, cells=arms[best], nodes=grid.nodes, data=prints)

    optuna_study = OptunaStudy(search, alone)
    trial_counts, asked = optuna_study.trial_counts(), journal.read(alone, optuna_study.name)
    search_training = sum(
        (trial.datetime_complete - trial.datetime_start).total_seconds() for trial in asked
    )
    print(f"shared stages: {shared:.0f} s; {bare.CORES} cores")
    columns = (
        "",
        "settings",
        "fits",
        "epochs",
        "to grid",
        "training s",
        "to grid",
        "wall s",
        "held back",
        "test",
    )
    print("{:<7}{:>9}{:>6}{:>8}{:>9}{:>12}{:>9}{:>8}{:>11}{:>8}  best".format(*columns))
    row = "{:<7}{:>9}{:>6}{:>8}{:>9.2f}{:>12.0f}{:>9.2f}{:>8.0f}{:>11.3f}{:>8.3f}  {}"
    epochs = sum(grid.nodes[cell.fit].config["epochs"] for cell in grid.cells)
    counts = (len(arms), len(grid.cells), epochs, 1, grid_training, 1, grid_wall)
    print(row.format("grid", *counts, values[best], test_miou(chosen, store), best))
    fits = len(list((alone.backend.local / "fit").iterdir()))
    trained = sum(len(trial.intermediate_values) for trial in asked)
    counts = (
        len(asked),
        fits,
        trained,
        trained / epochs,
        search_training,
        search_training / grid_training,
        search_wall,
    )
    test = test_miou(search.plan([trial_counts.point]), alone)
    what = f"{describe(trial_counts.point)} ({trial_counts.pruned} of {len(asked)} points pruned)"
    print(row.format("search", *counts, trial_counts.value, test, what))


if __name__ == "__main__":
    given = bare.parse(__doc__, grid_trials=(2, "trial numbers of each of the grid's settings"))
    with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch:
        measure(given.grid_trials, Path(scratch))
