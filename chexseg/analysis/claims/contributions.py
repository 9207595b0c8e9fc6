"""Split differences in mIoU by pathology: where a difference comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from chexseg.analysis import published
from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import Choice
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.statistics.inference import Measured, difference
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import StudyScores
from chexseg.analysis.tables.value_table import ValueTable, number, value_table
from chexseg.pathologies import PATHOLOGIES

#: A pathology of fewer patients is left out of the second mean: a few of them decide its IoU.
MANY_PATIENTS = 30
MEAN, MEAN_OF_MANY = "mIoU", f"mean, {MANY_PATIENTS} patients or more"


def contributions(
    scores: StudyScores, choices: Mapping[str, Choice], measured: Mapping[Arm | str, Measured]
) -> ValueTable:
    """Return each compared difference in mIoU and the pathologies' contributions to it.

    A contribution is a pathology's difference in IoU over the number of pathologies, so all add up
    to the difference in mIoU. Its interval is over draws, trials and patients; n is the number of
    test patients with the pathology. The second column is the mean difference of the pathologies of
    at least `MANY_PATIENTS` patients. Published values are of Table 1.
    """
    names = scores.results.pathologies
    rows: list[dict[str, Any]] = []
    compared = {
        (pair.text, pair.first, pair.second): None
        for pairs, _ in choices.values()
        for pair in pairs
        if pair.k < 0
    }
    for text, first, second in compared:
        steps = [difference(measured[first], measured[second], k) for k in range(len(names))]
        present = [k for k, step in enumerate(steps) if not np.isnan(step.value)]
        if not present:
            continue
        printed = {name: _printed(scores, name, first, second) for name in (AVERAGE, *names)}
        whole = difference(measured[first], measured[second])
        patients = [step.patients.n for step in steps]
        many = [k for k in present if patients[k] >= MANY_PATIENTS]
        of_many = np.mean([steps[k].value for k in many]) if many else np.nan
        row = {"comparison": text}
        rows.append(row | {"pathology": MEAN} | number(whole.together, printed[AVERAGE]))
        rows[-1]["n"] = whole.patients.n
        of_table1 = [value for k in many if (value := printed[names[k]]) is not None]
        rows.append(
            row
            | {"pathology": MEAN_OF_MANY}
            | number(
                Interval(float(of_many), np.nan, np.nan, len(many)),
                float(np.mean(of_table1)) if many and len(of_table1) == len(many) else None,
                reason=None if many else f"no pathology has {MANY_PATIENTS} patients",
            )
        )
        for k, name in enumerate(names):
            share = 1 / len(present)
            step = steps[k].together
            interval = Interval(share * step.mean, share * step.low, share * step.high, patients[k])
            value = printed[name]
            rows.append(
                row
                | {"pathology": name}
                | number(interval, None if value is None else value / len(PATHOLOGIES))
            )
    table = value_table(rows, ("comparison",), "pathology", source="Table 1")
    return replace(table, signed=True)


def _printed(scores: StudyScores, task: str, first: Arm | str, second: Arm | str) -> float | None:
    """Return Table 1's difference of two arms, or None if it has no such arms."""
    values = [
        published.table1(task, arm.weak or "full", arm.p)
        if isinstance(arm, Arm) and scores.all_ten and arm.method != "student"
        else None
        for arm in (first, second)
    ]
    return None if values[0] is None or values[1] is None else values[0] - values[1]
