"""Figure 2: IoU as a function of p, the share of expert labels, per pathology and on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.arms import Variant
from chexseg.analysis.points.parts import POINT_COLUMNS, points_of, published_point
from chexseg.analysis.published import AVERAGE, HEADLINES
from chexseg.analysis.study_scores import StudyScores
from chexseg.pathologies import PATHOLOGIES

COLUMNS = ("task", "method", "p", *POINT_COLUMNS)
NO_POINTS = pd.DataFrame(columns=list(COLUMNS))
#: The pathologies of the paper's Figure 2 b to d.
PANELS = ("Pleural Effusion", "Consolidation", "Edema")
#: The poster's three values: (p, method, key of `HEADLINES`).
POSTER = (
    (0.0, "irnet", "poster weak"),
    (0.9, "cam", "poster chexseg"),
    (1.0, "full", "poster full"),
)


def points(scores: StudyScores, variant: Variant) -> pd.DataFrame:
    """Return IoU as a function of p, of the average and of each pathology, one row per point.

    Columns: `COLUMNS`; method is a kind of weak labels or, at p = 1, "full". Undefined points are
    left out. The poster has only averages over all ten pathologies.
    """
    rows: list[dict[str, Any]] = []
    for task, values_C in scores.values.items():
        for arm in sorted(variant.arms, key=lambda arm: (arm.weak or "~", arm.p)):
            fields = {"task": task, "method": arm.weak or "full", "p": arm.p}
            rows += points_of(scores, values_C, arm, fields)
        methods = {arm.weak or "full" for arm in variant.arms}
        if scores.beside_paper:
            rows += _published(task, scores.results.pathologies, methods)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _published(task: str, pathologies: tuple[str, ...], methods: set[str]) -> list[dict[str, Any]]:
    rows = []
    for method in (method for method in published.PAPERS_METHODS if method in methods):
        for p in (*published.TABLE1_P, 1):
            fields = {"task": task, "method": method, "p": float(p)}
            value = published.table1(task, method, p, pathologies)
            rows += [] if value is None else [published_point("paper", value, fields)]
    if task == AVERAGE and set(pathologies) == set(PATHOLOGIES):
        rows += [
            published_point("poster", HEADLINES[name], {"task": task, "method": method, "p": p})
            for p, method, name in POSTER
            if method in methods
        ]
    return rows


def panels(pathologies: Sequence[str]) -> tuple[str, ...]:
    """Return the average, then three pathologies.

    These are the paper's if the study has all of them, otherwise the study's first three.
    """
    return (AVERAGE, *(PANELS if set(PANELS) <= set(pathologies) else pathologies[:3]))


def further_panels(pathologies: Sequence[str]) -> tuple[str, ...]:
    """Return the pathologies that aren't in `panels`."""
    return tuple(name for name in pathologies if name not in panels(pathologies))
