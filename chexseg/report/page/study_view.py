"""Prepare a study for its template: the facts of its header, and the arguments of its sections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.claims import verdicts
from chexseg.analysis.claims.headline import headline, headline_rows
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.tables import study_tables, table2
from chexseg.report.figures import figure2, figure3, figure4, figure5
from chexseg.report.page import provenance, sections, weak_label_section
from chexseg.report.page.table_views import grid, plain
from chexseg.report.page.wide_grids import auroc_table, value_table

#: Number of arms on the page; further ones are in the file.
MOST_ARMS = 100


@dataclass(frozen=True)
class Content:
    """What both the files and the page of a study show.

    tables: file name -> rows of all tables that aren't empty. graph: the figure of all runs, if
    they can be drawn. test_images: from `overlay_section`.
    """

    results: StudyResults
    tables: Mapping[str, pd.DataFrame]
    graph: go.Figure | None
    test_images: Mapping[str, Any]


def study_view(name: str, content: Content) -> dict[str, Any]:
    """Return the arguments of the template of a study.

    name: prefix of anchors and files, unique among the studies of a page.
    """
    results, tables = content.results, content.tables
    shown: dict[str, Any] = {}
    if len(results.cells):
        shown |= _verdicts(results, tables) | _comparisons(results, name, tables)
        shown["test_images"] = content.test_images
        shown["cells"] = sections.cells(tables["cells"])
    if results.weak_labels:
        label_sets = weak_label_agreement.label_sets(results)
        sets = [
            (labels, rows, weak_label_agreement.sentences(labels, rows))
            for labels, rows in zip(label_sets, _numbered(tables, "weak-labels"), strict=True)
        ]
        absent = weak_label_agreement.absent(results)
        shown["weak_labels"] = weak_label_section.weak_labels(sets, absent, results.pathologies)
    if results.classifiers:
        names = classifiers.classifier_names(results.classifiers)
        shown["classifiers"] = weak_label_section.classifiers(
            auroc_table(tables["auroc"]), dict(zip(names, results.classifiers, strict=True))
        )
    if "students" in tables:
        rows = tables["students"]
        shown["students"] = plain(
            rows.drop(columns="reason") if rows["reason"].isna().all() else rows
        )
    if len(results.graph):
        shown["stages"] = sections.stages(results.graph, content.graph)
    if "stages" in tables:
        shown["time"] = sections.time(tables["stages"])
    missing = tables.get("missing", pd.DataFrame())
    missing_table = plain(missing.head(sections.MOST_ROWS))
    shown["missing_cells"] = {"table": missing_table, "number": len(missing)}
    shown["provenance"] = provenance.provenance(tables.get("runs", provenance.rows(results)))
    return {
        "anchor": name,
        "name": results.name,
        "title": results.title,
        "finished": len(results.cells),
        "cells": len(results.cells) + len(results.missing),
        "images": len(results.image_ids),
        "patients": len({patient_of(image_id) for image_id in results.image_ids}),
        "pathologies": len(results.pathologies),
        "states": results.missing["state"].value_counts().to_dict(),
        "without_expert": study_tables.without_expert(results),
        "sections": shown,
    }


def _numbered(tables: Mapping[str, pd.DataFrame], name: str) -> list[pd.DataFrame]:
    """Return the tables NAME, NAME-2, NAME-3 ..."""
    return [rows for file, rows in tables.items() if re.fullmatch(rf"{name}(-\d+)?", file)]


def _verdicts(results: StudyResults, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    judged = headline(results)
    arms = dict.fromkeys(judged.roles.values())
    keys = [study_tables.cell_keys(results, arm.indices) for arm in arms]
    return {
        "claims": sections.claims(verdicts.claims(results), tables["claims"]),
        "result": sections.result(judged, headline_rows(results, judged), keys),
    }


def _comparisons(
    results: StudyResults, name: str, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    """Return the sections on the paper's tables and figures that the study has data for."""
    shown: dict[str, Any] = {}
    further = {}
    if study_tables.has_table1(results):
        variants = study_tables.variants(results)
        of_variants = zip(variants, _numbered(tables, "table1"), strict=False)
        shown["table1"] = {
            "tables": [(str(variant), grid(value_table(rows))) for variant, rows in of_variants],
            "variants": len(variants),
        }
        points = dict(iter(figure2.figure2_points(results, variants[0]).groupby("task")))
        panels = {
            f"{name}--panel-{n}": figure2.figure2(points[task or AVERAGE], "abcd"[n], legend=False)
            for n, task in enumerate(figure2.figure2_panels(results))
        }
        shown["figure2"] = {"panels": panels, "variant": str(variants[0])}
        further = {
            f"{name}--further-{n}": figure2.figure2(points[task], legend=False)
            for n, task in enumerate(figure2.figure2_others(results))
            if task in points
        }
    if "table2" in tables:
        table = grid(value_table(tables["table2"]))
        shown["table2"] = {"table": table, "all_ten": table2.all_ten(results)}
    rows = figure3.figure3_rows(results)
    shown["figure3"] = {
        f"{name}--students-{n}": figure3.figure3(rows, init, legend=False)
        for n, init in enumerate(figure3.figure3_panels(rows))
    }
    rows = figure4.figure4_rows(results)
    shown["figure4"] = {
        f"{name}--encoders-{n}": figure4.figure4(rows, n, "b" if n else "a", legend=False)
        for n in figure4.figure4_panels(rows)
    }
    rows = figure5.figure5_rows(results)
    if figure5.has_figure5(rows):
        shown["figure5"] = sections.figure5(
            figure5.figure5(rows, legend=False),
            rows,
            tables["radiologists"],
            results.radiologists_note,
            name,
        )
    if "pathologies" in tables:
        rows = tables["pathologies"]
        table = grid(value_table(rows), most=MOST_ARMS)
        shown["pathologies"] = {"table": table, "arms": len(rows), "panels": further}
    return {section: view for section, view in shown.items() if view}
