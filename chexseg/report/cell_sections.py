"""The page's sections of single cells: all of them, the students, those that are missing."""

from __future__ import annotations

from html import escape

from chexseg.report import tables
from chexseg.report.markup import note, scroll
from chexseg.report.results import StudyResults


def students_html(results: StudyResults) -> str:
    rows = tables.students_rows(results)
    rows = rows.drop(columns="reason") if rows["reason"].isna().all() else rows
    told = (
        "mIoU on the test images. A student learns from its teacher’s soft masks of a fraction of the training images. The "
        "teacher is the fully supervised cell of the same encoder and trial; the difference is paired by trial; ±, half of "
        "the 95% t-interval where two or more trials have finished."
    )
    return scroll(tables.to_html(rows)) + note(told)


def cells_html(results: StudyResults) -> str:
    rows = tables.cells_rows(results)
    constant = [name for name in ("init", "weak_images", "fraction") if name in rows and rows[name].nunique() < 2]
    left_out = ""
    if "left out" in rows:
        absent = [name for name in results.pathologies if rows[name].isna().all()]
        left_out = f" Without an expert mask in the test set, and left out of every mean: {', '.join(absent)}."
    told = f'IoU pooled over the test images. <span class="screen">Click a header to sort.</span>{escape(left_out)}'
    return scroll(tables.to_html(rows.drop(columns=constant), sortable=True), "cells") + note(told)


def missing_html(results: StudyResults) -> str:
    if not len(results.missing):
        return '<p class="soft">None: every cell of the study has scores.</p>'
    return scroll(tables.to_html(tables.missing_rows(results)))
