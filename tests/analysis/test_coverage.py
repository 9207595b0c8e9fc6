"""Check that 95% intervals cover the truth in 93 to 97% of 1,000 simulated studies.

Patients and trials are drawn anew for each study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from chexseg.analysis.statistics.crossed import crossed
from chexseg.analysis.statistics.inference import measured
from chexseg.analysis.statistics.scores import bootstrap_t, miou, pooled_iou, t_interval

PATIENTS, PATHOLOGIES, STUDIES = 400, 2, 1000


@dataclass(frozen=True)
class World:
    """Simulate a population of patients with two images each, and how well trials segment them.

    A trial has a quality for all patients, and a patient a difficulty for all trials. Their
    interaction is random.
    """

    true_PIK: np.ndarray
    ease_PIK: np.ndarray
    between_trials: float

    @classmethod
    def populated(cls, between_trials: float) -> World:
        generator = np.random.default_rng(7)
        shown_P1K = generator.random((PATIENTS, 1, PATHOLOGIES)) < 0.6
        true_PIK = np.exp(generator.normal(8, 0.5, (PATIENTS, 2, PATHOLOGIES))) * shown_P1K
        return cls(true_PIK, generator.normal(0.3, 0.8, (PATIENTS, 1, PATHOLOGIES)), between_trials)

    def trials(self, generator: np.random.Generator, number: int) -> np.ndarray:
        """Return counts_TPIK3 of new trials on the whole population."""
        shape = (number, *self.true_PIK.shape)
        skill = (
            self.ease_PIK
            + generator.normal(0, self.between_trials, (number, 1, 1, 1))
            + generator.normal(0, 0.5, shape)
        )
        predicted = self.true_PIK * np.exp(generator.normal(0, 0.3, shape))
        intersection = np.minimum(self.true_PIK, predicted) / (1 + np.exp(-skill))
        return np.stack([intersection, predicted, np.broadcast_to(self.true_PIK, shape)], axis=-1)


def miou_T(counts_TPIK3: np.ndarray) -> np.ndarray:
    return miou(pooled_iou(counts_TPIK3.reshape(len(counts_TPIK3), -1, PATHOLOGIES, 3)))[0]


@pytest.mark.parametrize("between_trials", [0.05, 0.4])
def test_intervals_cover_the_truth_in_95_percent_of_studies(between_trials):
    world, generator = World.populated(between_trials), np.random.default_rng(0)
    many_TPIK3 = world.trials(generator, 200)
    population = float(miou_T(many_TPIK3).mean())
    sums_PR = np.moveaxis(many_TPIK3.sum(axis=2), 1, 0).reshape(PATIENTS, -1)
    ids = [f"patient{n // 2}_study1_view{n % 2}" for n in range(2 * 120)]
    covered = {"trials": 0, "patients": 0, "both": 0}
    for seed in range(STUDIES):
        drawn = generator.integers(0, PATIENTS, 120)
        whole_TPIK3 = world.trials(generator, 3)
        study = measured(
            whole_TPIK3[:, drawn].reshape(3, -1, PATHOLOGIES, 3),
            ids,
            [(0, trial) for trial in range(3)],
            replicates=150,
            seed=seed,
        )
        values_T, sampled_BT = study.values_TK[:, -1], study.sampled_BTK[..., -1]
        weights_P = np.bincount(drawn, minlength=PATIENTS).astype(float)
        truth = {
            # New trials, same patients; same trials, all patients; new trials, all patients.
            "trials": float(
                miou_T((weights_P @ sums_PR).reshape(200, 1, 1, PATHOLOGIES, 3)).mean()
            ),
            "patients": float(miou_T(whole_TPIK3).mean()),
            "both": population,
        }
        intervals = {
            "trials": t_interval(values_T),
            "patients": bootstrap_t(float(values_T.mean()), sampled_BT.mean(axis=1), 120)[0],
            "both": crossed(values_T[:, None], sampled_BT[..., None], 120).interval([1.0])[0],
        }
        for name, interval in intervals.items():
            covered[name] += interval.low <= truth[name] <= interval.high
    assert all(0.93 <= number / STUDIES <= 0.97 for number in covered.values()), covered
