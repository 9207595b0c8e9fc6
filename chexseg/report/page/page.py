"""The report: a self-contained index.html, and the same tables and figures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.claims.verdicts import claims, claims_rows
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables, table2
from chexseg.analysis.tables.text import to_csv, to_markdown, to_tex
from chexseg.report import file_manifest
from chexseg.report.figures import figure5, stage_graph, study_figures
from chexseg.report.page import environment, film_grids, overlay_section, provenance
from chexseg.report.page.study_view import Content, study_view

#: File suffix -> function that formats a table for it.
WRITERS = {".csv": to_csv, ".md": to_markdown, ".tex": to_tex}
#: Longer tables are written only as CSV: the other formats are for reading.
MOST_LINES = 1000
#: Larger graphs aren't drawn: they take seconds and can't be read.
MOST_DRAWN = 1500


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report. notes: what was left out, and why."""

    page: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def publish(results_list: Sequence[StudyResults], out: Path, images: bool = True) -> WrittenReport:
    """Write index.html, tables/ (csv, md, tex) and figures/ (html, png, svg) into `out`.

    images: write png and svg, if kaleido is installed. Unmodified files of an earlier report that
    this one doesn't contain are deleted.
    """
    out = Path(out)
    files: list[Path] = []
    drawn: dict[Path, go.Figure] = {}
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    studies = contents(results_list)
    for study, content in studies.items():
        for name, rows in content.tables.items():
            writers = WRITERS if len(rows) <= MOST_LINES and name != "runs" else {".csv": to_csv}
            for suffix, text_of in writers.items():
                files.append(out / "tables" / f"{study}-{name}{suffix}")
                files[-1].write_text(text_of(rows), encoding="utf-8")
        figures = {} if content.graph is None else {"stages": content.graph}
        for name, figure in (figures | study_figures.paper_figures(content.results)).items():
            stem = out / "figures" / f"{study}-{name}"
            study_figures.write_html(figure, stem.with_suffix(".html"))
            files.append(stem.with_suffix(".html"))
            drawn |= {stem.with_suffix(suffix): figure for suffix in (".png", ".svg")}
        if (together := content.test_images["together"]) is not None:
            files.append(out / "figures" / f"{study}-overlays.png")
            files[-1].write_bytes(film_grids.sheet_png(together, content.test_images["drawn"]))
    notes = []
    if images and drawn:
        failure = study_figures.write_images(drawn)
        notes += [failure] if failure else []
        files += [] if failure else list(drawn)
    files += [out / "figures" / "plotly.min.js"] if drawn else []
    page = out / "index.html"
    page.write_text(_render(studies, notes), encoding="utf-8")
    file_manifest.replace(out, files)
    return WrittenReport(page, tuple(files), tuple(notes))


def slug(name: str) -> str:
    """Return a name with only lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def contents(results_list: Sequence[StudyResults]) -> dict[str, Content]:
    """Return the studies by the name of their files and anchors; repeated names get a number."""
    studies: dict[str, Content] = {}
    for results in results_list:
        name, number = slug(results.name), 1
        while name in studies:
            number += 1
            name = f"{slug(results.name)}-{number}"
        graph = (
            stage_graph.draw(stage_graph.rows(results))
            if 0 < len(results.graph) <= MOST_DRAWN
            else None
        )
        test_images = overlay_section.test_images(results)
        studies[name] = Content(results, all_tables(results), graph, test_images)
    return studies


def all_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """Return file name -> rows of all tables that aren't empty."""
    tables = {"claims": claims_rows(claims(results))} if len(results.cells) else {}
    of_mixture = (
        study_tables.variants(results)[: study_tables.MOST_VARIANTS]
        if study_tables.has_table1(results)
        else []
    )
    tables |= {
        "cells": study_tables.cells_rows(results),
        "students": study_tables.students_rows(results),
        **{
            f"table1{_suffix(index)}": study_tables.table1_rows(results, variant)
            for index, variant in enumerate(of_mixture)
        },
        **{
            f"weak-labels{_suffix(index)}": weak_label_agreement.rows(labels, results.pathologies)
            for index, labels in enumerate(weak_label_agreement.label_sets(results))
        },
    }
    if results.classifiers:
        tables |= {
            "auroc": classifiers.auroc_rows(results),
            "classifiers": classifiers.classifiers_rows(results),
        }
    points = figure5.figure5_rows(results)
    tables |= {"pathologies": table2.arms_rows(results)}
    tables |= {"table2": table2.table2_rows(results)} if table2.has_table2(results) else {}
    tables |= (
        {"radiologists": figure5.radiologists_rows(points)} if figure5.has_figure5(points) else {}
    )
    tables |= {
        "stages": study_tables.stages_rows(results),
        "missing": study_tables.missing_rows(results),
        "runs": provenance.rows(results),
    }
    return {name: rows for name, rows in tables.items() if len(rows)}


def _suffix(index: int) -> str:
    return f"-{index + 1}" if index else ""


def render(results_list: Sequence[StudyResults], notes: Sequence[str] = ()) -> str:
    """Return the whole page as text. notes: what was left out, and why."""
    return _render(contents(results_list), notes)


def _render(studies: Mapping[str, Content], notes: Sequence[str]) -> str:
    return environment.render(
        "report.html",
        title=", ".join(content.results.title for content in studies.values()),
        studies=[study_view(name, content) for name, content in studies.items()],
        notes=notes,
    )
