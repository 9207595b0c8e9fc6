"""The page's sections on Table 2, Figures 3, 4 and 5, and on all arms by pathology."""

from __future__ import annotations

from html import escape

import pandas as pd

from chexseg.analysis.claims.headline import ROLES
from chexseg.analysis.points.figure2 import figure2_others, figure2_points
from chexseg.analysis.points.figure3 import figure3_panels, figure3_rows
from chexseg.analysis.points.figure4 import figure4_panels, figure4_rows
from chexseg.analysis.points.figure5 import figure5_rows, has_figure5, radiologists_rows
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import table2
from chexseg.analysis.tables.study_tables import has_table1
from chexseg.report.figures.figure2 import figure2
from chexseg.report.figures.figure3 import figure3
from chexseg.report.figures.figure4 import figure4
from chexseg.report.figures.figure5 import figure5
from chexseg.report.page.html_tables import dashes, to_html
from chexseg.report.page.markup import PAPER_SWITCH, note, plots, scroll

OF_CHEXPERT = (
    "If this study’s images aren’t CheXpert’s, compare the order of the published values, not "
    "their height."
)
INTERVALS = "Bars: 95% t-intervals over trials, if two or more have finished."
#: Number of arms on the page; further ones are in the file.
MOST_ARMS = 100


def comparison_sections(results: StudyResults, name: str) -> dict[str, str]:
    """Return title -> HTML of the sections that the study has data for.

    name: prefix of anchors, unique among the studies of a page.
    """
    sections = {
        "Table 2": table2_html(results),
        "Figure 3": figure3_html(results, name),
        "Figure 4": figure4_html(results, name),
        "Figure 5": figure5_html(results, name),
        "Pathologies": pathologies_html(results, name),
    }
    return {title: text for title, text in sections.items() if text}


def paper_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """Return file name -> rows of all arms by pathology, and of Table 2 and Figure 5 if any."""
    rows = figure5_rows(results)
    tables = {"pathologies": table2.arms_rows(results)}
    tables |= {"table2": table2.table2_rows(results)} if table2.has_table2(results) else {}
    return tables | ({"radiologists": radiologists_rows(rows)} if has_figure5(rows) else {})


def table2_html(results: StudyResults) -> str:
    """Return Table 2; empty if it would only repeat p = 0 of Table 1."""
    if not table2.has_table2(results):
        return ""
    rows = table2.table2_rows(results)
    of_ten = " In italics: the paper’s Table 2." if table2.all_ten(results) else ""
    text = (
        "mIoU of weak supervision (p = 0), by encoder initialization and number of weak images; "
        "mean over trials. ±: half of the 95% t-interval. Bold: best of the row."
        f"{of_ten}{dashes(rows)}"
    )
    return PAPER_SWITCH + scroll(to_html(rows)) + note(text)


def figure3_html(results: StudyResults, name: str) -> str:
    """Return Figure 3, students and teachers; empty without students."""
    rows = figure3_rows(results)
    drawn = {
        f"{name}--students-{number}": figure3(rows, init, legend=False)
        for number, init in enumerate(figure3_panels(rows))
    }
    text = (
        "mIoU of students by the fraction of the training images that they learn from. Dashed: "
        f"their teacher, fully supervised with the same encoder. {INTERVALS} The paper prints one "
        f"teacher’s mIoU, and no student’s. {OF_CHEXPERT}"
    )
    return plots(drawn) + note(text) if drawn else ""


def figure4_html(results: StudyResults, name: str) -> str:
    """Return Figure 4, encoders under full and weak supervision; empty if there is only one."""
    rows = figure4_rows(results)
    drawn = {
        f"{name}--encoders-{images}": figure4(rows, images, "b" if images else "a", legend=False)
        for images in figure4_panels(rows)
    }
    text = f"mIoU by encoder initialization. {INTERVALS} {OF_CHEXPERT}"
    return plots(drawn) + note(text) if drawn else ""


def figure5_html(results: StudyResults, name: str) -> str:
    """Return Figure 5 and its table; empty if there is nothing to compare."""
    rows = figure5_rows(results)
    if not has_figure5(rows):
        return ""
    arms = rows[
        (rows["kind"] == "mean") & ~rows["role"].isin(["gap", "radiologists"])
    ].drop_duplicates("role")
    which = " ".join(f"{ROLES[row.role]}: {escape(row.description)}." for row in arms.itertuples())
    lacking = f" {escape(results.radiologists_note)}." if results.radiologists_note else ""
    if results.radiologists_IK3 is None and not lacking:
        lacking = (
            " The data set has no radiologists’ masks "
            "(<code>CheXlocalize/hb_segmentations_test.json</code>)."
        )
    text = (
        f"{which} Each is its method’s arm with the highest mIoU on the selection images; the test "
        f"set was not used for this choice.{lacking} Bars and ±: 95% over test patients (1,000 "
        "bootstrap samples), trials averaged. The gap, CheXseg minus radiologists, is paired by "
        "patient. The paper prints no value of Figure 5: the published marks are Table 1’s, and "
        f"those of the radiologists are derived from its text. {OF_CHEXPERT}"
    )
    table = scroll(to_html(radiologists_rows(rows)))
    return plots({f"{name}--arms": figure5(rows, legend=False)}, wide=True) + table + note(text)


def pathologies_html(results: StudyResults, name: str) -> str:
    """Return all arms by pathology, and Figure 2 of the pathologies beyond its main panels."""
    rows = table2.arms_rows(results)
    if not len(rows):
        return ""
    lead = (
        f" The first {MOST_ARMS} of {len(rows):,} arms; the others are in the file."
        if len(rows) > MOST_ARMS
        else ""
    )
    text = (
        "IoU pooled over the test images, mean over trials. ±: half of the 95% t-interval. Bold: "
        f"best of the column.{lead}{dashes(rows)}"
    )
    table = scroll(to_html(rows.head(MOST_ARMS)), "cells") + note(text)
    return table + _further_panels(results, name)


def _further_panels(results: StudyResults, name: str) -> str:
    if not has_table1(results):
        return ""
    points = dict(iter(figure2_points(results).groupby("task", sort=False)))
    drawn = {
        f"{name}--further-{number}": figure2(points[pathology], legend=False)
        for number, pathology in enumerate(figure2_others(results))
        if pathology in points
    }
    listed = f"Figure 2 of {len(drawn)} further {'pathology' if len(drawn) == 1 else 'pathologies'}"
    return f"<details><summary>{listed}</summary>{plots(drawn)}</details>" if drawn else ""
