"""The page's sections on single cells: all cells, students, missing cells."""

from __future__ import annotations

from html import escape

from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import note, scroll

#: Longer tables are cut and refer to their CSV file: a browser needs seconds to lay them out.
MOST_ROWS = 500


def students_html(results: StudyResults) -> str:
    """Return students beside their teachers, one row per fraction and encoder."""
    rows = study_tables.students_rows(results)
    rows = rows.drop(columns="reason") if rows["reason"].isna().all() else rows
    text = (
        "mIoU on the test images. A student learns from its teacher’s soft masks on a fraction of "
        "the training images. The teacher is the fully supervised cell of the same encoder and "
        "trial; the difference is paired by trial. ±: half of the 95% t-interval, if two or more "
        "trials have finished."
    )
    return scroll(to_html(rows)) + note(text)


def cells_html(results: StudyResults, name: str) -> str:
    """Return one row per cell; a large study's best cells by mIoU on the selection images."""
    rows = study_tables.cells_rows(results)
    constant = [
        column
        for column in ("init", "weak_images", "fraction")
        if column in rows and rows[column].nunique() < 2
    ]
    absent = ", ".join(study_tables.without_expert(results))
    without = " Without an expert mask in the test set, and excluded from all means: "
    shown = rows.drop(columns=constant)
    if len(rows) > MOST_ROWS:
        shown = (
            shown.sort_values("selection mIoU", ascending=False, kind="stable")
            .head(MOST_ROWS)
            .sort_index()
        )
    text = (
        'IoU pooled over the test images. <span class="screen">Click a header to sort.</span>'
        + (f"{without}{escape(absent)}." if absent else "")
        + _truncation(len(rows), "cells", name, "best on the selection images")
    )
    return scroll(to_html(shown), "cells") + note(text)


def missing_html(results: StudyResults, name: str) -> str:
    """Return one row per cell without scores, with the reason."""
    rows = study_tables.missing_rows(results)
    if not len(rows):
        return '<p class="soft">None: every cell of the study has scores.</p>'
    return scroll(to_html(rows.head(MOST_ROWS))) + note(
        _truncation(len(rows), "missing", name, "first")
    )


def _truncation(number: int, table: str, name: str, which: str) -> str:
    """Return a sentence that names the file with all rows of a truncated table."""
    if number <= MOST_ROWS:
        return ""
    file = f"<code>tables/{name}-{table}.csv</code>"
    return f" Shown: the {MOST_ROWS} {which} of {number:,}; {file} has all."
