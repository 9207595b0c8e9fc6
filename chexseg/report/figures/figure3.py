"""Figure 3: students by their share of the training images, beside their teachers; one panel for each encoder's start."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import HEADLINES
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
    published_point,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Several students of one share, which differ in other settings, stand this far apart.
DODGE = 0.16
MOST_SETTINGS = 12
STUDENT_SYMBOLS = (SYMBOLS["student"], "triangle-up", "square", "cross", "pentagon")


@once
def figure3_rows(results: StudyResults) -> pd.DataFrame:
    """mIoU of students and teachers. One row a point: init, method ("student" or "full"), settings, fraction, then
    `figure_parts.POINT_COLUMNS`.

    Settings are those that the study varies beside. Of the teachers' mIoU the paper prints one, with CheXpert's encoder.
    """
    found, miou_C = arms(results), miou(cell_iou(results))[0]
    students = sorted((arm for arm in found if arm.method == "student"), key=by_init)
    rows: list[dict] = []
    for student in sorted(students, key=lambda arm: arm.fraction):
        about = {
            "init": student.init,
            "method": "student",
            "settings": beside(student),
            "fraction": student.fraction,
        }
        rows += points(results, miou_C, student, about)
    # Students of 10,000 cells would each be asked by every arm.
    alike: dict[str, list[Arm]] = {}
    for student in students:
        alike.setdefault(student.init, []).append(student)
    full = [arm for arm in found if arm.method == "full"]
    teachers = [
        arm for arm in full if any(is_teacher(arm, student) for student in alike.get(arm.init, ()))
    ]
    for arm in teachers:
        rows += points(
            results,
            miou_C,
            arm,
            {"init": arm.init, "method": "full", "settings": beside(arm), "fraction": np.nan},
        )
    if all_ten(results) and any(arm.init == "chexpert" for arm in students):
        about = {"init": "chexpert", "method": "full", "settings": "", "fraction": np.nan}
        rows.append(published_point("paper", HEADLINES["full, chexpert"].value, about))
        rows.append(published_point("poster", HEADLINES["poster full"].value, about))
    table = pd.DataFrame(rows, columns=["init", "method", "settings", "fraction", *POINT_COLUMNS])
    order = {
        init: number for number, init in enumerate(dict.fromkeys(arm.init for arm in students))
    }
    return table.sort_values(
        "init", key=lambda inits: inits.map(order), kind="stable", ignore_index=True
    )


def figure3_panels(rows: pd.DataFrame) -> tuple[str, ...]:
    """The encoders' starts, one panel each; none where students differ in more settings than a panel can tell apart."""
    students = rows.loc[rows["method"] == "student", "settings"]
    return tuple(dict.fromkeys(rows["init"])) if students.nunique() <= MOST_SETTINGS else ()


def figure3(rows: pd.DataFrame, init: str, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `figure3_rows`. All panels have the same axes, so that they can be compared."""
    fractions = sorted(rows["fraction"].dropna().unique())
    ends = [-0.6, max(0, len(fractions) - 1) + 0.6]
    mine, canvas = rows[rows["init"] == init], Canvas(legend)
    for row in mine[(mine["method"] == "full") & (mine["kind"] == "mean")].to_dict("records"):
        interval = "" if np.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}] "
        told = f"teacher {row['settings']}".strip()
        if interval:
            band = {"x": [*ends, *ends[::-1]], "y": [row["low"]] * 2 + [row["high"]] * 2}
            fill = {
                "fill": "toself",
                "fillcolor": "rgba(0,158,115,0.13)",
                "line": {"width": 0},
                "hoverinfo": "skip",
            }
            canvas.add("teacher", "teacher, 95%", **band, mode="lines", **fill)
        canvas.add(
            "teacher",
            told,
            "full",
            x=ends,
            y=[row["value"]] * 2,
            mode="lines",
            line={"color": COLOURS["full"], "width": 2, "dash": "dash"},
            hovertemplate=f"{told}: %{{y:.3f}} {interval}n = {row['n']}<extra></extra>",
        )
    for kind, dash in (("paper", "dot"), ("poster", "dashdot")):
        for value in mine.loc[mine["kind"] == kind, "value"]:
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
    # One order for all panels: a setting keeps its symbol and its place.
    settings = list(dict.fromkeys(rows.loc[rows["method"] == "student", "settings"]))
    for number, setting in enumerate(settings):
        shift = DODGE * (number - (len(settings) - 1) / 2)
        symbol = STUDENT_SYMBOLS[number % len(STUDENT_SYMBOLS)]
        of_setting = mine[(mine["method"] == "student") & (mine["settings"] == setting)]
        told = f"student {setting}".strip()
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
                    told,
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
                    hovertemplate=f"{told}, %{{customdata[0]}} of train: %{{y:.3f}} %{{customdata[1]}}<extra></extra>",
                )
            else:
                canvas.trials(chosen, x, "student")
    axis = category_axis(
        "share of the training images", [f"{100 * fraction:g}%" for fraction in fractions]
    )
    return canvas.framed(f"encoder {init}", letter, xaxis=axis, yaxis=iou_axis("mIoU", top(rows)))
