"""Test our evaluation against CheXlocalize's protocol, step by step as its paper describes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from chexseg.data import chexlocalize
from chexseg.evaluation import protocol
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES

SIDE = 12


def masks(seed: int, names: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """Return images with all ten pathologies, half of the masks empty, as in the benchmark."""
    generator = np.random.default_rng(seed)
    draw = lambda: (generator.random((SIDE, SIDE)) < 0.4) & (generator.random() < 0.5)  # noqa: E731
    return {name: {pathology: draw() for pathology in PATHOLOGIES} for name in names}


def by_the_book(
    gt: dict[str, dict[str, np.ndarray]],
    pred: dict[str, dict[str, np.ndarray]],
    true_pos_only: bool,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return (results, bootstrap samples, summary) by the plain protocol.

    Pixels are decoded one image after another; data frames are resampled in a loop.
    """
    rows = []
    for image_id in sorted(gt if true_pos_only else set(gt) | set(pred)):
        row: dict[str, object] = {}
        for name in PATHOLOGIES:
            empty = np.zeros((SIDE, SIDE), dtype=bool)
            true, guess = (
                gt.get(image_id, {}).get(name, empty),
                pred.get(image_id, {}).get(name, empty),
            )
            counted = true.any() and guess.any() if true_pos_only else (true | guess).any()
            row[name] = (true & guess).sum() / (true | guess).sum() if counted else np.nan
        rows.append(row | {"img_id": image_id})
    results = pd.DataFrame(rows)
    np.random.seed(seed)
    samples = pd.DataFrame(
        [
            results[list(PATHOLOGIES)].iloc[np.random.choice(len(rows), len(rows))].mean()
            for _ in range(1000)
        ]
    ).reset_index(drop=True)
    summary = []
    for name in sorted(PATHOLOGIES):
        ordered = samples[name].sort_values()  # NaN last
        lower, upper = ordered.iloc[24], ordered.iloc[974]
        summary.append(
            {
                "name": name,
                "lower": round(lower, 3),
                "mean": round(ordered.mean(), 3),
                "upper": round(upper, 3),
            }
        )
    return results, samples, pd.DataFrame(summary)


@pytest.mark.parametrize("true_pos_only", [True, False])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_three_files_are_those_of_the_protocol(tmp_path, true_pos_only, seed):
    names = tuple(f"patient{number}_study1_view1_frontal" for number in (9, 10, 4, 7, 5))
    gt, pred = masks(1, names), masks(2, (*names[1:], "patient2_study1_view1_frontal"))
    for entry in gt.values():
        entry["Lung Lesion"][:] = False
    chexlocalize.write(tmp_path / "gt.json", gt)
    chexlocalize.write(tmp_path / "pred.json", pred)
    evaluation = evaluate(
        tmp_path / "gt.json", tmp_path / "pred.json", "per-image", true_pos_only, seed
    )
    expected = by_the_book(gt, pred, true_pos_only, seed)
    files = (
        "iou_results_per_cxr.csv",
        "iou_bootstrap_results_per_cxr.csv",
        "iou_summary_results.csv",
    )
    assert tuple(evaluation.published) == files
    for file, table in zip(files, expected, strict=True):
        pd.testing.assert_frame_equal(
            evaluation.published[file].reset_index(drop=True), table, check_dtype=False, rtol=1e-12
        )
    results = expected[0]
    means = results[list(PATHOLOGIES)].mean()
    np.testing.assert_allclose(evaluation.table["iou"], [*means, means.mean()], rtol=1e-12)
    assert evaluation.table["n_images"].tolist() == [
        *results[list(PATHOLOGIES)].notna().sum(),
        len(results),
    ]


def test_one_value_is_its_own_interval_and_none_has_none():
    values_IK = np.full((3, 2), np.nan)
    values_IK[1, 0] = 0.25
    samples_BK = protocol.bootstrap(values_IK)
    assert np.isnan(samples_BK[:, 1]).all()
    drawn = ~np.isnan(samples_BK[:, 0])
    # An image is missing from a sample of three with probability (2 / 3) ** 3.
    assert abs((~drawn).mean() - (2 / 3) ** 3) < 0.05 and (samples_BK[drawn, 0] == 0.25).all()


def test_the_interval_covers():
    """Check that 95% intervals contain the mean of 80 images, within the error of 400 studies."""
    generator = np.random.default_rng(5)
    inside = 0
    for seed in range(400):
        values_IK = generator.beta(2, 3, size=(80, 1))
        (low,), (high,) = protocol.interval(protocol.bootstrap(values_IK, seed=seed))
        inside += low <= 2 / 5 <= high
    assert 0.91 <= inside / 400 <= 0.98
