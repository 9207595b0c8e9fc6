"""Benchmark CheXlocalize's evaluation: ours against decoding all masks and resampling in a loop.

    python benchmarks/evaluate.py [--images N] [--height H] [--width W] [--rounds N]

Both read the same two mask files, made here. They have ten pathologies per image; three have expert
pixels and all are predicted, as Grad-CAM's are. Both give the per-image IoU on the true positive
slice and 1,000 bootstrap samples of images. Their numbers must agree to 1e-12.

The sides take turns, and each one's time is its best of the rounds. It is CPU time, because the
wall clock of a shared machine includes other work. The published test set has 668 images of about
2,300 x 2,800 pixels. The plain way takes minutes for a tenth of them, so the default has fewer and
smaller ones.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import bare
import numpy as np
import pandas as pd
from pycocotools import mask as coco

from chexseg.data import chexlocalize
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES


def write_files(folder: Path, images: int, height: int, width: int) -> tuple[Path, Path]:
    """Write mask files of ellipses with a wavy outline, like an annotator's or a heat map's."""
    generator = np.random.default_rng(0)
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32)

    def blob() -> np.ndarray:
        (y, x), radius = (
            generator.uniform(0.3, 0.7, 2) * (height, width),
            generator.uniform(0.08, 0.25) * height,
        )
        wave_HW = 1 + 0.1 * np.sin(6 * np.arctan2(y_HW - y, x_HW - x) + generator.uniform(0, 6))
        return np.hypot(y_HW - y, x_HW - x) < radius * wave_HW

    empty = chexlocalize.encode(np.zeros((height, width), dtype=bool))
    drawn = [chexlocalize.encode(blob()) for _ in range(20)]
    paths = folder / "gt.json", folder / "pred.json"
    for path, share in zip(paths, (0.3, 1.0), strict=True):
        pick = generator.integers(len(drawn), size=(images, len(PATHOLOGIES)))
        present = generator.random(pick.shape) < share
        chexlocalize.write_runs(
            path,
            {
                f"patient{i:05d}_study1_view1_frontal": {
                    name: drawn[pick[i, k]] if present[i, k] else empty
                    for k, name in enumerate(PATHOLOGIES)
                }
                for i in range(images)
            },
        )
    return paths


def plain(gt: Path, pred: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (per-image results, bootstrap samples), one mask, image and sample at a time."""
    truth, predicted = json.loads(gt.read_text()), json.loads(pred.read_text())
    rows = []
    for image_id in sorted(truth):
        row = {}
        for name in PATHOLOGIES:
            true_HW, guess_HW = (
                coco.decode(truth[image_id][name]),
                coco.decode(predicted[image_id][name]),
            )
            both, either = np.logical_and(true_HW, guess_HW), np.logical_or(true_HW, guess_HW)
            row[name] = both.sum() / either.sum() if true_HW.any() and guess_HW.any() else np.nan
        rows.append(row)
    results = pd.DataFrame(rows)
    random = np.random.RandomState(0)
    samples = []
    for _ in range(1000):
        sample = results.iloc[random.choice(len(results), size=len(results))]
        samples.append({name: sample[name].mean() for name in PATHOLOGIES})
    return results, pd.DataFrame(samples)


def ours(gt: Path, pred: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    published = evaluate(gt, pred, "per-image").published
    return tuple(
        published[f"iou_{name}_per_cxr.csv"][list(PATHOLOGIES)]
        for name in ("results", "bootstrap_results")
    )


def main() -> None:
    given = bare.parse(
        __doc__,
        images=(60, "in both files"),
        height=(2300, "of each"),
        width=(2800, "of each"),
        rounds=(2, "of both sides"),
    )
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), given.images, given.height, given.width)
        for _ in range(given.rounds):
            answers = []
            for side in (ours, plain):
                wall, cpu = perf_counter(), process_time()
                answers.append(side(*paths))
                seconds[side.__name__].append((process_time() - cpu, perf_counter() - wall))
            for first, second in zip(*answers, strict=True):
                np.testing.assert_allclose(first.to_numpy(), second.to_numpy(), rtol=1e-12)
    size = f"{given.height} x {given.width}"
    print(
        f"{given.images} images of {size}, 1,000 samples; best of {given.rounds} rounds, in "
        "seconds\n"
    )
    print(f"{'':<42}{'CPU time':>10}{'wall clock':>12}{'ours faster':>13}")
    best = {
        side: tuple(min(column) for column in zip(*times, strict=True))
        for side, times in seconds.items()
    }
    names = {
        "ours": "ours: chexseg evaluate --metric per-image",
        "plain": "decoding, and data frames in a loop",
    }
    for side, text in names.items():
        print(
            f"{text:<42}{best[side][0]:>10.2f}{best[side][1]:>12.2f}"
            f"{best[side][0] / best['ours'][0]:>12.0f}x"
        )


if __name__ == "__main__":
    main()
