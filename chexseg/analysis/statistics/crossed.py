"""Infer over draws, trials and patients: crossed intervals and Fieller's ratio.

All trials of an arm are scored on the same test patients, as all readers of a multi-reader
multi-case study read the same cases. Both are random samples, so an interval that holds one of them
fixed is too narrow for a claim about the method. Trials are nested in draws of what they share: a
split, a classifier and an encoder are random samples too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from chexseg.analysis.statistics.scores import Interval

#: Lower bound of the computed P-values.
LEAST_P = 1e-12

#: (draw, trial) of a fit. A draw is one expert split, classifier, encoder and IRNet.
Trial = tuple[int, int]


def by_draw(values_TL: np.ndarray, trials: Sequence[Trial]) -> np.ndarray:
    """Return the independent values of trials: each draw's mean, or a single draw's trials.

    L: any further axes. trials: of the T values.
    """
    draw_T = np.array([draw for draw, _ in trials])
    draws = np.unique(draw_T)
    if len(draws) < 2:
        return values_TL
    return np.stack([values_TL[draw_T == draw].mean(axis=0) for draw in draws])


@dataclass(frozen=True)
class Crossed:
    """Means of Q quantities, with their covariance due to draws, trials and patients.

    draws_QQ is 0 with a single draw. n_units: number of draws, or of a single draw's trials.
    """

    means_Q: np.ndarray
    draws_QQ: np.ndarray
    trials_QQ: np.ndarray
    patients_QQ: np.ndarray
    n_units: int
    n_patients: int

    def error(self, weights_Q: Sequence[float]) -> tuple[float, float]:
        """Return (standard error, share of draws and trials in the variance) of a weighted sum."""
        vector_Q = np.asarray(weights_Q, dtype=np.float64)
        units, patients = (
            float(vector_Q @ part_QQ @ vector_Q)
            for part_QQ in (self.draws_QQ + self.trials_QQ, self.patients_QQ)
        )
        total = max(units + patients, 0.0)
        return total**0.5, units / total if total else 0.0

    def critical(self, share: float, tail: float) -> float:
        """Return the critical value, in standard errors, for a one-sided tail probability.

        It is the mean of Student's quantiles with U - 1 and P - 1 degrees of freedom, weighted by
        the variance shares of the U draws (or a single draw's trials) and of patients (Cochran
        1964). Satterthwaite's degrees of freedom would cover too little with few of them; see
        `crossed`.
        """
        by_units, by_patients = -special.stdtrit([self.n_units - 1, self.n_patients - 1], tail)
        return float(share * by_units + (1 - share) * by_patients)

    def interval(
        self, weights_Q: Sequence[float], confidence: float = 0.95
    ) -> tuple[Interval, float]:
        """Return the weighted sum of means with its interval, and the two-sided P-value of 0."""
        mean = float(np.asarray(weights_Q, dtype=np.float64) @ self.means_Q)
        error, share = self.error(weights_Q)
        if np.isnan(error):
            return Interval(mean, np.nan, np.nan, self.n_units), np.nan
        if error == 0:
            return Interval(mean, mean, mean, self.n_units), float(mean == 0)
        half, p = (
            self.critical(share, (1 - confidence) / 2) * error,
            self._p(abs(mean) / error, share),
        )
        # An interval of two draws or trials that reaches beyond all differences says nothing.
        if self.n_units == 2 and abs(mean) + half > 1:
            return Interval(mean, np.nan, np.nan, self.n_units), p
        return Interval(mean, mean - half, mean + half, self.n_units), p

    def _p(self, errors: float, share: float) -> float:
        """Return the P-value whose critical value is this number of standard errors."""

        def excess(log_p: float) -> float:
            return self.critical(share, np.exp(log_p) / 2) - errors

        least = np.log(LEAST_P)
        return float(np.exp(optimize.brentq(excess, least, 0.0))) if excess(least) > 0 else LEAST_P

    def ratio(self, confidence: float = 0.95) -> Interval:
        """Return the first mean over the second with Fieller's (1954) interval.

        The interval contains the ratios g for which first - g * second doesn't differ significantly
        from 0. It is unbounded, and so absent, if the second mean doesn't differ from 0.

        The critical value is the largest of those of the first mean, the second, and their
        difference at the ratio. The interval is therefore connected, and contains 0 if the first
        mean doesn't differ from 0. With 2 and 3 simulated trials it covered the truth in 98 to
        99.7% of 1,000 studies.
        """
        first, second = (float(mean) for mean in self.means_Q)
        ratio = first / second if second else np.nan
        shares = [self.error(weights)[1] for weights in ([1.0, 0.0], [0.0, 1.0], [1.0, -ratio])]
        squared = max(self.critical(share, (1 - confidence) / 2) for share in shares) ** 2
        (v11, v12), (_, v22) = squared * (self.draws_QQ + self.trials_QQ + self.patients_QQ)
        # The quadratic inequality (first - g * second)^2 <= v11 - 2 g v12 + g^2 v22, solved for g.
        a, b, c = second**2 - v22, first * second - v12, first**2 - v11
        if not a > 0:
            return Interval(ratio, np.nan, np.nan, self.n_units)
        root = max(b * b - a * c, 0.0) ** 0.5
        return Interval(ratio, float((b - root) / a), float((b + root) / a), self.n_units)


def crossed(
    values_TQ: np.ndarray,
    sampled_BTQ: np.ndarray,
    n_patients: int,
    trials: Sequence[Trial] | None = None,
) -> Crossed:
    """Return means with their covariance when draws, trials and patients are samples.

    values_TQ: Q quantities of each trial on the test set. sampled_BTQ: the same on bootstrap
    samples of its patients, with the same samples for all trials. trials: of the T values; None: of
    one draw.

    The variance of a mean over T trials of one draw is S / T + C (Obuchowski and Rockette 1995,
    Hillis 2014). S is the sample variance of the trials on the test set. C is the covariance of two
    trials under resampling of patients, at least 0. The mean then is that of this draw.

    With D draws of T trials each, the mean is that of the draws' means, and these take the place of
    the trials: their sample variance over D is the draws' part plus the trials' part, S / (D T),
    with S pooled within draws. The draws' part is at least 0. NaN with fewer than two trials or
    patients.

    Coverage of the truth by the 95% interval in 1,000 simulated studies of 120 patients, where
    trials have from a fifth to four fifths of a mean's variance:

    - this interval: 98 to 93% with 2 trials, 98 to 95% with 3, 95% with 10;
    - with Satterthwaite's degrees of freedom: 94 to 87, 95 to 93 and 94%;
    - percentiles of a bootstrap over both (Owen 2007): 93 to 66, 94 to 78 and 94 to 92%.
    """
    trials = trials or [(0, trial) for trial in range(len(values_TQ))]
    values_UQ = by_draw(values_TQ, trials)
    number, quantities = values_UQ.shape
    means_Q = values_UQ.mean(axis=0)
    if number < 2 or n_patients < 2:
        nothing_QQ = np.full((quantities, quantities), np.nan)
        return Crossed(means_Q, nothing_QQ, nothing_QQ, nothing_QQ, number, n_patients)
    kept_BTQ = sampled_BTQ[~np.isnan(sampled_BTQ).any(axis=(1, 2))]
    kept_BUQ = np.moveaxis(by_draw(np.moveaxis(kept_BTQ, 1, 0), trials), 0, 1)
    centred_BUQ = kept_BUQ - kept_BUQ.mean(axis=0)
    sum_BQ = centred_BUQ.sum(axis=1)
    within_QQ = np.einsum("buq,bur->qr", centred_BUQ, centred_BUQ)
    shared_QQ = (sum_BQ.T @ sum_BQ - within_QQ) / (number * (number - 1) * (len(kept_BTQ) - 1))
    # Bootstrap samples of P patients have (P - 1) / P of the variance of new patients.
    patients_QQ = _non_negative(shared_QQ * n_patients / (n_patients - 1))
    units_QQ = np.cov(values_UQ, rowvar=False, ddof=1).reshape(quantities, quantities) / number
    if len({draw for draw, _ in trials}) < 2:
        return Crossed(means_Q, np.zeros_like(units_QQ), units_QQ, patients_QQ, number, n_patients)
    trials_QQ = _within_draws(values_TQ, trials)
    draws_QQ = _non_negative(units_QQ - trials_QQ)
    return Crossed(means_Q, draws_QQ, trials_QQ, patients_QQ, number, n_patients)


def _within_draws(values_TQ: np.ndarray, trials: Sequence[Trial]) -> np.ndarray:
    """Return the covariance of the mean of the draws' means that is due to their trials.

    0 if each draw has one trial: the draws' part then contains it.
    """
    draw_T = np.array([draw for draw, _ in trials])
    groups = [values_TQ[draw_T == draw] for draw in np.unique(draw_T)]
    freedom = len(values_TQ) - len(groups)
    centred_TQ = np.concatenate([group_TQ - group_TQ.mean(axis=0) for group_TQ in groups])
    pooled_QQ = centred_TQ.T @ centred_TQ / max(1, freedom)
    return np.asarray(pooled_QQ * sum(1 / len(group_TQ) for group_TQ in groups) / len(groups) ** 2)


def _non_negative(covariance_QQ: np.ndarray) -> np.ndarray:
    """Return an estimate of a covariance without its negative eigenvalues."""
    size_Q, axes_QQ = np.linalg.eigh(covariance_QQ)
    return np.asarray((axes_QQ * np.maximum(size_Q, 0)) @ axes_QQ.T)
