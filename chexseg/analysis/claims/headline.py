"""Test the paper's first claim, weak < full < CheXseg, on a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.published import HEADLINES, METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import Difference, difference, holm, over_patients
from chexseg.analysis.statistics.scores import (
    Arm,
    Interval,
    arms,
    cell_iou,
    miou,
    t_interval,
)
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, study_arms
from chexseg.analysis.tables.study_tables import further

ROLES = {"weak": "Weak", "full": "Full", "chexseg": "CheXseg", "best": "Best on the test set"}
#: The steps of the paper's order: the first role is above the second.
STEPS = {"Full minus weak": ("full", "weak"), "CheXseg minus full": ("chexseg", "full")}


@dataclass(frozen=True)
class Headline:
    """The paper's three arms, each chosen without the test set, and the arm that is best on it."""

    roles: dict[str, Arm]  # the `ROLES` that exist
    trials: dict[str, Interval]  # mIoU over trials
    patients: dict[str, Interval]  # mIoU over patients, averaged over trials
    steps: dict[str, Difference]  # the `STEPS` whose arms exist
    adjusted: dict[str, float]  # Holm's p-values of the steps, since the order claims all of them

    def resolved(self, step: str) -> bool:
        """Return whether a step is significant over trials and patients, by Holm's correction."""
        return self.adjusted.get(step, 1.0) < 0.05


def headline(results: StudyResults) -> Headline:
    """Return the arms in the paper's roles, with intervals and the differences of the order."""
    study = study_arms(results)
    miou_C = miou(cell_iou(results))[0]
    chosen = {role: study.role(role) for role in ROLES if role != "best"}
    chosen["best"] = max(
        arms(results),
        key=lambda arm: np.nan_to_num(miou_C[list(arm.indices)].mean(), nan=-1.0),
        default=None,
    )
    roles = {role: arm for role, arm in chosen.items() if arm is not None}
    measured = {role: study.measured(arm) for role, arm in roles.items()}
    steps = {
        step: difference(measured[first], measured[second])
        for step, (first, second) in STEPS.items()
        if first in measured and second in measured
    }
    adjusted = holm([step.p for step in steps.values()]).tolist()
    return Headline(
        roles=roles,
        trials={role: t_interval(arm.values_TK[:, -1]) for role, arm in measured.items()},
        patients={role: over_patients(arm) for role, arm in measured.items()},
        steps=steps,
        adjusted=dict(zip(steps, adjusted, strict=True)),
    )


def arm_text(arm: Arm) -> str:
    """Return an arm's settings as text."""
    parts = [METHODS[arm.weak]] if arm.weak else []
    parts += (
        ["student", f"{100 * arm.fraction:g}% of train"]
        if arm.method == "student"
        else [f"p = {arm.p:g}"]
    )
    parts += [f"{arm.weak_images:,.0f} weak images"] if arm.weak_images > 0 else []
    return ", ".join([*parts, f"encoder {arm.init}", *further(arm.other)])


def headline_rows(results: StudyResults, result: Headline) -> pd.DataFrame:
    """Return one row per arm and one for the radiologists: mIoU, intervals, the paper's value.

    `colour` is the arm's name in the report's palette. An arm with several roles has one row.
    """
    rows: dict[Arm | None, dict[str, Any]] = {}
    for role, arm in result.roles.items():
        if arm in rows:
            rows[arm]["settings"] += f"; {ROLES[role][0].lower()}{ROLES[role][1:]}"
            continue
        rows[arm] = {
            "arm": ROLES[role],
            "settings": arm_text(arm),
            "colour": arm.weak or {"full": "full", "student": "student"}[arm.method],
            **_bounds(result.trials[role], result.patients[role]),
            "paper": HEADLINES[role].value if role in HEADLINES else np.nan,
        }
    if results.radiologists_IK3 is not None:
        patients = over_patients(study_arms(results).measured(RADIOLOGISTS))
        rows[None] = {
            "arm": "Radiologists",
            "settings": "three others, against the ground truth",
            "colour": "radiologists",
            **_bounds(Interval(patients.mean, np.nan, np.nan, 1), patients),
            "paper": np.nan,
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
