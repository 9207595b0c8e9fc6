"""Benchmark a report of a study of many cells: seconds, memory and bytes of each part.

    python benchmarks/report.py [--cells N] [--variants N] [--images N] [--side N]

It is compared with limits, not with another implementation. The results are synthetic: variants of
the encoder, each with arms over p of both kinds of weak labels, a student and fully supervised
cells. There are as many trials as needed, and counts of ten pathologies. There is no store, and
figures aren't drawn as PNG and SVG. With a side there are noisy radiographs, with masks of wavy
discs that have nothing to do with the counts, for the image browser. Timing begins with the results in memory and
ends with the last file.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import get_args

import bare
import numpy as np
import pandas as pd

from chexseg.analysis.results import CELL_COLUMNS, GRAPH_COLUMNS, StudyResults
from chexseg.analysis.study_analysis import analyse
from chexseg.config.study import Reproduced
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.write import write

#: method, weak labels, p, fraction
ARMS = [("full", None, 1.0, np.nan), ("student", None, 1.0, 0.1)]
ARMS += [
    ("mixed" if p else "weak", weak, p, np.nan)
    for weak in ("cam", "irnet")
    for p in (0.0, 0.5, 0.9)
]


def study(cells: int, variants: int, images: int) -> StudyResults:
    """Return a study of `cells` cells; the last variant may have fewer trials."""
    generator = np.random.default_rng(0)
    trials = -(-cells // (variants * len(ARMS)))
    points = [
        (variant, trial, arm)
        for variant in range(variants)
        for trial in range(trials)
        for arm in ARMS
    ][:cells]
    rows = []
    for number, (variant, trial, (method, weak, p, fraction)) in enumerate(points):
        other = f"blocks={variant // 25} width={variant % 25}"
        name = f"{weak or method} p={p:g} {other} trial {trial}"
        weak_images = np.nan if weak is None else 100
        selection = generator.uniform(0.1, 0.3)
        values = (
            f"{number:064x}",
            name,
            method,
            weak,
            p,
            0,
            trial,
            "random",
            weak_images,
            fraction,
            20,
            other,
            selection,
            900,
            f"classifier {variant}",
        )
        rows.append(dict(zip(CELL_COLUMNS, values, strict=True)))
    shape = (images, len(PATHOLOGIES))
    true_IK = generator.integers(0, 20_000, shape, dtype=np.int32) * (generator.random(shape) < 0.3)
    counts_CIK3 = np.empty((cells, *shape, 3), dtype=np.int32)
    for counts_IK3 in counts_CIK3:
        counts_IK3[..., 2] = true_IK
        counts_IK3[..., 0] = true_IK * generator.uniform(0.1, 0.9)
        counts_IK3[..., 1] = true_IK * generator.uniform(0.5, 1.5)
    graph, ran = [("i" * 64, "ingest", "ingest test", "cached", 4.0, ())], []
    for row in rows:
        fit = f"f{row['cell'][1:]}"
        graph.append((fit, "fit", f"fit: {row['name']}", "cached", 60.0, ("i" * 64,)))
        graph.append(
            (row["cell"], "score", f"score: {row['name']}", "cached", 1.0, (fit, "i" * 64))
        )
    for key, stage, label, _, seconds, _ in graph:
        config = (
            {"p": label, "epochs": 20, "learning_rate": 1e-3, "loss": "class-average-dice"}
            if stage == "fit"
            else {}
        )
        ran.append(
            {
                "stage": stage,
                "key": key,
                "seconds": seconds,
                "host": "node",
                "settings": json.dumps(config),
            }
        )
    return StudyResults(
        reproduces=get_args(Reproduced),
        name="many",
        title="Many cells",
        pathologies=PATHOLOGIES,
        image_ids=tuple(
            f"patient{number // 2:05d}_study1_view{number % 2}_frontal" for number in range(images)
        ),
        cells=pd.DataFrame(rows),
        counts_CIK3=counts_CIK3,
        missing=pd.DataFrame(columns=["name", "state", "reason"]),
        stages=pd.DataFrame(ran),
        graph=pd.DataFrame(graph, columns=list(GRAPH_COLUMNS)),
    )


def with_masks(results: StudyResults, side: int) -> StudyResults:
    """Return a study with radiographs, expert masks and predictions of side x side pixels."""
    y_HW, x_HW = np.mgrid[:side, :side] / side
    noise_HW = np.random.default_rng(0).normal(0, 8, (side, side))
    film_HW = np.clip(120 + 60 * np.sin(8 * x_HW) + noise_HW, 0, 255).astype(np.uint8)

    def masks(seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        masks_KHW = np.zeros((len(PATHOLOGIES), side, side), dtype=bool)
        for k in np.flatnonzero(generator.random(len(PATHOLOGIES)) < 0.6):
            y, x, radius = generator.uniform((0.2, 0.2, 0.06), (0.8, 0.8, 0.19))
            wave_HW = 1 + 0.2 * np.sin(5 * np.arctan2(y_HW - y, x_HW - x))
            masks_KHW[k] = np.hypot(y_HW - y, x_HW - x) < radius * wave_HW
        return masks_KHW

    drawn = [masks(seed) for seed in range(64)]
    number = {image_id: n for n, image_id in enumerate(results.image_ids)}
    return dataclasses.replace(
        results,
        image=lambda image_id: (film_HW, drawn[number[image_id] % 64]),
        predictions=lambda cell, image_id: drawn[(number[image_id] + cell) % 64],
    )


def peak() -> float:
    """Return the process's largest resident size so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    given = bare.parse(
        __doc__,
        cells=(10_000, ""),
        variants=(625, "of the encoder"),
        images=(668, "of the test set"),
        side=(0, "pixels of the radiographs and masks; 0: none"),
    )
    results = study(given.cells, given.variants, given.images)
    if given.side:
        results = with_masks(results, given.side)
    before = peak()
    with tempfile.TemporaryDirectory() as out:
        started, cpu = perf_counter(), process_time()
        written = write([analyse(results)], Path(out), images=False)
        seconds, cpu = perf_counter() - started, process_time() - cpu
        files = [written.page, *written.files]
        size = written.page.stat().st_size / 1e6, sum(path.stat().st_size for path in files) / 1e6
    print(f"{given.cells:,} cells, {given.variants:,} variants, {given.images:,} images\n")
    print(f"{'report, and CPU time of it':<34}{seconds:>8.1f} s {cpu:>8.1f} s")
    print(f"{'memory before, and at most':<34}{before:>8.2f} GB{peak():>8.2f} GB")
    print(
        f"{'index.html, all files':<34}{size[0]:>8.1f} MB{size[1]:>8.1f} MB in {len(files)} files"
    )


if __name__ == "__main__":
    main()
