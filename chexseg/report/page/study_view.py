"""Prepare a study for its template: the facts of its header, and the arguments of its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.claims import verdicts
from chexseg.analysis.claims.headline import headline, headline_rows
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.tables import study_tables, table2
from chexseg.pathologies import COMPETITION
from chexseg.report.figures import figure2, figure3, figure4, figure5, stage_graph
from chexseg.report.page import overlay_section, provenance, sections, weak_label_section
from chexseg.report.page.table_views import grid
from chexseg.report.page.wide_grids import auroc_table, value_table

#: Larger graphs aren't drawn: they take seconds and can't be read.
MOST_DRAWN = 1500


def study_view(results: StudyResults, name: str, tables: Mapping[str, pd.DataFrame]) -> Any:
    """Return the arguments of the template of a study.

    name: prefix of anchors and files, unique among the studies of a page. tables: file name ->
    rows of all tables that aren't empty.
    """
    shown: dict[str, Any] = {}
    if len(results.cells):
        shown |= _verdicts(results, tables) | _comparisons(results, name, tables)
        shown["test_images"] = overlay_section.test_images(results)
        shown["cells"] = sections.cells(tables["cells"], study_tables.without_expert(results), name)
    if results.weak_labels:
        sets = [
            (labels, rows, weak_label_agreement.sentences(labels, rows))
            for labels, rows in zip(
                weak_label_agreement.label_sets(results),
                _numbered(tables, "weak-labels"),
                strict=True,
            )
        ]
        shown["weak_labels"] = weak_label_section.weak_labels(
            sets, weak_label_agreement.absent(results), results.pathologies
        )
    if results.classifiers:
        names = classifiers.classifier_names(results.classifiers)
        trained = dict(zip(names, results.classifiers, strict=True))
        auroc = auroc_table(tables["auroc"], {name: one.key for name, one in trained.items()})
        shown["classifiers"] = weak_label_section.classifiers(auroc, trained, COMPETITION)
    if "students" in tables:
        shown["students"] = sections.students(tables["students"])
    if len(results.graph):
        shown["stages"] = sections.stages(results.graph, graph_figure(results), name)
    if "stages" in tables:
        shown["time"] = sections.time(tables["stages"])
    missing = tables.get("missing", pd.DataFrame())
    shown["missing_cells"] = sections.missing_cells(missing, name)
    runs = tables.get("runs", provenance.rows(results))
    shown["provenance"] = provenance.provenance(runs, name)
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
    return [rows for file, rows in tables.items() if file.rstrip("0123456789").rstrip("-") == name]


def _verdicts(results: StudyResults, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    judged = headline(results)
    keys = [
        study_tables.cell_keys(results, arm.indices) for arm in dict.fromkeys(judged.roles.values())
    ]
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
        of_variants = {
            str(variant): value_table(rows)
            for variant, rows in zip(variants, _numbered(tables, "table1"), strict=False)
        }
        shown["table1"] = sections.table1(
            of_variants, len(variants), len(results.pathologies), name
        )
        points = figure2.figure2_points(results, variants[0])
        by_task = dict(iter(points.groupby("task", sort=False)))
        panels = {
            f"{name}--panel-{n}": figure2.figure2(by_task[task or AVERAGE], "abcd"[n], legend=False)
            for n, task in enumerate(figure2.figure2_panels(results))
        }
        shown["figure2"] = {"panels": panels, "variant": str(variants[0])}
        further = {
            f"{name}--further-{n}": figure2.figure2(by_task[task], legend=False)
            for n, task in enumerate(figure2.figure2_others(results))
            if task in by_task
        }
    if "table2" in tables:
        table = grid(value_table(tables["table2"]))
        shown["table2"] = {"table": table, "all_ten": table2.all_ten(results)}
    rows = figure3.figure3_rows(results)
    students = {
        f"{name}--students-{n}": figure3.figure3(rows, init, legend=False)
        for n, init in enumerate(figure3.figure3_panels(rows))
    }
    rows = figure4.figure4_rows(results)
    encoders = {
        f"{name}--encoders-{images}": figure4.figure4(
            rows, images, "b" if images else "a", legend=False
        )
        for images in figure4.figure4_panels(rows)
    }
    shown |= {"figure3": {"panels": students}} if students else {}
    shown |= {"figure4": {"panels": encoders}} if encoders else {}
    rows = figure5.figure5_rows(results)
    if figure5.has_figure5(rows):
        drawn = figure5.figure5(rows, legend=False)
        note = results.radiologists_note
        shown["figure5"] = sections.figure5(drawn, rows, tables["radiologists"], note, name)
    if "pathologies" in tables:
        arms = value_table(tables["pathologies"])
        shown["pathologies"] = sections.pathologies(arms, further)
    return shown


def graph_figure(results: StudyResults) -> Any:
    """Return the figure of the graph of stages, or None if it is empty or too large to draw."""
    if not 0 < len(results.graph) <= MOST_DRAWN:
        return None
    return stage_graph.draw(stage_graph.rows(results))
