"""The page's sections on encoders, students and radiologists: Table 2, Figures 3, 4 and 5, and every arm by pathology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import table2
from chexseg.analysis.tables.study_tables import has_table1
from chexseg.analysis.tables.text import gaps
from chexseg.report.figures.figure2 import figure2, figure2_others, figure2_points
from chexseg.report.figures.figure3 import figure3, figure3_panels, figure3_rows
from chexseg.report.figures.figure4 import figure4, figure4_panels, figure4_rows
from chexseg.report.figures.figure5 import figure5, figure5_rows, has_figure5, radiologists_rows
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import PAPER_SWITCH, note, plot, scroll, switch

#: Legend group -> what its switch says, its shape and its colour.
SWITCHES: dict[str, tuple[str, str, str]] = {
    "weak": ("weak", "", "none"),
    "cam": ("CAM", "round", "var(--cam)"),
    "cam++": ("CAM++", "triangle", "var(--cam-plus-plus)"),
    "irnet": ("IRNet", "", "var(--irnet)"),
    "full": ("full supervision", "diamond", "var(--full)"),
    "student": ("student", "round", "var(--student)"),
    "teacher": ("teacher, with its 95% interval", "dash", "var(--full)"),
    "chexseg": ("CheXseg", "round", "var(--ink)"),
    "radiologists": ("radiologists", "diamond", "var(--radiologists)"),
    "trials": ("single trials", "small", "var(--paper-mark)"),
}
OF_CHEXPERT = "Where this study’s images aren’t CheXpert’s, compare the order of the published values, not their height."
INTERVALS = "Bars: 95% t-intervals over trials, where two or more have finished."
#: Arms that the page shows; further ones are in the file.
MOST_ARMS = 100


def comparison_sections(results: StudyResults, name: str) -> dict[str, str]:
    """Title -> HTML of those sections that the study has something for. name: of the study among the page's, for anchors."""
    found = {
        "Table 2": table2_html(results),
        "Figure 3": figure3_html(results, name),
        "Figure 4": figure4_html(results, name),
        "Figure 5": figure5_html(results, name),
        "Pathologies": pathologies_html(results, name),
    }
    return {title: text for title, text in found.items() if text}


def paper_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """File name -> rows of Table 2, of all arms by pathology and of Figure 5, where the study has something for them."""
    rows = figure5_rows(results)
    found = {"pathologies": table2.arms_rows(results)}
    found |= {"table2": table2.table2_rows(results)} if table2.has_table2(results) else {}
    return found | ({"radiologists": radiologists_rows(rows)} if has_figure5(rows) else {})


def _plots(drawn: Mapping[str, go.Figure], wide: bool = False) -> str:
    """Figures by their anchors, under the switches of what they have."""
    groups = {trace.legendgroup for figure in drawn.values() for trace in figure.data}
    switches = "".join(
        switch(f'data-group="{group}"', *told)
        for group, told in SWITCHES.items()
        if group in groups
    )
    switches += PAPER_SWITCH if "paper" in groups else ""
    shown = "".join(
        plot(figure, anchor, "wide" if wide else "") for anchor, figure in drawn.items()
    )
    return f'<fieldset class="switches">{switches}</fieldset>' + (
        shown if wide else f'<div class="plots">{shown}</div>'
    )


def _dashes(rows: pd.DataFrame) -> str:
    return "".join(f" {escape(gap.replace('-: ', 'Dash: ', 1))}" for gap in gaps(rows))


def table2_html(results: StudyResults) -> str:
    """Table 2; nothing where Table 1's p = 0 is all there is."""
    if not table2.has_table2(results):
        return ""
    rows = table2.table2_rows(results)
    of_ten = " In italics, the paper’s Table 2." if table2.all_ten(results) else ""
    told = (
        "mIoU of weak supervision (p = 0), by what the encoder started from and the number of weak images; mean over trials; "
        f"±, half of the 95% t-interval; bold, best of the row.{of_ten}{_dashes(rows)}"
    )
    return f'<fieldset class="switches screen">{PAPER_SWITCH}</fieldset>{scroll(to_html(rows))}{note(told)}'


def figure3_html(results: StudyResults, name: str) -> str:
    """Students and teachers; nothing without students. name: of the study among the page's, for anchors."""
    rows = figure3_rows(results)
    drawn = {
        f"{name}--students-{number}": figure3(rows, init, legend=False)
        for number, init in enumerate(figure3_panels(rows))
    }
    told = (
        "mIoU of students by the share of the training images that they learn from; dashed, their teacher, fully supervised "
        f"with the same encoder. {INTERVALS} The paper prints one teacher’s mIoU, and no student’s. {OF_CHEXPERT}"
    )
    return _plots(drawn) + note(told) if drawn else ""


def figure4_html(results: StudyResults, name: str) -> str:
    """Encoders under full and under weak supervision; nothing where there is only one."""
    rows = figure4_rows(results)
    drawn = {
        f"{name}--encoders-{images}": figure4(rows, images, "b" if images else "a", legend=False)
        for images in figure4_panels(rows)
    }
    told = f"mIoU by what the encoder started from. {INTERVALS} {OF_CHEXPERT}"
    return _plots(drawn) + note(told) if drawn else ""


def figure5_html(results: StudyResults, name: str) -> str:
    """Figure 5 and its table; nothing where there is nobody to compare."""
    rows = figure5_rows(results)
    if not has_figure5(rows):
        return ""
    arms = rows[
        (rows["kind"] == "mean") & ~rows["role"].isin(["gap", "radiologists"])
    ].drop_duplicates("role")
    which = " ".join(f"{_capital(row.role)}: {escape(row.told)}." for row in arms.itertuples())
    lacking = f" {escape(results.radiologists_note)}." if results.radiologists_note else ""
    if results.radiologists_IK3 is None and not lacking:
        lacking = " The data set has no radiologists’ masks (<code>CheXlocalize/hb_segmentations_test.json</code>)."
    told = (
        f"{which} Each is its method’s arm with the highest mIoU on the selection images; the test set had no say.{lacking} "
        "Bars and ±: 95% over test patients (1,000 bootstrap samples), trials averaged; the gap, CheXseg minus radiologists, "
        "is paired by patient. The paper prints no value of Figure 5: its marks are Table 1’s, and the radiologists’ follow "
        f"from what it says of them. {OF_CHEXPERT}"
    )
    table = scroll(to_html(radiologists_rows(rows)))
    return _plots({f"{name}--arms": figure5(rows, legend=False)}, wide=True) + table + note(told)


def _capital(role: str) -> str:
    return {"chexseg": "CheXseg"}.get(role, role.capitalize())


def pathologies_html(results: StudyResults, name: str) -> str:
    """Every arm by pathology, and Figure 2 of the pathologies that have no panel in the paper's."""
    rows = table2.arms_rows(results)
    if not len(rows):
        return ""
    lead = (
        f" The first {MOST_ARMS} of {len(rows):,} arms; the others are in the file."
        if len(rows) > MOST_ARMS
        else ""
    )
    told = (
        "IoU pooled over the test images, mean over trials; ±, half of the 95% t-interval; bold, best of the column."
        f"{lead}{_dashes(rows)}"
    )
    table = scroll(to_html(rows.head(MOST_ARMS)), "cells") + note(told)
    return table + _further_panels(results, name, figure2_others(results))


def _further_panels(results: StudyResults, name: str, pathologies: Sequence[str]) -> str:
    if not has_table1(results) or not pathologies:
        return ""
    every = dict(iter(figure2_points(results).groupby("task", sort=False)))
    drawn = {
        f"{name}--further-{number}": figure2(every[pathology], legend=False)
        for number, pathology in enumerate(pathologies)
        if pathology in every
    }
    listed = f"Figure 2 of {len(drawn)} further {'pathology' if len(drawn) == 1 else 'pathologies'}"
    return f"<details><summary>{listed}</summary>{_plots(drawn)}</details>" if drawn else ""
