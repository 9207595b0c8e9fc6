"""Check in simulated studies how often verdicts are wrong and intervals of rare classes miss.

Four pathologies are in 50, 20, 10 and 2% of the patients, with lesions of very unequal size. Draws
shift an arm's mIoU by a standard deviation of 0.01, trials by 0.005. Patients, draws and trials are
new in each study.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import Pair
from chexseg.analysis.claims.verdicts import CONTRADICTED, REPRODUCED, judge
from chexseg.analysis.statistics.inference import Measured, measured, over_patients
from chexseg.analysis.statistics.scores import miou, pooled_iou
from chexseg.analysis.study_scores import RADIOLOGISTS

POPULATION, PATIENTS, STUDIES = 4000, 200, 1000
PREVALENCE_K = np.array([0.5, 0.2, 0.1, 0.02])
OF_DRAWS, OF_TRIALS = 0.01, 0.005
IDS = [f"patient{number}_study1" for number in range(PATIENTS)]
THREE_DRAWS = [(draw, trial) for draw in range(3) for trial in range(3)]
ONE_TRIAL_A_DRAW = [(draw, 0) for draw in range(3)]


@cache
def population() -> tuple[np.ndarray, np.ndarray]:
    """Return true_PK, pixels, and ease_PK."""
    generator = np.random.default_rng(7)
    shape = (POPULATION, len(PREVALENCE_K))
    shown_PK = generator.random(shape) < PREVALENCE_K
    return np.exp(generator.normal(7, 0.7, shape)) * shown_PK, generator.normal(0, 0.8, shape)


def counts_TIK3(generator, skill_T: np.ndarray, patients_I: np.ndarray) -> np.ndarray:
    """Return counts of models of this skill, which also mark 5% of the healthy."""
    true_IK, ease_IK = (part_PK[patients_I] for part_PK in population())
    shape = (len(skill_T), *true_IK.shape)
    share_TIK = 1 / (
        1 + np.exp(-skill_T[:, None, None] - ease_IK - generator.normal(0, 0.5, shape))
    )
    drawn_TIK = true_IK * np.exp(generator.normal(0, 0.3, shape))
    false_TIK = (generator.random(shape) < 0.05) * np.exp(generator.normal(6, 0.7, shape))
    predicted_TIK = drawn_TIK + false_TIK * (true_IK == 0)
    intersection_TIK = np.minimum(true_IK, drawn_TIK) * share_TIK
    parts = intersection_TIK, predicted_TIK, np.broadcast_to(true_IK, shape)
    return np.stack(parts, axis=-1)


@cache
def population_miou() -> tuple[np.ndarray, np.ndarray]:
    """Return skills and the mIoU of each on the whole population."""
    skills = np.linspace(-3, 3, 25)
    everybody_I = np.arange(POPULATION)
    values = [
        miou(pooled_iou(counts_TIK3(np.random.default_rng(5), np.full(8, skill), everybody_I)))[0]
        for skill in skills
    ]
    return skills, np.array([value.mean() for value in values])


def arm(generator, wanted: float, patients_I: np.ndarray, trials=THREE_DRAWS) -> Measured:
    """Return an arm with this mIoU on the population; one model without trials if None."""
    skills, values = population_miou()
    shifts_T = np.zeros(1)
    if trials:
        of_draw = {draw: generator.normal(0, OF_DRAWS) for draw in {draw for draw, _ in trials}}
        shifts_T = np.array([of_draw[draw] + generator.normal(0, OF_TRIALS) for draw, _ in trials])
    skill_T = np.interp(wanted + shifts_T, values, skills)
    counts = counts_TIK3(generator, skill_T, patients_I)
    return measured(counts, IDS, trials, replicates=200)


def studies(seed: int):
    """Yield a generator and the patients of each study."""
    generator = np.random.default_rng(seed)
    for _ in range(STUDIES):
        yield generator, generator.integers(0, POPULATION, PATIENTS)


def named(name: str, trials=THREE_DRAWS) -> Arm:
    """Return an arm with stages of its own before its fits."""
    settings = {"method": name, "weak": None, "p": 1.0, "init": name, "weak_images": 0.0}
    settings |= {"fraction": np.nan, "epochs": 20.0, "other": "", "selection": 0.2, "steps": 900.0}
    upstream = tuple(f"{name} {draw}" for draw, _ in trials)
    indices = tuple(range(len(trials)))
    return Arm(**settings, indices=indices, trials=tuple(trials), upstream=upstream)


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "most"), [(THREE_DRAWS, 0.06), (ONE_TRIAL_A_DRAW, 0.1)])
def test_equal_encoders_are_rarely_resolved(trials, most):
    """With one trial a draw, as two one-sided tests at 5% may."""
    first, second = named("chexpert", trials), named("moco", trials)
    choices = {"init": ([Pair("", first, second)], [])}
    resolved = 0
    for generator, patients_I in studies(0):
        arms = {one: arm(generator, 0.25, patients_I, trials) for one in (first, second)}
        (claim,) = judge(choices, arms)
        resolved += claim.verdict in (REPRODUCED, CONTRADICTED)
    assert resolved <= most * STUDIES


@pytest.mark.slow
def test_a_third_of_the_gap_is_called_most_of_it_in_at_most_5_percent_of_studies():
    low, high = 0.16, 0.36
    method, weak = named("mixed"), named("weak")
    choices = {"gap": ([Pair("", method, weak), Pair("", RADIOLOGISTS, weak)], [])}
    reproduced = covered = 0
    for generator, patients_I in studies(1):
        arms = {
            method: arm(generator, low + 0.35 * (high - low), patients_I),
            weak: arm(generator, low, patients_I),
            RADIOLOGISTS: arm(generator, high, patients_I, trials=None),
        }
        (claim,) = judge(choices, arms)
        reproduced += claim.verdict == REPRODUCED
        covered += claim.share.low <= 0.35 <= claim.share.high
    assert reproduced <= 0.05 * STUDIES
    assert covered >= 0.95 * STUDIES


@pytest.mark.slow
@pytest.mark.parametrize(("k", "low", "high"), [(2, 10, 20), (1, 21, 60)])
def test_intervals_of_single_arms_cover_pathologies_of_few_patients(k, low, high):
    """k: in 10% and 20% of 200 patients."""
    skills, values = population_miou()
    skill = np.array([np.interp(0.25, values, skills)])
    everybody = counts_TIK3(
        np.random.default_rng(5), np.repeat(skill, 200), np.arange(POPULATION)
    ).sum(axis=(0, 1))[k]
    truth = everybody[0] / (everybody[1] + everybody[2] - everybody[0])
    covered = number = 0
    for generator, patients_I in studies(2):
        study = measured(counts_TIK3(generator, skill, patients_I), IDS, None, replicates=400)
        if low <= study.patients_K[k] <= high:
            number += 1
            interval = over_patients(study, k)
            covered += interval.low <= truth <= interval.high
    assert number > 400
    assert covered >= 0.93 * number
