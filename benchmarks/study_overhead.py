"""Benchmark a study's cost beside its training: 40 cells of about 10 s, one worker per core.

    python benchmarks/study_overhead.py [--cells N] [--seconds S]

The study is run as `chexseg study run` does, from a phantom data set to the scores of all cells.
The reference is the time of the cells' fits by their manifests, divided by the workers. The rest is
Ray's start, ingest, Tune, the way from one cell to the next, scoring and writing. Between two
cells: from a cell's scores in the store to the start of the next fit on a free worker.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import bare

from chexseg.config import study_file
from chexseg.phantom import dataset
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.progress import Quiet
from chexseg.run import scheduler
from chexseg.stages import fit, ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig, IngestConfig
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store

SIZE, STEPS = 64, 12
STUDY = """
name: overhead
axes: {{trial: {trials}}}
settings:
  size: {size}
  encoder: {{init: random}}
  labels: {{expert_split: {{train: 24, select: 8}}}}
  fit: {{epochs: {epochs}, samples_per_epoch: {samples}, checkpoint: last}}
"""


def epochs_in(seconds: float, data: Path, scratch: Path) -> int:
    """Return how many epochs a fit has time for, by running one here on one thread."""
    (scratch / "valid").mkdir()
    (scratch / "fit").mkdir()
    ingest.run(
        IngestConfig(split="valid", size=SIZE), {"data": data}, scratch / "valid", StageContext()
    )
    ends: list[float] = []
    context = StageContext(threads=1, progress=lambda *_: ends.append(perf_counter()))
    config = FitConfig(
        init="random",
        expert_train=24,
        expert_select=8,
        epochs=3,
        samples_per_epoch=8 * STEPS,
        checkpoint="last",
    )
    fit.run(config, {"valid": scratch / "valid"}, scratch / "fit", context)
    return max(1, math.ceil(seconds / (STEPS * (ends[-1] - ends[STEPS]) / (len(ends) - 1 - STEPS))))


def between_cells(planned: Plan, store: Store) -> list[float]:
    """Return the seconds that a worker was idle between two cells, by the times of manifests.

    A worker's first fit is not counted.
    """

    def written(stage: str, key: str) -> float:
        return (store.find(stage, key).path / MANIFEST).stat().st_mtime

    starts = sorted(
        written("fit", cell.fit) - store.find("fit", cell.fit).manifest["seconds"]
        for cell in planned.cells
    )
    ends = sorted(written("score", cell.score) for cell in planned.cells)
    # Assume that the worker that ends first begins first.
    return [start - end for start, end in zip(starts[bare.CORES :], ends, strict=False)]


def measure(cells: int, seconds: float, scratch: Path) -> None:
    data = scratch / "data"
    dataset.write(data, dataset.Config(train=2, valid=80, test=8, size=SIZE))
    with bare.own_ray():
        epochs = epochs_in(seconds, data, scratch)
    text = STUDY.format(trials=list(range(cells)), size=SIZE, epochs=epochs, samples=8 * STEPS)
    planned = planner.plan(study_file.parse(text, "overhead.yaml"), planner.fingerprints(data))
    store = Store(scratch / "store")
    started = perf_counter()
    with bare.own_ray():
        outcome = scheduler.run(planned, store, data, Quiet())
    whole = perf_counter() - started
    if outcome.failed:
        raise SystemExit(f"a cell failed: {next(iter(outcome.failed.values()))}")
    fits = [outcome.computed[cell.fit] for cell in planned.cells]
    scores = [outcome.computed[cell.score] for cell in planned.cells]
    training = sum(fits) / bare.CORES
    print(
        f"{cells} cells on {bare.CORES} workers; a fit {sum(fits) / cells:.1f} s, a score "
        f"{sum(scores) / cells:.2f} s"
    )
    print(f"{'':<26}{'s':>8}{'to training':>13}")
    for name, took in {
        "training": training,
        "the run": outcome.seconds,
        "with Ray's start and end": whole,
    }.items():
        print(f"{name:<26}{took:>8.1f}{took / training:>13.3f}")
    gaps = between_cells(planned, store)
    print(f"between two cells on a worker: median {median(gaps):.2f} s, longest {max(gaps):.2f} s")


if __name__ == "__main__":
    given = bare.parse(__doc__, cells=(40, "cells"), seconds=(10, "that a cell trains"))
    with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch:
        measure(given.cells, given.seconds, Path(scratch))
