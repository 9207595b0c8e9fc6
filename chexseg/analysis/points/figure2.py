"""Figure 2: IoU as a function of p, the share of expert labels, per pathology and on average."""

from __future__ import annotations

from typing import Any

import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.points.parts import (
    POINT_COLUMNS,
    points,
    published_point,
)
from chexseg.analysis.published import AVERAGE, HEADLINES
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables.study_tables import Variant, task_values, variant_arms, variants

#: The pathologies of the paper's Figure 2 b to d.
PANELS = ("Pleural Effusion", "Consolidation", "Edema")
#: The poster's three values: (p, method, key of `HEADLINES`).
POSTER = (
    (0.0, "irnet", "poster weak"),
    (0.9, "cam", "poster chexseg"),
    (1.0, "full", "poster full"),
)


def figure2_points(results: StudyResults, variant: Variant | None = None) -> pd.DataFrame:
    """Return IoU as a function of p, of the average and of each pathology, one row per point.

    Columns: task, method (a kind of weak labels or, at p = 1, "full"), p, and
    `parts.POINT_COLUMNS`. Undefined points are left out. The poster has only averages over all ten
    pathologies.
    """
    variant = variant or next(iter(variants(results)), None)
    chosen = variant_arms(results, variant)
    rows: list[dict[str, Any]] = []
    for task, values_C in task_values(results).items():
        for arm in sorted(chosen, key=lambda arm: (arm.weak or "~", arm.p)):
            rows += points(
                results, values_C, arm, {"task": task, "method": arm.weak or "full", "p": arm.p}
            )
        rows += _published(task, results.pathologies, {arm.weak or "full" for arm in chosen})
    return pd.DataFrame(rows, columns=["task", "method", "p", *POINT_COLUMNS])


def _published(task: str, pathologies: tuple[str, ...], methods: set[str]) -> list[dict[str, Any]]:
    rows = []
    for method in (method for method in published.PAPERS_METHODS if method in methods):
        for p in (*published.TABLE1_P, 1):
            value = (
                published.table1_average(pathologies, method, p)
                if task == AVERAGE
                else published.table1(task, method, p)
            )
            if value is not None:
                rows.append(
                    published_point("paper", value, {"task": task, "method": method, "p": float(p)})
                )
    if task == AVERAGE and len(pathologies) == len(published.TABLE1) - 1:
        rows += [
            published_point(
                "poster", HEADLINES[name].value, {"task": task, "method": method, "p": p}
            )
            for p, method, name in POSTER
            if method in methods
        ]
    return rows


def figure2_panels(results: StudyResults) -> tuple[str | None, ...]:
    """Return None for the average, then three pathologies.

    These are the paper's if the study has all of them, otherwise the study's first three.
    """
    named = PANELS if set(PANELS) <= set(results.pathologies) else results.pathologies[:3]
    return (None, *named)


def figure2_others(results: StudyResults) -> tuple[str, ...]:
    """Return the pathologies without a panel in `figure2_panels`."""
    return tuple(name for name in results.pathologies if name not in figure2_panels(results))
