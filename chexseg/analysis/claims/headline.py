"""The paper's first claim on a study, weak < full < CheXseg: its arms chosen without the test set, its steps tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis.published import HEADLINES, METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import Difference, difference, holm, over_patients
from chexseg.analysis.statistics.scores import (
    Arm,
    Interval,
    cell_iou,
    miou,
    t_interval,
)
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, study_arms
from chexseg.analysis.tables.study_tables import further

ROLES = {"weak": "Weak", "full": "Full", "chexseg": "CheXseg", "best": "Best on the test set"}
#: What the paper's order takes: the first role above the second.
STEPS = {"Full minus weak": ("full", "weak"), "CheXseg minus full": ("chexseg", "full")}


@dataclass(frozen=True)
class Headline:
    """The paper's three arms, each chosen without the test set, and the arm that is best on it."""

    roles: dict[str, Arm]  # of `ROLES` those that exist
    trials: dict[str, Interval]  # mIoU over trials
    patients: dict[str, Interval]  # mIoU over patients, trials averaged
    steps: dict[str, Difference]  # of `STEPS` those whose arms exist
    adjusted: dict[str, float]  # their p-values by Holm, as the order claims all of them

    def resolved(self, step: str) -> bool:
        """Whether the sign of a step stands over trials and patients, beside the other step."""
        return self.adjusted.get(step, 1.0) < 0.05


def headline(results: StudyResults, replicates: int = 1000, seed: int = 0) -> Headline:
    """The study's arms in the paper's roles, with intervals and the two differences that make the paper's order."""
    study = study_arms(results, replicates, seed)
    miou_C = miou(cell_iou(results))[0]
    chosen = {role: study.role(role) for role in ROLES if role != "best"}
    chosen["best"] = max(
        study.arms,
        key=lambda arm: np.nan_to_num(miou_C[list(arm.indices)].mean(), nan=-1.0),
        default=None,
    )
    roles = {role: arm for role, arm in chosen.items() if arm is not None}
    known = {role: study.measured(arm) for role, arm in roles.items()}
    over_trials = {role: t_interval(arm.values_TK[:, -1]) for role, arm in known.items()}
    of_patients = {role: over_patients(arm) for role, arm in known.items()}
    steps = {
        step: difference(known[first], known[second])
        for step, (first, second) in STEPS.items()
        if first in known and second in known
    }
    adjusted = holm([step.p for step in steps.values()])
    return Headline(
        roles, over_trials, of_patients, steps, dict(zip(steps, adjusted.tolist(), strict=True))
    )


def arm_text(arm: Arm) -> str:
    """An arm's settings in words."""
    parts = [METHODS[arm.weak]] if arm.weak else []
    parts += (
        ["student", f"{100 * arm.fraction:g}% of train"]
        if arm.method == "student"
        else [f"p = {arm.p:g}"]
    )
    parts += [f"{arm.weak_images:,.0f} weak images"] if arm.weak_images > 0 else []
    return ", ".join([*parts, f"encoder {arm.init}", *further(arm.other)])


def headline_rows(results: StudyResults, found: Headline) -> pd.DataFrame:
    """One row an arm: its roles, mIoU, intervals over trials and patients, the paper's value; then the radiologists.

    `colour` names the arm's entry of the report's colours. An arm with two roles has one row.
    """
    rows: dict[Arm | None, dict] = {}
    for role, arm in found.roles.items():
        if arm in rows:
            rows[arm]["settings"] += f"; {ROLES[role][0].lower()}{ROLES[role][1:]}"
            continue
        colour = arm.weak or {"full": "full", "student": "student"}[arm.method]
        row = {"arm": ROLES[role], "settings": arm_text(arm), "colour": colour}
        rows[arm] = row | _bounds(found.trials[role], found.patients[role])
        rows[arm]["paper"] = HEADLINES[role].value if role in HEADLINES else np.nan
    if results.radiologists_IK3 is not None:
        patients = over_patients(study_arms(results).measured(RADIOLOGISTS))
        row = {
            "arm": "Radiologists",
            "settings": "three others, against the ground truth",
            "colour": "radiologists",
        }
        rows[None] = (
            row | _bounds(Interval(patients.mean, np.nan, np.nan, 1), patients) | {"paper": np.nan}
        )
    return pd.DataFrame(rows.values())


def _bounds(trials: Interval, patients: Interval) -> dict[str, float]:
    ends = {"trials low": trials.low, "trials high": trials.high, "n": trials.n}
    return (
        {"mIoU": trials.mean}
        | ends
        | {"patients low": patients.low, "patients high": patients.high}
    )


def verdict(found: Headline) -> list[str]:
    """Sentences: whether the paper's order weak < full < CheXseg shows, and whether it is resolved at this n."""
    order = "The paper’s order, weak < full < CheXseg,"
    lacking = [ROLES[role] for role in ("weak", "full", "chexseg") if role not in found.roles]
    if lacking:
        return [f"{order} can't be judged yet: no finished cell for {' and '.join(lacking)}."]
    weak, full, chexseg = (found.trials[role].mean for role in ("weak", "full", "chexseg"))
    if np.isnan([weak, full, chexseg]).any():
        return [f"{order} can't be judged: no pathology has an expert mask in the test set."]
    shows = weak < full < chexseg
    values = f"weak {weak:.3f}, full {full:.3f}, CheXseg {chexseg:.3f}"
    sentences = [f"{order} {'shows' if shows else 'does not show'} here: {values}."]
    sentences += [_step(name, found) for name in STEPS]
    if shows:
        resolved = [name for name in STEPS if found.resolved(name)]
        which = {
            0: "Neither step is",
            1: f"Only the step “{resolved[0].lower()}” is" if resolved else "",
            2: "Both are",
        }
        sentences.append(f"{which[len(resolved)]} resolved at this number of trials and patients.")
    return sentences


def _step(name: str, found: Headline) -> str:
    step = found.steps[name]
    parts = [
        f"{step.patients.low:+.3f} to {step.patients.high:+.3f} over {step.patients.n} patients"
    ]
    if step.trials.n < 2:
        parts.append("no interval over trials")
        judged = "not resolved, for fewer than two trials are in both"
    elif np.isnan(step.p):
        parts = []
        judged = f"not resolved, for only {step.patients.n} patients have an expert mask"
    else:
        parts.append(
            f"{step.trials.low:+.3f} to {step.trials.high:+.3f} over {step.trials.n} trials"
        )
        parts.append(f"{step.together.low:+.3f} to {step.together.high:+.3f} over both")
        p = found.adjusted[name]
        judged = f"{'resolved' if found.resolved(name) else 'not resolved'}, {p_text(p)} by Holm"
    ends = f" (95%: {', '.join(parts)})" if parts else ""
    return f"{name} is {step.value:+.3f}{ends}: {judged}.".replace("-0.", "\u22120.").replace(
        "-1.", "\u22121."
    )


def p_text(p: float) -> str:
    """A p-value as it is printed."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
