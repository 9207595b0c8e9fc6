"""Test the paper's first claim, weak < full < CheXseg, on a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.published import HEADLINES
from chexseg.analysis.statistics.inference import (
    Difference,
    Measured,
    difference,
    holm,
    over_patients,
)
from chexseg.analysis.statistics.scores import Interval, t_interval
from chexseg.analysis.study_scores import RADIOLOGISTS, StudyScores

ROLES = {"weak": "Weak", "full": "Full", "chexseg": "CheXseg", "best": "Best on the test set"}
#: The steps of the paper's order: the first role is above the second.
STEPS = {"Full minus weak": ("full", "weak"), "CheXseg minus full": ("chexseg", "full")}


@dataclass(frozen=True)
class Headline:
    """The paper's three arms, each chosen without the test set, and the arm that is best on it."""

    roles: dict[str, Arm]  # the `ROLES` that exist
    trials: dict[str, Interval]  # mIoU over trials
    patients: dict[str, Interval]  # mIoU over patients, averaged over trials
    radiologists: Interval | None  # their mIoU over patients
    steps: dict[str, Difference]  # the `STEPS` whose arms exist
    adjusted: dict[str, float]  # Holm's p-values of the steps, since the order claims all of them

    def resolved(self, step: str) -> bool:
        """Return whether a step is significant over trials and patients, by Holm's correction."""
        return self.adjusted.get(step, 1.0) < 0.05


def choose(scores: StudyScores) -> dict[str, Arm]:
    """Return role -> arm, chosen on the selection images, and the best on the test set."""
    best = max(
        scores.arms,
        key=lambda arm: np.nan_to_num(scores.miou_C[list(arm.indices)].mean(), nan=-1.0),
        default=None,
    )
    roles = {role: scores.role(role) for role in ROLES if role != "best"} | {"best": best}
    return {role: arm for role, arm in roles.items() if arm is not None}


def summarise(roles: Mapping[str, Arm], measured: Mapping[Arm | str, Measured]) -> Headline:
    """Return the roles' intervals and the differences of the paper's order.

    roles: from `choose`. measured: the IoU of their arms, and of the radiologists if there are any.
    """
    steps = {
        step: difference(measured[roles[first]], measured[roles[second]])
        for step, (first, second) in STEPS.items()
        if first in roles and second in roles
    }
    adjusted = holm([step.p for step in steps.values()]).tolist()
    return Headline(
        roles=dict(roles),
        trials={role: t_interval(measured[arm].values_TK[:, -1]) for role, arm in roles.items()},
        patients={role: over_patients(measured[arm]) for role, arm in roles.items()},
        radiologists=over_patients(measured[RADIOLOGISTS]) if RADIOLOGISTS in measured else None,
        steps=steps,
        adjusted=dict(zip(steps, adjusted, strict=True)),
    )


def headline_rows(scores: StudyScores, result: Headline) -> pd.DataFrame:
    """Return one row per arm and one for the radiologists: mIoU, intervals, the paper's value.

    `colour` is the arm's name in the report's palette, `cells` are the keys of its scores. An arm
    with several roles has one row.
    """
    rows: dict[Arm | None, dict[str, Any]] = {}
    for role, arm in result.roles.items():
        if arm in rows:
            rows[arm]["settings"] += f"; {ROLES[role][0].lower()}{ROLES[role][1:]}"
            continue
        rows[arm] = {
            "arm": ROLES[role],
            "settings": str(arm),
            "colour": arm.weak or {"full": "full", "student": "student"}[arm.method],
            **_bounds(result.trials[role], result.patients[role]),
            "paper": HEADLINES[role].value if role in HEADLINES else np.nan,
            "cells": scores.cell_keys(arm.indices),
        }
    if result.radiologists is not None:
        mean = result.radiologists.mean
        rows[None] = {
            "arm": "Radiologists",
            "settings": "three others, against the ground truth",
            "colour": "radiologists",
            **_bounds(Interval(mean, np.nan, np.nan, 1), result.radiologists),
            "paper": np.nan,
            "cells": "",
        }
    return pd.DataFrame(rows.values())


def _bounds(trials: Interval, patients: Interval) -> dict[str, float]:
    return {
        "mIoU": trials.mean,
        "trials low": trials.low,
        "trials high": trials.high,
        "n": trials.n,
        "patients low": patients.low,
        "patients high": patients.high,
    }


def verdict(result: Headline) -> list[str]:
    """Return sentences on the paper's order weak < full < CheXseg and its significance."""
    order = "The paper’s order, weak < full < CheXseg,"
    lacking = [ROLES[role] for role in ("weak", "full", "chexseg") if role not in result.roles]
    if lacking:
        return [f"{order} can't be judged yet: no finished cell for {' and '.join(lacking)}."]
    weak, full, chexseg = (result.trials[role].mean for role in ("weak", "full", "chexseg"))
    if np.isnan([weak, full, chexseg]).any():
        return [f"{order} can't be judged: no pathology has an expert mask in the test set."]
    shows = weak < full < chexseg
    values = f"weak {weak:.3f}, full {full:.3f}, CheXseg {chexseg:.3f}"
    sentences = [f"{order} {'shows' if shows else 'does not show'} here: {values}."]
    sentences += [_step(name, result) for name in STEPS]
    if shows:
        resolved = [f"Only the step “{name.lower()}” is" for name in STEPS if result.resolved(name)]
        subject = ["Neither step is", *resolved[:1], "Both are"][len(resolved)]
        sentences.append(f"{subject} resolved at this number of trials and patients.")
    return sentences


def _step(name: str, result: Headline) -> str:
    step = result.steps[name]
    parts = [
        f"{step.patients.low:+.3f} to {step.patients.high:+.3f} over {step.patients.n} patients"
    ]
    if step.trials.n < 2:
        parts.append("no interval over trials")
        judged = "not resolved, as fewer than two trials are in both"
    elif np.isnan(step.p):
        parts = []
        judged = f"not resolved, as only {step.patients.n} patients have an expert mask"
    else:
        parts += [
            f"{step.trials.low:+.3f} to {step.trials.high:+.3f} over {step.trials.n} trials",
            f"{step.together.low:+.3f} to {step.together.high:+.3f} over both",
        ]
        judged = "resolved" if result.resolved(name) else "not resolved"
        judged += f", {p_text(result.adjusted[name])} by Holm"
    bounds = f" (95%: {', '.join(parts)})" if parts else ""
    text = f"{name} is {step.value:+.3f}{bounds}: {judged}."
    return text.replace("-0.", "\u22120.").replace("-1.", "\u22121.")


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
