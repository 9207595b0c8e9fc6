"""Write a report: a self-contained index.html, and the same tables and figures as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.analysis.tables.text import to_csv, to_latex, to_markdown
from chexseg.progress import QUIET, Reporter
from chexseg.report import file_manifest
from chexseg.report.figures import study_figures
from chexseg.report.page import environment, film_grids, image_section
from chexseg.report.page.study_view import study_view


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report. notes: what was left out, and why."""

    page: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write(
    analyses: Sequence[StudyAnalysis],
    out: Path,
    images: bool = True,
    browse: bool = True,
    progress: Reporter = QUIET,
) -> WrittenReport:
    """Write index.html, tables/ and figures/ into `out`.

    All tables are written as CSV, the paper's two also as Markdown and LaTeX. images: write figures
    as PNG and SVG, if kaleido is installed. browse, progress: as of `image_section.test_images`.
    Unmodified files of an earlier report that this one doesn't contain are deleted. Raises
    `UserError` if a file of others, or an edited one, would be overwritten; then nothing is
    written.
    """
    of_study: dict[str, dict[str, bytes]] = {}
    drawn: dict[str, go.Figure] = {}
    overlays: dict[str, dict[str, Any]] = {}
    browsed: dict[str, bytes] = {}
    for study, analysis in named(analyses).items():
        texts = {
            f"tables/{study}-{name}.csv": to_csv(rows) for name, rows in analysis.tables.items()
        }
        for name, table in analysis.paper_tables.items():
            texts[f"tables/{study}-{name}.md"] = to_markdown(table)
            texts[f"tables/{study}-{name}.tex"] = to_latex(table)
        if analysis.results.study_file:
            texts[f"tables/{study}-study.yaml"] = analysis.results.study_file
        of_study[study] = {name: text.encode() for name, text in texts.items()}
        # No pictures of curves: they are often more than all others, at half a second each.
        for name, figure in study_figures.draw(analysis, curves=False).items() if images else ():
            drawn |= {f"figures/{study}-{name}.{kind}": figure for kind in ("png", "svg")}
        overlays[study], images_of_study = image_section.test_images(
            study, analysis.scores, browse, progress
        )
        browsed |= images_of_study
        if overlays[study]["together"] is not None:
            sheet = film_grids.sheet_png(overlays[study]["together"], overlays[study]["drawn"])
            of_study[study][f"figures/{study}-overlays.png"] = sheet
    exported, failure = study_figures.export(drawn) if drawn else ({}, None)
    notes = (failure,) if failure else ()
    views = []
    for study, analysis in named(analyses).items():
        on_page = study_figures.draw(analysis, legend=False)
        pictures = {f"figures/{study}-{name}.{kind}" for name in on_page for kind in ("png", "svg")}
        of_study[study] |= {name: exported[name] for name in exported if name in pictures}
        views.append(study_view(study, analysis, on_page, overlays[study], list(of_study[study])))
    title = ", ".join(analysis.results.title for analysis in analyses)
    page = environment.render("report.html", title=title, studies=views, notes=notes)
    files = {name: content for group in of_study.values() for name, content in group.items()}
    files |= browsed
    file_manifest.write(out, files | {file_manifest.PAGE: page.encode()}, file_manifest.REPORT)
    for folder in file_manifest.FOLDERS:
        (out / folder).mkdir(exist_ok=True)
    return WrittenReport(out / file_manifest.PAGE, tuple(out / name for name in files), notes)


def slug(name: str) -> str:
    """Return a name with only lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def named(analyses: Sequence[StudyAnalysis]) -> dict[str, StudyAnalysis]:
    """Return the studies by the name of their files and anchors; repeated names get a number."""
    studies: dict[str, StudyAnalysis] = {}
    for analysis in analyses:
        name, number = slug(analysis.results.name), 1
        while name in studies:
            number += 1
            name = f"{slug(analysis.results.name)}-{number}"
        studies[name] = analysis
    return studies
