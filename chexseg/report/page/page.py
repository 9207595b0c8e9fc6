"""The report: a self-contained index.html, and the same tables and figures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.claims.verdicts import claims, claims_rows
from chexseg.analysis.points.stage_graph import rows as graph_rows
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import patient_of
from chexseg.analysis.tables import study_tables
from chexseg.analysis.tables.text import to_csv, to_markdown, to_tex
from chexseg.report import file_manifest
from chexseg.report.figures import stage_graph, study_figures
from chexseg.report.page import (
    cell_sections,
    claims_section,
    comparison_sections,
    html_tables,
    markup,
    mixture_section,
    overlay_section,
    overlays,
    provenance,
    result_section,
    run_sections,
    weak_label_section,
)

#: File suffix -> function that formats a table for it.
WRITERS = {".csv": to_csv, ".md": to_markdown, ".tex": to_tex, ".html": html_tables.to_html_file}
#: Longer tables are written only as CSV: the other formats are for reading.
MOST_LINES = 1000


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report. notes: what was left out, and why."""

    page: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def publish(results_list: Sequence[StudyResults], out: Path, images: bool = True) -> WrittenReport:
    """Write index.html, tables/ (csv, md, tex, html) and figures/ (png, svg) into `out`.

    images: write png and svg, if kaleido is installed. Unmodified files of an earlier report that
    this one doesn't contain are deleted.
    """
    out = Path(out)
    files: list[Path] = []
    drawn: dict[Path, go.Figure] = {}
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for study, results in named(results_list).items():
        for name, rows in all_tables(results).items():
            writers = WRITERS if len(rows) <= MOST_LINES and name != "runs" else {".csv": to_csv}
            for suffix, text_of in writers.items():
                files.append(out / "tables" / f"{study}-{name}{suffix}")
                files[-1].write_text(text_of(rows), encoding="utf-8")
        for name, figure in (all_figures(results) if images else {}).items():
            stem = out / "figures" / f"{study}-{name}"
            drawn |= {stem.with_suffix(suffix): figure for suffix in (".png", ".svg")}
        sheet = overlays.sheet_png(results)
        if sheet is not None:
            files.append(out / "figures" / f"{study}-overlays.png")
            files[-1].write_bytes(sheet)
    notes = []
    if drawn:
        failure = study_figures.write_images(drawn)
        notes += [failure] if failure else []
        files += [] if failure else list(drawn)
    page = out / "index.html"
    page.write_text(render(results_list, notes), encoding="utf-8")
    file_manifest.replace(out, files)
    return WrittenReport(page, tuple(files), tuple(notes))


def slug(name: str) -> str:
    """Return a name with only lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def named(results_list: Sequence[StudyResults]) -> dict[str, StudyResults]:
    """Return the studies by the name of their files and anchors; repeated names get a number."""
    studies: dict[str, StudyResults] = {}
    for results in results_list:
        name, number = slug(results.name), 1
        while name in studies:
            number += 1
            name = f"{slug(results.name)}-{number}"
        studies[name] = results
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
    tables |= comparison_sections.paper_tables(results)
    tables |= {
        "stages": study_tables.stages_rows(results),
        "missing": study_tables.missing_rows(results),
        "runs": provenance.rows(results),
    }
    return {name: rows for name, rows in tables.items() if len(rows)}


def _suffix(index: int) -> str:
    return f"-{index + 1}" if index else ""


def all_figures(results: StudyResults) -> dict[str, go.Figure]:
    """Return file name -> figure of the stage graph and of all panels of the paper's figures."""
    graph = (
        {"stages": stage_graph.draw(graph_rows(results))}
        if 0 < len(results.graph) <= run_sections.MOST_DRAWN
        else {}
    )
    return graph | study_figures.paper_figures(results)


def completeness(results: StudyResults) -> str:
    """Return "N of M cells finished"."""
    return f"{len(results.cells)} of {len(results.cells) + len(results.missing)} cells finished"


# ---- layout: the frame is in page.html, styles in page.css, behaviour in page.js -----------------


def render(results_list: Sequence[StudyResults], notes: Sequence[str] = ()) -> str:
    """Return the whole page as text."""
    studies = "\n".join(_study(name, results) for name, results in named(results_list).items())
    return markup.document(
        ", ".join(results.title for results in results_list), studies + _method(notes)
    )


def _study(name: str, results: StudyResults) -> str:
    sections: dict[str, str] = {}
    if len(results.cells):
        sections |= {
            "Claims": claims_section.claims_html(results),
            "Result": result_section.result_html(results),
        }
        if study_tables.has_table1(results):
            sections |= {
                "Table 1": mixture_section.table1_html(results, name),
                "Figure 2": mixture_section.figure2_html(results, name),
            }
        sections |= comparison_sections.comparison_sections(results, name)
    if results.weak_labels:
        sections["Weak labels"] = weak_label_section.weak_labels_html(results)
    if results.classifiers:
        sections["Classifiers"] = weak_label_section.classifiers_html(results)
    if len(results.cells):
        sections["Test images"] = overlay_section.overlays_html(results)
        if len(study_tables.students_rows(results)):
            sections["Students"] = cell_sections.students_html(results)
        sections["Cells"] = cell_sections.cells_html(results, name)
    if len(results.graph):
        sections["Stages"] = run_sections.stages_html(results, name)
    if len(results.stages):
        sections["Time"] = run_sections.time_html(results)
    sections |= {
        "Missing cells": cell_sections.missing_html(results, name),
        "Provenance": run_sections.provenance_html(results, name),
    }
    links = "".join(f'<a href="#{name}--{slug(title)}">{title}</a>' for title in sections)
    content = "".join(
        f'<section id="{name}--{slug(title)}"><h2>{title}</h2>{text}</section>'
        for title, text in sections.items()
    )
    return (
        f'{_header(results, name)}<nav aria-label="Contents"><div>{links}</div></nav>'
        f"<main>{content}</main>"
    )


#: Explanation of the state "stale".
STALE = (
    " Stale: the store holds similar results, made by another version or with other settings or "
    "data."
)


def _header(results: StudyResults, name: str) -> str:
    pathologies = len(results.pathologies)
    facts = [
        completeness(results),
        f"{len(results.image_ids):,} test images",
        f"{len({patient_of(image_id) for image_id in results.image_ids}):,} patients",
        f"{pathologies} {'pathology' if pathologies == 1 else 'pathologies'}",
    ]
    listed = re.sub(r"([\d,]+)", r"<b>\1</b>", "".join(f"<li>{fact}</li>" for fact in facts))
    state = ""
    if len(results.missing):
        states = ", ".join(
            f"{number} {kind}" for kind, number in results.missing["state"].value_counts().items()
        )
        state = (
            f'<p class="alert">Incomplete: {completeness(results)} ({escape(states)}). This report '
            "covers the finished ones."
            f"{STALE if (results.missing['state'] == 'stale').any() else ''} "
            f'<a href="#{name}--missing-cells">List of missing cells</a></p>'
        )
    without = study_tables.without_expert(results)
    if without:
        state += (
            '<p class="alert">Without an expert mask in the test set, and excluded from all means: '
            f"{escape(', '.join(without))}.</p>"
        )
    if not len(results.cells):
        state += '<p class="lead">No cell has finished yet, so there is nothing to compare.</p>'
    return (
        f'<header id="{name}"><p class="eyebrow">chexseg study report: {escape(results.name)}</p>'
        f'<h1>{escape(results.title)}</h1><ul class="facts">{listed}</ul>{state}</header>'
    )


TERMS = {
    "IoU": "Intersections and unions of a pathology are summed over all test images, then divided "
    "(the paper’s section 3.1).",
    "mIoU": "The mean over pathologies. A pathology without an expert mask in the test set is "
    "excluded, for all models.",
    "95% over trials": "Student’s t-interval of the trials’ mIoU. Trials differ in their weak "
    "images and their seed.",
    "95% over patients": "Student’s t-interval, with the standard error of 1,000 bootstrap samples "
    "of patients with all their images.",
    "Resolved": "The paired difference over trials and patients together has p below 0.05, after "
    "Holm’s correction over both steps.",
    "Paper": "Gadgil et al., CheXseg, MIDL 2021 (arXiv:2102.10484), on CheXpert’s radiographs.",
}


def _method(notes: Sequence[str]) -> str:
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in TERMS.items())
    extra = "".join(f"<p>{escape(note[0].upper() + note[1:])}.</p>" for note in notes)
    return f"<footer><h2>Terms and methods</h2><dl>{listed}</dl>{extra}</footer>"
