"""Compare the arms in the paper's roles with each other, with radiologists and with chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import UNTRAINED, Arm
from chexseg.analysis.baselines import DESCRIPTIONS, PRIOR
from chexseg.analysis.published import HEADLINES
from chexseg.analysis.statistics.inference import (
    ONE_DRAW,
    Measured,
    difference,
    fault,
    holds_for_one_draw,
    holm,
    over_patients,
    verdicts,
)
from chexseg.analysis.statistics.scores import t_interval
from chexseg.analysis.study_scores import RADIOLOGISTS, StudyScores

ROLES = {
    "weak": "Weak",
    "full": "Full",
    "chexseg": "CheXseg",
    "best": "Best on the test set",
    UNTRAINED: "Untrained network",
}


def role_names(scores: StudyScores) -> dict[str, str]:
    """Return role -> its name in a study."""
    return ROLES | {"chexseg": scores.mixture[0].upper() + scores.mixture[1:]}


def choose(scores: StudyScores) -> dict[str, Arm]:
    """Return role -> arm, chosen on the selection images, and the best on the test set."""
    best = max(
        (arm for arm in scores.arms if arm.method != UNTRAINED),
        key=lambda arm: np.nan_to_num(arm.over_trials(scores.miou_C).mean, nan=-1.0),
        default=None,
    )
    roles = {role: best if role == "best" else scores.role(role) for role in ROLES}
    return {role: arm for role, arm in roles.items() if arm is not None}


def rows(
    scores: StudyScores, roles: Mapping[str, Arm], measured: Mapping[Arm | str, Measured]
) -> pd.DataFrame:
    """Return one row per arm, one for the radiologists and one per baseline.

    Columns: mIoU, intervals, the paper's value. `colour` is the arm's name in the report's palette,
    `cells` are the keys of its scores. An arm with several roles has one row. roles: from `choose`.
    """
    table: dict[Arm | str, dict[str, Any]] = {}
    names = role_names(scores)
    for role, arm in roles.items():
        if arm in table:
            table[arm]["settings"] += f"; {names[role][0].lower()}{names[role][1:]}"
            continue
        table[arm] = {
            "arm": names[role],
            "settings": str(arm),
            "colour": arm.weak or {UNTRAINED: "baseline"}.get(arm.method, arm.method),
            "paper": HEADLINES.get(role, np.nan) if scores.beside_paper else np.nan,
            "cells": scores.cell_keys(arm.indices),
        }
    if RADIOLOGISTS in measured:
        settings = "three others, against the ground truth"
        table[RADIOLOGISTS] = {"arm": "Radiologists", "settings": settings, "cells": ""}
        table[RADIOLOGISTS] |= {"colour": RADIOLOGISTS, "paper": np.nan}
    for name in scores.results.baselines:
        table[name] = {"arm": name, "settings": DESCRIPTIONS[name], "cells": ""}
        table[name] |= {"colour": "baseline", "paper": np.nan}
    for key, row in table.items():
        # Radiologists and baselines have one trial, which has no interval.
        trials, patients = (
            t_interval(measured[key].by_draw(-1), lowest=0),
            over_patients(measured[key]),
        )
        row |= {"mIoU": trials.mean, "n": trials.n}
        row |= {"trials low": trials.low, "trials high": trials.high}
        row |= {"patients low": patients.low, "patients high": patients.high}
    return pd.DataFrame(table.values())


def above_chance(
    names: Mapping[str, str], roles: Mapping[str, Arm], measured: Mapping[Arm | str, Measured]
) -> str:
    """Return which arms have a higher mIoU than the location prior, as text; "" without it.

    Verdicts are over draws, trials and patients together (`inference.difference`), by Holm over the
    arms; an arm of one draw is undecided. The best arm on the test set has none, because it is
    chosen there, nor has an untrained network. names: from `role_names`.
    """
    arms = {names[role]: arm for role, arm in roles.items() if role not in ("best", UNTRAINED)}
    if PRIOR not in measured or not arms:
        return ""
    tests = {name: difference(measured[arm], measured[PRIOR]) for name, arm in arms.items()}
    lacking = {name: fault(test, arms[name].steps) for name, test in tests.items()}
    differences = pd.Series({name: test.value for name, test in tests.items()})
    p = [np.nan if lacking[name] else test.p for name, test in tests.items()]
    judged = verdicts(
        differences, pd.Series(holm(p), differences.index), "better", "worse", "undecided"
    )
    places: dict[str, list[str]] = {}
    for name, verdict in judged.items():
        of_draw = holds_for_one_draw(tests[name].n_draws, arms[name].stages, {})
        reason = lacking[name] or (ONE_DRAW if of_draw else None)
        place = f"undecided ({reason})" if reason else str(verdict)
        places.setdefault(place, []).append(name)
    parts = [
        f"Better than chance, the location prior: {', '.join(places.pop('better', ['no arm']))}"
    ]
    parts += [
        f"{place[0].upper()}{place[1:]}: {', '.join(names)}" for place, names in places.items()
    ]
    return f"{'. '.join(parts)}."
