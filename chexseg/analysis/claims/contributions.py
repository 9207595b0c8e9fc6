"""Split differences in mIoU by pathology: where a difference comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import Choice, printed_difference
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.statistics.inference import Measured, difference, fault
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
        printed: dict[str, float | None] = {}
        for name in (AVERAGE, *names):
            of_arms = printed_difference(scores, first, second, name)
            printed[name] = None if np.isnan(of_arms) else of_arms
        whole = difference(measured[first], measured[second])
        steps_of = [arm.steps for arm in (first, second) if isinstance(arm, Arm)]
        tested = fault(whole, min(steps_of)) is None
        patients = [step.patients.n for step in steps]
        many = [k for k in present if patients[k] >= MANY_PATIENTS]
        of_many = np.mean([steps[k].value for k in many]) if many else np.nan
        row = {"comparison": text}
        mean = whole.together if tested else Interval(whole.value, np.nan, np.nan, 0)
        rows.append(row | {"pathology": MEAN} | number(mean, printed[AVERAGE]))
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
            low, high = (step.low, step.high) if tested else (np.nan, np.nan)
            interval = Interval(share * step.mean, share * low, share * high, patients[k])
            of_paper = printed[name]
            part = None if of_paper is None else of_paper / len(PATHOLOGIES)
            rows.append(row | {"pathology": name} | number(interval, part))
    table = value_table(rows, ("comparison",), "pathology", source="Table 1")
    return replace(table, signed=True)
