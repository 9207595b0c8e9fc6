"""Test all statistics on 3 images x 2 pathologies x 2 trials, by hand.

The bootstrap is tested by simulation and invariants.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from chexseg.analysis.arms import by_selection, group_cells
from chexseg.analysis.statistics.scores import (
    Interval,
    bootstrap_iou,
    bootstrap_t,
    miou,
    patient_of,
    per_image_iou,
    pooled_iou,
    t_interval,
)

IDS = (
    "patient1_study1_view1_frontal",
    "patient1_study1_view2_frontal",
    "patient2_study1_view1_frontal",
)
# Trials, images, pathologies, (intersection, predicted, true).
COUNTS_TIK3 = np.array(
    [
        [[[2, 4, 4], [0, 0, 5]], [[0, 3, 0], [0, 0, 0]], [[4, 4, 4], [1, 2, 3]]],
        [[[4, 4, 4], [0, 0, 5]], [[0, 0, 0], [0, 0, 0]], [[4, 4, 4], [3, 3, 3]]],
    ]
)


def test_pooled_iou_divides_summed_intersections_by_summed_unions():
    # Trial 0: 6 / (11 + 8 - 6) and 1 / (2 + 8 - 1); trial 1: 8 / 8 and 3 / (3 + 8 - 3).
    assert pooled_iou(COUNTS_TIK3) == pytest.approx(np.array([[6 / 13, 1 / 9], [1, 3 / 8]]))


def test_pooled_iou_is_undefined_without_union_and_on_demand_without_expert():
    counts_IK3 = np.array([[[0, 0, 0], [0, 7, 0]]])
    assert np.isnan(pooled_iou(counts_IK3)).tolist() == [True, False]
    assert pooled_iou(counts_IK3)[1] == 0
    assert np.isnan(pooled_iou(counts_IK3, require_expert=True)).all()


def test_per_image_iou_counts_the_images_it_names():
    # Trial 0, true positives: (2/6 + 4/4) / 2 and 1/4. All: image 2's false positive counts as 0,
    # and so does the missed mask.
    assert per_image_iou(COUNTS_TIK3)[0] == pytest.approx([2 / 3, 1 / 4])
    assert per_image_iou(COUNTS_TIK3, "all")[0] == pytest.approx([4 / 9, 1 / 8])
    assert np.isnan(per_image_iou(COUNTS_TIK3[:, :2])[:, 1]).all()
    with pytest.raises(ValueError, match="true-positives, all"):
        per_image_iou(COUNTS_TIK3, "some")


def test_miou_leaves_undefined_pathologies_out_and_says_how_many():
    mean_L, left_out_L = miou(
        np.array([[0.2, np.nan, 0.4], [np.nan, np.nan, np.nan], [0.1, 0.2, 0.3]])
    )
    assert mean_L == pytest.approx([0.3, np.nan, 0.2], nan_ok=True)
    assert left_out_L.tolist() == [1, 3, 0]


def test_t_interval_of_two_trials_by_hand():
    # Mean 0.3; s = 0.02 * sqrt(2); s / sqrt(2) = 0.02; t(0.975, 1) = 12.706.
    interval = t_interval([0.28, 0.32])
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (0.3, 0.3 - 0.25412, 0.3 + 0.25412), abs=1e-4
    )
    assert interval.n == 2
    # Twice as far apart, the interval would hold IoUs below 0; a difference may be there.
    wide = t_interval([0.26, 0.34], lowest=0)
    assert wide.mean == pytest.approx(0.3) and wide.n == 2 and np.isnan(wide.low)
    assert t_interval([0.26, 0.34]).low == pytest.approx(0.3 - 0.50824, abs=1e-4)
    assert np.isnan(t_interval([0.1, 0.5]).low), "above 1"
    assert t_interval([0.2, np.nan]).n == 1 and np.isnan(t_interval([0.2]).low)
    assert t_interval([]).n == 0 and np.isnan(t_interval([]).mean)


def test_patient_is_what_stands_before_the_study():
    assert [patient_of(name) for name in IDS] == ["patient1", "patient1", "patient2"]


def test_bootstrap_draws_patients_with_all_their_images():
    # Two patients: a sample is both (1/2), the first twice (1/4) or the second twice (1/4).
    values_B = miou(bootstrap_iou(COUNTS_TIK3[0], IDS, replicates=4000))[0]
    both = (6 / 13 + 1 / 9) / 2
    first = (2 / (7 + 4 - 2) + 0) / 2
    second = (1 + 1 / 4) / 2
    shares = [np.isclose(values_B, value).mean() for value in (both, first, second)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


def test_bootstrap_equals_resampling_rows_in_a_loop():
    generator = np.random.default_rng(1)
    true_IK = generator.integers(1, 50, (60, 4))
    predicted_IK = generator.integers(1, 50, (60, 4))
    counts_IK3 = np.stack([np.minimum(true_IK, predicted_IK) // 2, predicted_IK, true_IK], axis=-1)
    ids = [f"patient{i // 2}_study1_view{i % 2}" for i in range(60)]
    fast_B = miou(bootstrap_iou(counts_IK3, ids, replicates=2000))[0]
    slow_B = []
    for _ in range(2000):
        drawn = generator.integers(0, 30, 30)
        rows = np.concatenate([[2 * patient, 2 * patient + 1] for patient in drawn])
        slow_B.append(np.nanmean(pooled_iou(counts_IK3[rows])))
    assert fast_B.mean() == pytest.approx(np.mean(slow_B), abs=3e-3)
    assert fast_B.std() == pytest.approx(np.std(slow_B), rel=0.1)
    assert (fast_B == miou(bootstrap_iou(counts_IK3, ids, replicates=2000))[0]).all(), (
        "the same seed must draw the same patients"
    )
    assert stats.ks_2samp(fast_B, slow_B).pvalue > 1e-3


def test_bootstrap_t_by_hand():
    # Replicates 0, 0, 0.3, 0.5 with mean 0.2: variance (0.04 + 0.04 + 0.01 + 0.09) / 3 = 0.06; of
    # two patients 0.12.
    interval, p = bootstrap_t(0.2, np.array([0, 0, 0.3, 0.5, np.nan]), n=2)
    error = 0.12**0.5
    assert (interval.low, interval.high) == pytest.approx(
        (0.2 - 12.7062 * error, 0.2 + 12.7062 * error)
    )
    assert p == pytest.approx(2 * stats.t.sf(0.2 / error, 1))
    assert np.isnan(bootstrap_t(0.2, np.array([0.1, 0.3]), n=1)[1])
    assert bootstrap_t(0.0, np.zeros(5), n=9) == (Interval(0.0, 0.0, 0.0, 9), 1.0)


def test_arms_gather_trials_and_selection_chooses_without_test_scores(study):
    rows = group_cells(study.cells)
    assert sum(len(arm.indices) for arm in rows) == len(study.cells)
    cam = next(arm for arm in rows if arm.weak == "cam" and arm.p == 0.9)
    assert cam.trials == ((0, 0), (0, 1))
    mixed = [arm for arm in rows if arm.method == "mixed"]
    assert by_selection(mixed) == cam
    assert by_selection([]) is None
