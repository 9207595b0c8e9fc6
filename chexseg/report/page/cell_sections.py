"""The page's sections of single cells: all of them, the students, those that are missing."""

from __future__ import annotations

from html import escape

from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import note, scroll

#: A table of more rows goes on in its csv file alone: a browser needs seconds to lay it out.
MOST_ROWS = 500


def students_html(results: StudyResults) -> str:
    """Students beside their teachers, one row a fraction and encoder."""
    rows = study_tables.students_rows(results)
    rows = rows.drop(columns="reason") if rows["reason"].isna().all() else rows
    told = (
        "mIoU on the test images. A student learns from its teacher’s soft masks of a fraction of the training images. The "
        "teacher is the fully supervised cell of the same encoder and trial; the difference is paired by trial; ±, half of "
        "the 95% t-interval where two or more trials have finished."
    )
    return scroll(to_html(rows)) + note(told)


def cells_html(results: StudyResults, name: str) -> str:
    """One row a cell; of a large study those with the highest mIoU on the selection images."""
    rows = study_tables.cells_rows(results)
    constant = [
        column
        for column in ("init", "weak_images", "fraction")
        if column in rows and rows[column].nunique() < 2
    ]
    without = ""
    if "left out" in rows:
        absent = [pathology for pathology in results.pathologies if rows[pathology].isna().all()]
        without = (
            f" Without an expert mask in the test set, and left out of every mean: {', '.join(absent)}."
            if absent
            else ""
        )
    shown = rows.drop(columns=constant)
    if len(rows) > MOST_ROWS:
        shown = (
            shown.sort_values("selection mIoU", ascending=False, kind="stable")
            .head(MOST_ROWS)
            .sort_index()
        )
    told = f'IoU pooled over the test images. <span class="screen">Click a header to sort.</span>{escape(without)}'
    told += _left_out(len(rows), "cells", name, "best on the selection images")
    return scroll(to_html(shown), "cells") + note(told)


def missing_html(results: StudyResults, name: str) -> str:
    """One row for whatever lacks figures, and why."""
    rows = study_tables.missing_rows(results)
    if not len(rows):
        return '<p class="soft">None: every cell of the study has scores.</p>'
    return scroll(to_html(rows.head(MOST_ROWS))) + note(
        _left_out(len(rows), "missing", name, "first")
    )


def _left_out(number: int, table: str, name: str, which: str) -> str:
    """That a table goes on in its file, and where."""
    if number <= MOST_ROWS:
        return ""
    return f" Here stand the {MOST_ROWS} {which} of {number:,}; <code>tables/{name}-{table}.csv</code> has all."
