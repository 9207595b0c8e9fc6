"""Measure arms, their differences and the gap closed; correct for multiple tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.crossed import Trial, by_draw, crossed
from chexseg.analysis.statistics.scores import (
    Interval,
    bootstrap_iou,
    bootstrap_logit_t,
    bootstrap_t,
    miou,
    patient_of,
    pooled_iou,
    t_interval,
)
from chexseg.errors import counted
from chexseg.plan.cells import FEWEST_TRIALS

#: Even if all patients agree, fewer than six can't exclude 0 at 95%: the sign test's P-value for
#: five, 2 / 2 ** 5, is above 0.05.
FEWEST_PATIENTS = 6
#: Fewer optimiser steps, or trials than `FEWEST_TRIALS`, give points without a verdict.
FEWEST_STEPS = 60
#: The reason why a difference between models of one draw is undecided.
ONE_DRAW = "given one classifier, encoder and split"
#: Adjusted P-values below it are significant.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measured:
    """IoU of an arm's trials on the test set and on bootstrap samples of its patients.

    The last index of K is the mIoU. trials: None for masks without trials, such as the
    radiologists' (T = 1). patients_K: number of test patients with an expert pixel.
    """

    trials: tuple[Trial, ...] | None
    values_TK: np.ndarray
    sampled_BTK: np.ndarray
    patients_K: np.ndarray

    def by_draw(self, k: int) -> np.ndarray:
        """Return values_U of the k-th pathology (`by_draw`)."""
        return by_draw(self.values_TK[:, k], self.trials or [(0, 0)])

    def mean(self, k: int) -> float:
        """Return the mean over draws and trials of the k-th pathology's IoU."""
        return float(self.by_draw(k).mean())

    def sampled(self, k: int) -> np.ndarray:
        """Return the same mean on each bootstrap sample."""
        sampled_UB = by_draw(self.sampled_BTK[..., k].T, self.trials or [(0, 0)])
        return np.asarray(sampled_UB.mean(axis=0))

    def at(self, trials: Sequence[Trial], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (values_T, sampled_BT) of these trials."""
        rows = [0 if self.trials is None else self.trials.index(trial) for trial in trials]
        return self.values_TK[rows, k], self.sampled_BTK[:, rows, k]


def measured(
    counts_TIK3: np.ndarray,
    image_ids: Sequence[str],
    trials: Sequence[Trial] | None,
    replicates: int = 1000,
    seed: int = 0,
) -> Measured:
    """Return pooled IoU by pathology and its mean; the seed fixes the samples of patients."""
    iou_TK = pooled_iou(counts_TIK3, require_expert=True)
    sampled_BTK = bootstrap_iou(counts_TIK3, image_ids, replicates, seed)
    patients = np.array([patient_of(name) for name in image_ids])
    true_IK = counts_TIK3[0, ..., 2] > 0
    true_IK = np.column_stack([true_IK, true_IK.any(axis=1)])
    return Measured(
        None if trials is None else tuple(trials),
        np.concatenate([iou_TK, miou(iou_TK)[0][:, None]], axis=1),
        np.concatenate([sampled_BTK, miou(sampled_BTK)[0][..., None]], axis=2),
        np.array([len(set(patients[true_I])) for true_I in true_IK.T]),
    )


def over_patients(arm: Measured, k: int = -1) -> Interval:
    """Return the mean over trials of the k-th pathology's IoU with its interval over patients.

    By default it is the mIoU. Trials are held fixed. Fewer than `FEWEST_PATIENTS` patients with an
    expert pixel have no interval.
    """
    number = int(arm.patients_K[k])
    if number < FEWEST_PATIENTS:
        return Interval(arm.mean(k), np.nan, np.nan, number)
    return bootstrap_logit_t(arm.mean(k), arm.sampled(k), number)


def patients_interval(
    estimate: float, sampled_B: np.ndarray, number: int
) -> tuple[Interval, float]:
    """Return `bootstrap_t` of `number` patients; fewer than `FEWEST_PATIENTS` have neither."""
    if number < FEWEST_PATIENTS:
        return Interval(estimate, np.nan, np.nan, number), np.nan
    return bootstrap_t(estimate, sampled_B, number)


@dataclass(frozen=True)
class Difference:
    """One arm's IoU minus another's in the trials of both, with its intervals.

    All three are paired and have the same mean. n_draws, n_trials: paired draws and trials.
    """

    patients: Interval  # trials fixed, patients resampled; paired by patient
    trials: Interval  # patients fixed; paired by draw, or by a single draw's trial
    together: Interval  # paired by both, `crossed`
    p: float  # two-sided, of no difference over trials and patients; NaN without an interval
    patients_p: float  # the same over patients alone, valid for these trials only
    n_draws: int
    n_trials: int

    @property
    def value(self) -> float:
        """Return the difference of the means."""
        return self.together.mean

    def one_sided(self, sign: int) -> float:
        """Return the P-value of the alternative that the difference has this sign, 1 or -1."""
        return self.p / 2 if sign * self.value > 0 else 1 - self.p / 2


def fault(step: Difference, steps: float = np.inf) -> str | None:
    """Return why a difference of trained models has no test, or None if it has one.

    steps: fewest optimiser steps of a compared model.
    """
    if not step.n_trials:
        return "no trial has finished in both"
    if np.isnan(step.value):
        return "no expert mask in the test set"
    if steps < FEWEST_STEPS:
        return f"{steps:g} optimiser steps, a test needs {FEWEST_STEPS}"
    if step.n_trials < FEWEST_TRIALS:
        return f"{counted(step.n_trials, 'trial')}, a test needs {FEWEST_TRIALS}"
    if step.patients.n < FEWEST_PATIENTS:
        return f"fewer than {FEWEST_PATIENTS} patients have an expert mask"
    return None if not np.isnan(step.p) else "no interval"


def holds_for_one_draw(n_draws: int, *sides: Mapping[Trial, str]) -> bool:
    """Return whether a difference of one draw may come from the stages before the fits.

    sides: trial -> the keys of these stages and the expert split. Equal ones can't make a
    difference. Masks without trials, such as the radiologists', have none; two sides without any
    are fixed masks, not ways of training.
    """
    if n_draws > 1 or not any(sides):
        return False
    shared = set.intersection(*(set(side) for side in sides if side))
    return any(len({side.get(trial) for side in sides}) > 1 for trial in shared)


def shared_trials(*arms: Measured) -> list[Trial]:
    """Return the trials common to all arms; draw and trial determine seeds and weak images."""
    numbered = [arm.trials for arm in arms if arm.trials is not None]
    return sorted(set(numbered[0]).intersection(*numbered[1:])) if numbered else [(0, 0)]


def difference(first: Measured, second: Measured, k: int = -1) -> Difference:
    """Return first minus second in the k-th pathology's IoU, by default in mIoU.

    Only trials that both arms have finished count. Fewer than `FEWEST_PATIENTS` patients with an
    expert pixel have no interval over patients or both; fewer than two paired trials have none over
    both.
    """
    number, trials = int(first.patients_K[k]), shared_trials(first, second)
    n_draws = len({draw for draw, _ in trials})
    if not trials:
        none = Interval(np.nan, np.nan, np.nan, 0)
        return Difference(
            Interval(np.nan, np.nan, np.nan, number), none, none, np.nan, np.nan, 0, 0
        )
    (first_T, first_BT), (second_T, second_BT) = first.at(trials, k), second.at(trials, k)
    differences_U = by_draw(first_T - second_T, trials)
    over_units, p = t_interval(differences_U), np.nan
    together = Interval(float(differences_U.mean()), np.nan, np.nan, len(differences_U))
    if number >= FEWEST_PATIENTS:
        values_T1, sampled_BT1 = (first_T - second_T)[:, None], (first_BT - second_BT)[..., None]
        together, p = crossed(values_T1, sampled_BT1, number, trials).interval([1.0])
    sampled_B = by_draw((first_BT - second_BT).T, trials).mean(axis=0)
    patients, patients_p = patients_interval(together.mean, sampled_B, number)
    return Difference(patients, over_units, together, p, patients_p, n_draws, len(trials))


def gap_closed(method: Measured, weak: Measured, radiologists: Measured, k: int = -1) -> Interval:
    """Return (method - weak) / (radiologists - weak), over trials and patients (`Crossed.ratio`).

    `n` is the number of trials that method and weak share; all use the same samples of patients.
    The ratio is NaN unless the radiologists' mean is above the weak method's, and has no interval
    if these two don't differ significantly.
    """
    trials = shared_trials(method, weak)
    (method_T, method_BT), (weak_T, weak_BT), (readers_T, readers_BT) = (
        arm.at(trials, k) for arm in (method, weak, radiologists)
    )
    patients = int(method.patients_K[k])
    if not trials or patients < FEWEST_PATIENTS or not readers_T.mean() > weak_T.mean():
        return Interval(np.nan, np.nan, np.nan, len(trials))
    values_T2 = np.stack([method_T - weak_T, readers_T - weak_T], axis=-1)
    sampled_BT2 = np.stack([method_BT - weak_BT, readers_BT - weak_BT], axis=-1)
    return crossed(values_T2, sampled_BT2, patients, trials).ratio()


# ---- multiple tests ------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's (1979) adjusted P-values of a family; NaN is no test and stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    adjusted = np.full(p.shape, np.nan)
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def verdicts(
    differences: pd.Series, adjusted: pd.Series, higher: str, lower: str, undecided: str
) -> pd.Series:
    """Return the verdict on each difference by its sign and its adjusted P-value.

    Differences without a test are undecided; undefined ones have None.
    """
    signs = pd.Series(lower, differences.index, dtype=object).mask(differences > 0, higher)
    return signs.where(adjusted < SIGNIFICANT, undecided).mask(differences.isna(), None)
