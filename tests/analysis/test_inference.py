"""Test inference over trials and patients on 3 images x 2 pathologies x 2 trials, by hand.

Also tests Holm's correction and the share of a gap that is closed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from chexseg.analysis.statistics.crossed import by_draw, crossed
from chexseg.analysis.statistics.inference import (
    FEWEST_PATIENTS,
    Measured,
    difference,
    gap_closed,
    holm,
    measured,
)
from tests.analysis.test_statistics import COUNTS_TIK3, IDS

# mIoU of the two trials on samples of the two patients: both, the first twice, the second twice.
# Summed counts of trial 0:
#   both    6/13 and 1/9;  the first  2/(7 + 4 - 2) and 0/5;  the second  4/4 and 1/(2 + 3 - 1)
# and of trial 1:
#   both    8/8 and 3/8;   the first  4/4 and 0/5;            the second  4/4 and 3/3
BOTH = np.array([(6 / 13 + 1 / 9) / 2, (1 + 3 / 8) / 2])
FIRST = np.array([(2 / 9 + 0) / 2, (1 + 0) / 2])
SECOND = np.array([(1 + 1 / 4) / 2, (1 + 1) / 2])
#: Both are of one draw.
TRIALS = ((0, 0), (0, 1))
#: Two of the four equally likely draws of two patients are "both".
SAMPLED_BT = np.stack([BOTH, BOTH, FIRST, SECOND])


def test_bootstrap_of_the_example_draws_these_samples():
    estimate = measured(COUNTS_TIK3, IDS, TRIALS, replicates=400)
    assert estimate.values_TK[:, -1] == pytest.approx(BOTH)
    rows = {tuple(row) for row in estimate.sampled_BTK[..., -1].round(9)}
    assert rows == {tuple(row) for row in SAMPLED_BT.round(9)}
    # Both patients show the first pathology in the truth, and both the second.
    assert estimate.patients_K.tolist() == [2, 2, 2]


def test_crossed_interval_by_hand():
    estimate = crossed(BOTH[:, None], SAMPLED_BT[..., None], n_patients=2)
    # Trials: half the squared difference is the variance of two values. Half of that is the
    # variance of their mean.
    trials = (BOTH[1] - BOTH[0]) ** 2 / 4
    # Patients: covariance of the two columns of SAMPLED_BT over 3 = 4 - 1, times 2 / (2 - 1) for
    # two patients.
    first, second = SAMPLED_BT.T
    shared = (
        2
        * sum((a - first.mean()) * (b - second.mean()) for a, b in zip(first, second, strict=True))
        / 3
    )
    assert estimate.trials_QQ.item() == pytest.approx(
        trials
    ) and estimate.patients_QQ.item() == pytest.approx(shared)
    interval, p = estimate.interval([1.0], confidence=0.5)
    mean, error = (BOTH[0] + BOTH[1]) / 2, (trials + shared) ** 0.5
    # Both components have one degree of freedom, so weights don't matter: t(0.75, 1) = 1.
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (mean, mean - error, mean + error)
    )
    # At 95% it is t(0.975, 1) = 12.706 times as wide, which reaches beyond all differences.
    assert np.isnan(estimate.interval([1.0])[0].low)
    assert p == pytest.approx(2 * stats.t.sf(mean / error, 1))
    assert interval.n == 2


def test_critical_values_are_weighted_by_the_shares_of_the_variance():
    values_T = np.array([0.0, 2.0, 4.0])  # variance 4; of the mean 4/3
    generator = np.random.default_rng(0)
    common_B = generator.normal(0, 1, 4000)
    estimate = crossed(
        values_T[:, None], np.repeat(common_B[:, None, None], 3, axis=1), n_patients=101
    )
    patients = common_B.var(ddof=1) * 101 / 100
    share = (4 / 3) / (4 / 3 + patients)
    interval, p = estimate.interval([1.0])
    critical = share * stats.t.ppf(0.975, 2) + (1 - share) * stats.t.ppf(0.975, 100)
    assert interval.high - interval.mean == pytest.approx(critical * (4 / 3 + patients) ** 0.5)
    # The P-value is the level whose interval ends at 0.
    assert estimate.interval([1.0], confidence=1 - p)[0].low == pytest.approx(0, abs=1e-9)


def test_negative_covariance_of_trials_is_no_gain():
    opposed_BT = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert crossed(np.array([[0.4], [0.6]]), opposed_BT[..., None], 10).patients_QQ.item() == 0


def test_one_trial_or_few_patients_give_no_interval():
    assert np.isnan(crossed(BOTH[:1, None], SAMPLED_BT[:, :1, None], 10).interval([1.0])[1])
    arm = measured(COUNTS_TIK3, IDS, TRIALS, replicates=50)
    estimate = difference(arm, arm)
    assert FEWEST_PATIENTS > 2 and np.isnan(estimate.p) and np.isnan(estimate.together.low)


# Two draws of two trials, three images of three patients, one pathology. Every image has one
# predicted and one expert area of 10 pixels; intersections by draw and trial are
#   draw 0: (10, 5, 0) and (5, 5, 5)          draw 1: (10, 10, 10) and (10, 5, 10)
# Sums over images: 15, 15, 30 and 25. With 60 pixels in all, IoU is 15/45, 15/45, 30/30 and 25/35.
NESTED = ((0, 0), (0, 1), (1, 0), (1, 1))
INTERSECTIONS_TI = np.array([[10, 5, 0], [5, 5, 5], [10, 10, 10], [10, 5, 10]])
NESTED_T = np.array([1 / 3, 1 / 3, 1, 5 / 7])


def nested_counts() -> np.ndarray:
    areas_TI = np.full_like(INTERSECTIONS_TI, 10)
    return np.stack([INTERSECTIONS_TI, areas_TI, areas_TI], axis=-1)[:, :, None]


def test_the_components_of_two_draws_of_two_trials_by_hand():
    ids = [f"patient{n}_study1_view1_frontal" for n in range(3)]
    study = measured(nested_counts(), ids, NESTED)
    assert study.values_TK[:, -1] == pytest.approx(NESTED_T)
    # The 27 equally likely samples of three patients take the bootstrap's place.
    sampled_BT = []
    for sample in itertools.product(range(3), repeat=3):
        hits_T = INTERSECTIONS_TI[:, list(sample)].sum(axis=1)
        sampled_BT.append(hits_T / (60 - hits_T))
    estimate = crossed(NESTED_T[:, None], np.array(sampled_BT)[..., None], 3, NESTED)
    # The draws' means are 1/3 and 6/7, their mean 25/42.
    assert by_draw(NESTED_T, NESTED) == pytest.approx([1 / 3, 6 / 7])
    assert estimate.means_Q.item() == pytest.approx(25 / 42)
    # Trials: the sums of squares within draws are 0 and 2 (1/7)^2 over 2 degrees of freedom, so S
    # is 1/49. The mean has four trials.
    trials = (1 / 49) / 4
    assert estimate.trials_QQ.item() == pytest.approx(trials)
    # Draws: half the squared difference of the two means, over two draws, without the trials' part.
    both = (6 / 7 - 1 / 3) ** 2 / 4
    assert estimate.draws_QQ.item() == pytest.approx(both - trials)
    # Patients: the covariance of the two draws' means over 26 = 27 - 1, times 3 / (3 - 1).
    means_BU = [[(row[0] + row[1]) / 2, (row[2] + row[3]) / 2] for row in sampled_BT]
    first, second = np.array(means_BU).T
    shared = ((first - first.mean()) * (second - second.mean())).sum() / 26 * 3 / 2
    assert shared > 0 and estimate.patients_QQ.item() == pytest.approx(shared)
    interval, _ = estimate.interval([1.0], confidence=0.5)
    share = both / (both + shared)
    critical = share * stats.t.ppf(0.75, 1) + (1 - share) * stats.t.ppf(0.75, 2)
    error = (both + shared) ** 0.5
    assert (interval.high - interval.mean, interval.n) == pytest.approx((critical * error, 2))


def test_draws_that_agree_more_than_their_trials_have_no_part():
    values_T = np.array([0.2, 0.4, 0.21, 0.39])
    sampled_BT = values_T + np.random.default_rng(0).normal(0, 0.01, (500, 1))
    estimate = crossed(values_T[:, None], sampled_BT[..., None], 50, NESTED)
    assert estimate.draws_QQ.item() == 0
    assert estimate.trials_QQ.item() == pytest.approx((0.2**2 / 2 + 0.18**2 / 2) / 2 / 4)


def test_one_trial_a_draw_leaves_no_part_to_the_trials():
    trials = ((0, 0), (1, 0), (2, 0))
    sampled_BT = np.random.default_rng(0).normal(0, 0.01, (500, 1)) + [0.1, 0.2, 0.3]
    estimate = crossed(np.array([[0.1], [0.2], [0.3]]), sampled_BT[..., None], 50, trials)
    assert estimate.trials_QQ.item() == 0
    assert estimate.draws_QQ.item() == pytest.approx(0.01 / 3)


def test_difference_by_hand():
    better_TIK3 = COUNTS_TIK3.copy()
    better_TIK3[:, 2, 1] = [3, 3, 3]
    estimate = difference(measured(better_TIK3, IDS, TRIALS), measured(COUNTS_TIK3, IDS, TRIALS))
    # Only trial 0, pathology 1 changes: from 1/9 to 3/8, over two pathologies and two trials.
    half = (3 / 8 - 1 / 9) / 4
    assert estimate.value == pytest.approx(half)
    # By trial the difference is twice that and 0, so the standard error of the mean equals the
    # mean.
    assert (estimate.trials.mean, estimate.trials.high, estimate.trials.n) == pytest.approx(
        (half, half * (1 + 12.7062), 2)
    )
    assert estimate.patients.n == 2 and np.isnan(estimate.patients.low), (
        "two patients are too few to say anything"
    )


def arm(values_T, sampled_BT, trials=(0, 1, 2), patients=50) -> Measured:
    """Return an arm of one draw."""
    values_T, sampled_BT = np.asarray(values_T, dtype=float), np.asarray(sampled_BT, dtype=float)
    of_draw = None if trials is None else tuple((0, trial) for trial in trials)
    return Measured(of_draw, values_T[:, None], sampled_BT[..., None], np.array([patients]))


def sampled(values_T, seed=0, spread=0.01, trial_noise=0.002) -> np.ndarray:
    """Return bootstrap samples in which all trials share the effect of the choice of patients."""
    generator = np.random.default_rng(seed)
    common_B1 = np.random.default_rng(99).normal(0, spread, (1000, 1))
    return (
        np.asarray(values_T) + common_B1 + generator.normal(0, trial_noise, (1000, len(values_T)))
    )


def test_difference_pairs_by_trial_number_and_by_patient():
    one = arm([0.30, 0.34, 0.38], sampled([0.30, 0.34, 0.38], 1))
    other = arm([0.3701, 0.33, 0.2899], sampled([0.3701, 0.33, 0.2899], 2), trials=(2, 1, 0))
    estimate = difference(one, other)
    assert estimate.value == pytest.approx(0.01)
    # Each trial's difference is close to 0.01: the spread between trials and patients cancels out.
    assert (
        estimate.trials.low == pytest.approx(0.01, abs=3e-4)
        and estimate.together.low > 0
        and estimate.p < 0.001
    )
    assert estimate.together.low < estimate.together.mean < estimate.together.high
    apart = difference(
        one, arm([0.29, 0.33, 0.37], sampled([0.29, 0.33, 0.37], 2), trials=(5, 6, 7))
    )
    assert apart.trials.n == 0 and np.isnan(apart.p) and np.isnan(apart.together.low)
    assert difference(one, one).together.low == 0 and difference(one, one).p == 1


def test_holm_by_hand():
    # 0.01 x 3, then 0.02 x 2, then 0.04 x 1, which may not fall below the previous value.
    assert holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    # Comparisons that could not be tested are not counted.
    assert holm([np.nan, 0.01, 0.02]) == pytest.approx([np.nan, 0.02, 0.02], nan_ok=True)
    assert len(holm([])) == 0


def test_holm_finds_something_in_nothing_in_5_percent_of_families():
    p_values = np.random.default_rng(0).random((2000, 10))
    assert np.mean([holm(row).min() < 0.05 for row in p_values]) == pytest.approx(0.05, abs=0.015)


def test_gap_closed_by_hand():
    weak, mixed, readers = [0.10, 0.11, 0.12], [0.24, 0.25, 0.26], [0.31]
    sides = [arm(v, sampled(v, n)) for n, v in enumerate((mixed, weak))]
    share = gap_closed(*sides, arm(readers, sampled(readers, 5), trials=None))
    assert share.mean == pytest.approx((0.25 - 0.11) / (0.31 - 0.11))
    assert 0.6 < share.low < 0.7 < share.high < 0.8 and share.n == 3


def test_gap_is_undefined_where_radiologists_are_not_above_weak():
    weak, mixed = [0.30, 0.31, 0.32], [0.34, 0.35, 0.36]
    sides = [arm(v, sampled(v, n)) for n, v in enumerate((mixed, weak))]
    assert np.isnan(gap_closed(*sides, arm([0.2], sampled([0.2], 5), trials=None)).mean)
    # Above, but not significantly: a share without bounds.
    near = gap_closed(*sides, arm([0.311], sampled([0.311], 5, trial_noise=0.01), trials=None))
    assert near.mean > 0 and np.isnan(near.low)


def test_gap_closed_holds_0_where_the_methods_are_not_told_apart():
    weak, mixed, readers = [0.10, 0.20, 0.15], [0.12, 0.16, 0.18], [0.40]
    sides = [arm(v, sampled(v, n)) for n, v in enumerate((mixed, weak))]
    share = gap_closed(*sides, arm(readers, sampled(readers, 5), trials=None))
    together = difference(*sides).together
    assert together.low < 0 < together.high and share.low < 0 < share.high


@pytest.mark.parametrize("trials", [3, 8])
def test_fieller_ends_are_the_shares_that_are_just_not_told_from_the_mean(trials):
    generator = np.random.default_rng(trials)
    values_T2 = np.array([0.14, 0.2]) + generator.normal(0, 0.01, (trials, 2))
    sampled_BT2 = values_T2 + generator.normal(0, 0.01, (1000, 1, 2))
    estimate = crossed(values_T2, sampled_BT2, 60)
    interval = estimate.ratio()
    assert interval.low < interval.mean < interval.high
    for end in (interval.low, interval.high):
        # Not exactly 0.05, because one critical value serves all shares.
        assert 0.02 < estimate.interval([1.0, -end])[1] < 0.051
