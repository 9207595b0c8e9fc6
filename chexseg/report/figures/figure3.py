"""Figure 3: students by fraction of training images, beside their teachers, by encoder init."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.scores import Arm, arms, cell_iou, miou
from chexseg.analysis.tables.study_tables import beside, is_teacher
from chexseg.analysis.tables.table2 import all_ten, by_init
from chexseg.report.figures.parts import (
    POINT_COLUMNS,
    Canvas,
    bars,
    category_axis,
    interval_texts,
    iou_axis,
    points,
    published_full,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Horizontal distance between students of one fraction that differ in other settings.
DODGE = 0.16
MOST_SETTINGS = 12
STUDENT_SYMBOLS = (SYMBOLS["student"], "triangle-up", "square", "cross", "pentagon")


@once
def figure3_rows(results: StudyResults) -> pd.DataFrame:
    """Return mIoU of students and teachers, one row per point.

    Columns: init, method ("student" or "full"), settings (the others that the study varies),
    fraction, then `parts.POINT_COLUMNS`. The paper prints one teacher's mIoU, with CheXpert's
    encoder.
    """
    all_arms, miou_C = arms(results), miou(cell_iou(results))[0]
    students = sorted((arm for arm in all_arms if arm.method == "student"), key=by_init)
    rows: list[dict[str, Any]] = []
    for student in sorted(students, key=lambda arm: arm.fraction):
        fields = {"init": student.init, "method": "student", "settings": beside(student)}
        rows += points(results, miou_C, student, fields | {"fraction": student.fraction})
    # Grouped by init: with 10,000 cells, comparing all arms with all students takes too long.
    by_encoder: dict[str, list[Arm]] = {}
    for student in students:
        by_encoder.setdefault(student.init, []).append(student)
    for arm in all_arms:
        if arm.method == "full" and any(
            is_teacher(arm, student) for student in by_encoder.get(arm.init, ())
        ):
            fields = {"init": arm.init, "method": "full", "settings": beside(arm)}
            rows += points(results, miou_C, arm, fields | {"fraction": np.nan})
    if all_ten(results) and any(arm.init == "chexpert" for arm in students):
        fields = {"init": "chexpert", "method": "full", "settings": ""}
        rows += published_full(fields | {"fraction": np.nan})
    table = pd.DataFrame(rows, columns=["init", "method", "settings", "fraction", *POINT_COLUMNS])
    inits = list(dict.fromkeys(arm.init for arm in students))
    return table.sort_values(
        "init", key=lambda column: column.map(inits.index), kind="stable", ignore_index=True
    )


def figure3_panels(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the encoder inits, one panel each; none if students vary in too many settings."""
    students = rows.loc[rows["method"] == "student", "settings"]
    return tuple(dict.fromkeys(rows["init"])) if students.nunique() <= MOST_SETTINGS else ()


def figure3(rows: pd.DataFrame, init: str, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `figure3_rows`. All panels have equal axes, so they can be compared."""
    fractions = sorted(rows["fraction"].dropna().unique())
    ends = [-0.6, max(0, len(fractions) - 1) + 0.6]
    panel, canvas = rows[rows["init"] == init], Canvas(legend)
    for row in panel[(panel["method"] == "full") & (panel["kind"] == "mean")].to_dict("records"):
        interval = "" if np.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}] "
        label = f"teacher {row['settings']}".strip()
        if interval:
            canvas.add(
                "teacher",
                "teacher, 95%",
                x=[*ends, *ends[::-1]],
                y=[row["low"]] * 2 + [row["high"]] * 2,
                mode="lines",
                fill="toself",
                fillcolor="rgba(0,158,115,0.13)",
                line={"width": 0},
                hoverinfo="skip",
            )
        canvas.add(
            "teacher",
            label,
            "full",
            x=ends,
            y=[row["value"]] * 2,
            mode="lines",
            line={"color": COLOURS["full"], "width": 2, "dash": "dash"},
            hovertemplate=f"{label}: %{{y:.3f}} {interval}n = {row['n']}<extra></extra>",
        )
    for kind, dash in (("paper", "dot"), ("poster", "dashdot")):
        for value in panel.loc[panel["kind"] == kind, "value"]:
            canvas.add(
                "paper",
                f"{kind}, teacher",
                "full",
                x=ends,
                y=[value] * 2,
                mode="lines",
                opacity=0.5,
                line={"color": COLOURS["full"], "width": 1, "dash": dash},
                hovertemplate=f"{kind}, teacher: %{{y:.3f}}<extra></extra>",
            )
    # The order is the same in all panels, so a setting keeps its symbol and its offset.
    settings = list(dict.fromkeys(rows.loc[rows["method"] == "student", "settings"]))
    for number, setting in enumerate(settings):
        shift = DODGE * (number - (len(settings) - 1) / 2)
        symbol = STUDENT_SYMBOLS[number % len(STUDENT_SYMBOLS)]
        of_setting = panel[(panel["method"] == "student") & (panel["settings"] == setting)]
        label = f"student {setting}".strip()
        for kind in ("mean", "trial"):
            chosen = of_setting[of_setting["kind"] == kind]
            if not len(chosen):
                continue
            x = [
                fractions.index(fraction) + shift + 0.07 * (kind == "trial")
                for fraction in chosen["fraction"]
            ]
            share = [f"{100 * fraction:g}%" for fraction in chosen["fraction"]]
            if kind == "mean":
                canvas.add(
                    "student",
                    label,
                    "student",
                    x=x,
                    y=chosen["value"].tolist(),
                    mode="lines+markers",
                    line={"color": COLOURS["student"], "width": 2},
                    marker={"symbol": symbol, "size": 9},
                    error_y=bars(chosen),
                    customdata=[
                        list(pair)
                        for pair in zip(share, interval_texts(chosen), chosen["cells"], strict=True)
                    ],
                    hovertemplate=f"{label}, %{{customdata[0]}} of train: %{{y:.3f}} "
                    "%{customdata[1]}<extra></extra>",
                )
            else:
                canvas.trials(chosen, x, "student")
    axis = category_axis(
        "fraction of the training images", [f"{100 * fraction:g}%" for fraction in fractions]
    )
    return canvas.framed(f"encoder {init}", letter, xaxis=axis, yaxis=iou_axis("mIoU", top(rows)))
