"""Benchmark the driver's time and memory per cell, as a study of empty cells grows.

    python benchmarks/many_cells.py [--cells N ...] [--go N] [--profile FILE]

The study is launched as `chexseg study run` does, without its lines of progress. Only fits and
scores are replaced, by functions that write one small file. So this measures planning, looking into
the store, Tune, the way to a worker and back, the manifests, and Optuna's record of the grid. Each
size has a separate process and Ray. CPU time is the driver's, all of its threads; "at most" is its
largest resident set.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import bare
from rich.console import Console

from chexseg import launch
from chexseg.config import study_file
from chexseg.phantom import dataset
from chexseg.plan import planner
from chexseg.plan.checks import disk
from chexseg.progress import Lines
from chexseg.run import tune_trials
from chexseg.stages import fit, score
from chexseg.store.store import Store

#: Columns of the table: the names of what `measure` returns.
COLUMNS = (
    "planning, s",
    "the run, s",
    "CPU ms a cell",
    "MiB before",
    "MiB at most",
    "Ray's GCS, MiB",
)


def study_text(cells: int) -> str:
    """Return a study of fully supervised cells that differ only in their trial."""
    settings = {
        "size": 32,
        "encoder": {"init": "random"},
        "labels": {"p": 1, "expert_split": {"train": 8, "select": 4}},
    }
    return json.dumps({"name": "many", "axes": {"trial": list(range(cells))}, "settings": settings})


def empty(config: Any, inputs: Mapping[str, Path], out: Path, context: Any) -> dict[str, Any]:
    """Replace a fit and its scores."""
    (out / "nothing").write_text("\n")
    return {"selection_miou": 0.5, "selection_curve": [0.5] * 20}


def empty_trial(config: Mapping[str, Any], **constants: Any) -> None:
    """Replace `tune_trials._cell_trial` in workers: the same, with stages that do nothing."""
    fit.run = score.run = empty
    tune_trials._cell_trial(config, **constants)


def resident_mib(process: str = "self") -> float:
    """Return a process's present resident set."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def gcs_mib() -> float:
    """Return the resident set of this machine's largest GCS server, which is the benchmark's.

    This holds where no other Ray runs.
    """
    servers = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text().strip() == "gcs_server":
                servers.append(resident_mib(entry.parent.name))
        except (OSError, StopIteration):
            continue
    return max(servers)


def measure(cells: int, go: int, profile: str | None, scratch: Path) -> tuple[float, ...]:
    data, store = scratch / "data", Store(scratch / "store")
    dataset.write(data, dataset.Config(train=1, valid=32, test=4, size=64))
    fingerprints = planner.fingerprints(data)
    started = perf_counter()
    planned = planner.plan(study_file.parse(study_text(cells), "many.yaml"), fingerprints)
    planning = perf_counter() - started
    tune_trials._cell_trial, tune_trials.CELLS_PER_TUNER = empty_trial, go
    disk.expected_bytes = lambda *_: 0.0  # an empty cell has no weights
    with (
        bare.own_ray(),
        (scratch / "log").open("w") as log,
        closing(Lines(Console(file=log))) as lines,
    ):
        before, cpu, started = resident_mib(), process_time(), perf_counter()
        with cProfile.Profile() if profile else nullcontext() as watched:
            outcome = launch.launch(planned, store, data, lines)
        took, cpu, gcs = perf_counter() - started, process_time() - cpu, gcs_mib()
    if watched:
        watched.dump_stats(profile)
    if (
        outcome.failed or len(outcome.computed) != len(planned.nodes) - 1
    ):  # nothing needs the training set
        why = next(iter(outcome.failed.values()), "")
        raise SystemExit(f"{len(outcome.computed)} of {len(planned.nodes)} stages ran; {why}")
    return (
        planning,
        took,
        1000 * cpu / cells,
        before,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        gcs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells",
        type=int,
        nargs="+",
        default=[1000, 4000],
        help="sizes of studies (default: 1000 4000)",
    )
    parser.add_argument(
        "--go",
        type=int,
        default=tune_trials.CELLS_PER_TUNER,
        help=f"cells that Tune is given at once (default: {tune_trials.CELLS_PER_TUNER})",
    )
    parser.add_argument("--profile", help="write what the driver's main thread did, for pstats")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch:
            row = measure(given.cells[0], given.go, given.profile, Path(scratch))
        values = (f"{value:>{len(name) + 3}.1f}" for name, value in zip(COLUMNS, row, strict=True))
        print(f"{given.cells[0]:>9,}" + "".join(values), flush=True)
        return
    print(f"{'cells':>9}" + "".join(f"{name:>{len(name) + 3}}" for name in COLUMNS), flush=True)
    options = ["--go", str(given.go), *(["--profile", given.profile] if given.profile else [])]
    for cells in given.cells:
        subprocess.run(
            [sys.executable, __file__, "--alone", "--cells", str(cells), *options], check=True
        )


if __name__ == "__main__":
    main()
