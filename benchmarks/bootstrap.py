"""Benchmark the bootstrap over patients: ours against a loop that draws and sums rows.

    python benchmarks/bootstrap.py [--arms 50] [--trials 3] [--replicates 1000]

Ours is one matrix product per cell. The loop draws patients, gathers the rows of their images and
computes the pooled IoU of each replicate and cell. Both resample the same counts. The loop runs
some of the replicates and is scaled. The last line compares the standard errors of both, whose
draws differ.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.crossed import crossed
from chexseg.analysis.statistics.scores import bootstrap_iou, miou, patient_of, pooled_iou

# The test set of CheXlocalize.
IMAGES, PATIENTS, PATHOLOGIES = 668, 500, 10


def counts(cells: int) -> tuple[np.ndarray, list[str]]:
    """Return counts of cells on images of which three in ten show a pathology, and image ids."""
    generator = np.random.default_rng(0)
    true_IK = generator.integers(1, 20_000, (IMAGES, PATHOLOGIES)) * (
        generator.random((IMAGES, PATHOLOGIES)) < 0.3
    )
    predicted_CIK = generator.integers(1, 20_000, (cells, IMAGES, PATHOLOGIES))
    intersection_CIK = np.minimum(true_IK, predicted_CIK) // 2
    ids = [f"patient{image % PATIENTS}_study1_view{image // PATIENTS}" for image in range(IMAGES)]
    return np.stack(
        [intersection_CIK, predicted_CIK, np.broadcast_to(true_IK, predicted_CIK.shape)], axis=-1
    ), ids


def in_a_loop(counts_CIK3: np.ndarray, ids: list[str], replicates: int) -> np.ndarray:
    """Return iou_BCK of replicates, each by gathering the rows of its patients."""
    generator = np.random.default_rng(1)
    patients = np.array([patient_of(name) for name in ids])
    rows = pd.Series(range(len(ids))).groupby(patients).apply(np.array).tolist()
    out = []
    for _ in range(replicates):
        drawn_I = np.concatenate(
            [rows[patient] for patient in generator.integers(0, len(rows), len(rows))]
        )
        out.append(
            [pooled_iou(counts_IK3[drawn_I], require_expert=True) for counts_IK3 in counts_CIK3]
        )
    return np.array(out)


def two_way_bootstrap(sampled_BT: np.ndarray) -> np.ndarray:
    """Return mean_B over trials drawn with replacement in each bootstrap sample of patients.

    Each replicate resamples patients and trials (Owen 2007, "The pigeonhole bootstrap"). Its
    percentiles are too narrow for few trials; `crossed` has the coverages.
    """
    replicates, number = sampled_BT.shape
    drawn_BT = np.random.default_rng(0).integers(0, number, (replicates, number))
    return np.take_along_axis(sampled_BT, drawn_BT, axis=1).mean(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", type=int, default=50, help="(default: 50)")
    parser.add_argument("--trials", type=int, default=3, help="cells of an arm (default: 3)")
    parser.add_argument("--replicates", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--loop", type=int, default=20, help="replicates of the loop (default: 20)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each side, in turns (default: 3)"
    )
    arguments = parser.parse_args()
    counts_CIK3, ids = counts(arguments.arms * arguments.trials)
    seconds: dict[str, list[float]] = {
        "ours": [],
        "ours, and intervals of all arms": [],
        "in a loop": [],
    }
    for _ in range(arguments.rounds):
        started = time.process_time()
        iou_BCK = bootstrap_iou(counts_CIK3, ids, arguments.replicates)
        seconds["ours"].append(time.process_time() - started)
        values_AT = miou(pooled_iou(counts_CIK3, require_expert=True))[0].reshape(
            arguments.arms, -1
        )
        sampled_BAT = miou(iou_BCK)[0].reshape(arguments.replicates, *values_AT.shape)
        for arm, values_T in enumerate(values_AT):
            crossed(values_T[:, None], sampled_BAT[:, arm, :, None], PATIENTS).interval([1.0])
            two_way_bootstrap(sampled_BAT[:, arm])
        seconds["ours, and intervals of all arms"].append(time.process_time() - started)
        started = time.process_time()
        slow_BCK = in_a_loop(counts_CIK3, ids, arguments.loop)
        seconds["in a loop"].append(
            (time.process_time() - started) * arguments.replicates / arguments.loop
        )

    print(
        f"{arguments.replicates:,} replicates, {IMAGES} images of {PATIENTS} patients, "
        f"{PATHOLOGIES} pathologies, {arguments.arms} arms of {arguments.trials} trials; CPU time, "
        f"best of {arguments.rounds}"
    )
    print(f"{'':<36}{'s':>9}{'times ours':>12}")
    best = {side: min(values) for side, values in seconds.items()}
    for side, fastest in best.items():
        print(f"{side:<36}{fastest:>9.2f}{fastest / best['ours']:>12.1f}")
    spreads = [np.nanstd(miou(iou_sample)[0], axis=0).mean() for iou_sample in (iou_BCK, slow_BCK)]
    print(
        f"the loop ran {arguments.loop} replicates; standard error of the mIoU: ours "
        f"{spreads[0]:.5f}, loop {spreads[1]:.5f}"
    )


if __name__ == "__main__":
    main()
