"""The report: one self-contained index.html, and beside it the same tables and figures as files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from chexseg.report import figures, overlays, stage_graph, tables, weak_labels
from chexseg.report.claims import claims, claims_rows
from chexseg.report.claims_section import claims_html
from chexseg.report.comparison_sections import comparison_sections, paper_tables
from chexseg.report.headline import headline, headline_rows, verdict
from chexseg.report.published import css_name
from chexseg.report.results import StudyResults
from chexseg.report.statistics import patient_of
from chexseg.report.weak_label_section import classifiers_html, weak_labels_html


@dataclass(frozen=True)
class Written:
    """What a report consists of. `notes` says what was left out, and why."""

    page: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write(results_list: Sequence[StudyResults], out: Path) -> Path:
    """Write the report of one or more studies into `out`; returns the path of its index.html."""
    return publish(results_list, out).page


def publish(results_list: Sequence[StudyResults], out: Path, images: bool = True) -> Written:
    """Write index.html, tables/ (csv, md, tex, html) and figures/ (html; with `images`, if possible, png, svg) into `out`."""
    out = Path(out)
    files: list[Path] = []
    drawn: dict[Path, go.Figure] = {}
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for study, results in named(results_list).items():
        for name, rows in study_tables(results).items():
            for ending, text_of in tables.WRITERS.items():
                files.append(out / "tables" / f"{study}-{name}{ending}")
                files[-1].write_text(text_of(rows), encoding="utf-8")
        for name, figure in study_figures(results).items():
            stem = out / "figures" / f"{study}-{name}"
            figures.write_html(figure, stem.with_suffix(".html"))
            files.append(stem.with_suffix(".html"))
            drawn |= {stem.with_suffix(ending): figure for ending in (".png", ".svg")}
        sheet = overlays.sheet_png(results)
        if sheet is not None:
            files.append(out / "figures" / f"{study}-overlays.png")
            files[-1].write_bytes(sheet)
    notes = []
    if images and drawn:
        failure = figures.write_images(drawn)
        notes += [failure] if failure else []
        files += [] if failure else list(drawn)
    page = out / "index.html"
    page.write_text(render(results_list, notes), encoding="utf-8")
    return Written(page, tuple(files), tuple(notes))


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"


def named(results_list: Sequence[StudyResults]) -> dict[str, StudyResults]:
    """Studies by the name that their files and anchors get; a repeated one is numbered."""
    found: dict[str, StudyResults] = {}
    for results in results_list:
        name, number = slug(results.name), 1
        while name in found:
            number += 1
            name = f"{slug(results.name)}-{number}"
        found[name] = results
    return found


def study_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """File name -> rows of every table that the study has something for."""
    found = {"claims": claims_rows(claims(results))} if len(results.cells) else {}
    found |= {"cells": tables.cells_rows(results), "students": tables.students_rows(results)}
    for index, variant in enumerate(tables.variants(results)):
        found["table1" + (f"-{index + 1}" if index else "")] = tables.table1_rows(results, variant)
    for index, labels in enumerate(weak_labels.label_sets(results)):
        found["weak-labels" + (f"-{index + 1}" if index else "")] = weak_labels.rows(labels, results.pathologies)
    if results.classifiers:
        found |= {"auroc": weak_labels.auroc_rows(results), "classifiers": weak_labels.classifiers_rows(results)}
    found |= paper_tables(results)
    found |= {"stages": tables.stages_rows(results), "missing": tables.missing_rows(results)}
    return {name: rows for name, rows in found.items() if len(rows)}


def study_figures(results: StudyResults) -> dict[str, go.Figure]:
    """File name -> figure; the paper's for their panels."""
    found = {"stages": stage_graph.draw(stage_graph.rows(results))} if len(results.graph) else {}
    return found | figures.paper_figures(results)


def completeness(results: StudyResults) -> str:
    return f"{len(results.cells)} of {len(results.cells) + len(results.missing)} cells finished"


# ---- layout; colours, type and behaviour stand in page.html ------------------------------------------------------------


def render(results_list: Sequence[StudyResults], notes: Sequence[str] = ()) -> str:
    """The whole page as text."""
    title = results_list[0].title if len(results_list) == 1 else ", ".join(results.title for results in results_list)
    parts = {
        "title": escape(title),
        "body": "\n".join(_study(name, results) for name, results in named(results_list).items()) + _method(notes),
        "config": json.dumps(figures.CONFIG),
        "plotlyjs": get_plotlyjs(),
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # One pass: what is filled in may itself hold braces.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def _study(name: str, results: StudyResults) -> str:
    sections: dict[str, str] = {}
    if len(results.cells):
        sections |= {"Claims": claims_html(results), "Result": _result(results)}
        if tables.variants(results):
            sections |= {"Table 1": _table1(results), "Figure 2": _figure2(results, name)}
        sections |= comparison_sections(results, name)
    if results.weak_labels:
        sections["Weak labels"] = weak_labels_html(results)
    if results.classifiers:
        sections["Classifiers"] = classifiers_html(results)
    if len(results.cells):
        sections["Test images"] = _overlays(results)
        if len(tables.students_rows(results)):
            sections["Students"] = _students(results)
        sections["Cells"] = _cells(results)
    if len(results.graph):
        sections["Stages"] = _stages(results, name)
    if len(results.stages):
        sections["Time"] = _time(results)
    sections |= {"Missing cells": _missing(results), "Provenance": _provenance(results)}
    links = "".join(f'<a href="#{name}--{slug(title)}">{title}</a>' for title in sections)
    content = "".join(
        f'<section id="{name}--{slug(title)}"><h2>{title}</h2>{text}</section>' for title, text in sections.items()
    )
    return f'{_header(results, name)}<nav aria-label="Contents"><div>{links}</div></nav><main>{content}</main>'


def _header(results: StudyResults, name: str) -> str:
    patients, pathologies = len({patient_of(image_id) for image_id in results.image_ids}), len(results.pathologies)
    facts = [
        completeness(results),
        f"{len(results.image_ids):,} test images",
        f"{patients:,} patients",
        f"{pathologies} {'pathology' if pathologies == 1 else 'pathologies'}",
    ]
    listed = re.sub(r"([\d,]+)", r"<b>\1</b>", "".join(f"<li>{fact}</li>" for fact in facts))
    state = ""
    if len(results.missing):
        states = ", ".join(f"{number} {kind}" for kind, number in results.missing["state"].value_counts().items())
        state = (
            f'<p class="alert">Incomplete: {completeness(results)} ({escape(states)}). What follows holds for the '
            f'finished ones. <a href="#{name}--missing-cells">Which are missing</a></p>'
        )
    if not len(results.cells):
        state += '<p class="lead">No cell has finished yet, so there is nothing to compare.</p>'
    return (
        f'<header id="{name}"><p class="eyebrow">chexseg study report: {escape(results.name)}</p>'
        f'<h1>{escape(results.title)}</h1><ul class="facts">{listed}</ul>{state}</header>'
    )


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _scroll(table: str, kind: str = "") -> str:
    """Wide tables scroll by themselves, and the page doesn't."""
    return f'<div class="scroll {kind}">{table}</div>'


def _result(results: StudyResults) -> str:
    found = headline(results)
    rows = headline_rows(results, found)
    top = 1.08 * float(np.nanmax(rows[["mIoU", "patients high", "paper"]].to_numpy(dtype=float), initial=0.1))
    sentences = [escape(sentence) for sentence in verdict(found)]
    listed = "".join(f"<li>{sentence}</li>" for sentence in sentences[1:])
    titles = ["mIoU", "95% over trials", "trials", "95% over patients", "paper"]
    head = "".join(f'<th class="number">{title}</th>' for title in titles)
    body = []
    for row in rows.to_dict("records"):
        numbers = [f"<big>{_number(row['mIoU'])}</big>", _ends(row, "trials"), str(row["n"]), _ends(row, "patients")]
        body.append(
            f'<tr><td><span class="dot" style="background:var(--{css_name(row["colour"])})"></span>{row["arm"]}'
            f"<small>{escape(row['settings'])}</small></td>"
            + "".join(f'<td class="number">{text}</td>' for text in [*numbers, _number(row["paper"])])
            + f'<td class="strip">{_strip(row, top)}</td></tr>'
        )
    table = (
        f'<table class="arms"><thead><tr><th>Arm</th>{head}<th class="strip">0 to {top:.2f}</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    note = (
        "Weak, full and CheXseg are the arms of p = 0, p = 1 and those between with the highest mIoU on the selection images; "
        "the test set had no say. The best on the test set is chosen by the very figure it shows, which is therefore "
        "optimistic. Strips: dot, mean over trials; thick line, 95% over patients; thin line, 95% over trials; open diamond, "
        "the paper on CheXpert’s test set, ten pathologies."
    )
    return f'<p class="lead">{sentences[0]}</p>{f"<ul>{listed}</ul>" if listed else ""}{_scroll(table)}{_note(note)}'


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}".replace("-", "\u2212")


def _ends(row: dict, name: str) -> str:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return "–" if np.isnan(low) else f"{_number(low)} to {_number(high)}"


def _strip(row: dict, top: float) -> str:
    """A row of a forest plot: mean, both intervals, the paper's value."""
    if np.isnan(row["mIoU"]):
        return ""

    def at(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, value / top)):.2f}%"

    colour = f"var(--{css_name(row['colour'])})"
    parts = ['<line x1="0" x2="100%" y1="11" y2="11" stroke="var(--line)"/>']
    for name, width in (("trials", 1.2), ("patients", 4)):
        low, high = row[f"{name} low"], row[f"{name} high"]
        if not np.isnan(low):
            ends = f'x1="{at(low)}" x2="{at(high)}" y1="11" y2="11"'
            parts.append(f'<line {ends} stroke="{colour}" stroke-width="{width}"/>')
    parts.append(f'<circle cx="{at(row["mIoU"])}" cy="11" r="5.5" fill="{colour}" stroke="var(--paper)"/>')
    if not np.isnan(row["paper"]):
        turned = 'transform="translate(0 11) rotate(45)" fill="var(--paper)" stroke="var(--soft)"'
        diamond = f'<rect x="-3.6" y="-3.6" width="7.2" height="7.2" {turned}/>'
        parts.append(f'<svg x="{at(row["paper"])}" overflow="visible">{diamond}</svg>')
    return f'<svg role="img" aria-label="mIoU {row["mIoU"]:.3f}">{"".join(parts)}</svg>'


def _switch(data: str, text: str, shape: str, colour: str = "") -> str:
    """A legend entry that can be switched off."""
    key = f'<span class="key {shape}"{f" style=background:{colour}" if colour else ""}></span>'
    return f'<label><input type="checkbox" checked {data}>{key}{escape(text)}</label>'


PAPER_SWITCH = _switch('data-group="paper"', "the paper’s values", "open")


def _table1(results: StudyResults) -> str:
    parts = [f'<fieldset class="switches screen">{PAPER_SWITCH}</fieldset>']
    of_all = "" if len(results.pathologies) == 10 else " (its average here over the same pathologies)"
    for index, variant in enumerate(tables.variants(results)):
        rows = tables.table1_rows(results, variant)
        dashes = "".join(f" {escape(gap.replace('-: ', 'Dash: ', 1))}" for gap in tables.gaps(rows))
        note = (
            f"{escape(str(variant)).capitalize()}. IoU pooled over the test images, mean over trials; ±, half of the 95% "
            "t-interval where two or more trials have finished; bold, best of a method's row, p = 1 counting in both; in "
            f"italics, the paper’s Table 1{of_all}.{dashes}"
        )
        block = _scroll(tables.to_html(rows)) + _note(note)
        parts.append(f"<details><summary>{escape(str(variant))}</summary>{block}</details>" if index else block)
    return "".join(parts)


def _figure2(results: StudyResults, name: str) -> str:
    variant = tables.variants(results)[0]
    plots, groups = [], set()
    for n, pathology in enumerate(figures.figure2_panels(results)):
        figure = figures.figure2(figures.figure2_rows(results, pathology, variant), "abcd"[n], legend=False)
        groups |= {trace.legendgroup for trace in figure.data}
        plots.append(_plot(figure, f"{name}--panel-{n}"))
    entries = {
        "cam": ("CAM", "round", "var(--cam)"),
        "cam++": ("CAM++", "triangle", "var(--cam-plus-plus)"),
        "irnet": ("IRNet", "", "var(--irnet)"),
        "full": ("full, p = 1", "diamond", "var(--full)"),
        "trials": ("single trials", "small", "var(--paper-mark)"),
    }
    switches = "".join(_switch(f'data-group="{key}"', *entry) for key, entry in entries.items() if key in groups)
    switches += PAPER_SWITCH if "paper" in groups else ""
    note = (
        f"IoU by p, the probability that a training sample is an expert’s. {escape(str(variant)).capitalize()}. Bars: 95% "
        "t-intervals over trials, cut where they leave the frame. Where this study’s images aren’t CheXpert’s, compare the "
        "shape of the paper’s curves, not their height. Drag to zoom, double-click to return."
    )
    return f'<fieldset class="switches">{switches}</fieldset><div class="plots">{"".join(plots)}</div>{_note(note)}'


def _plot(figure: go.Figure, anchor: str, kind: str = "") -> str:
    """A figure that the page's script draws."""
    data = figure.to_json().replace("</", "<\\/")
    return (
        f'<figure><div class="plot {kind}" data-figure="{anchor}" style="height:{figure.layout.height}px"></div>'
        f'<script type="application/json" id="{anchor}">{data}</script></figure>'
    )


def _stages(results: StudyResults, name: str) -> str:
    note = (
        "Every run of a stage that the study needs, once, to the right of what it reads. Point at one to see which it is; runs "
        "that several cells need have several lines to the right."
    )
    return _plot(stage_graph.draw(stage_graph.rows(results)), f"{name}--graph", "wide") + _note(note)


def _overlays(results: StudyResults) -> str:
    grid, present = overlays.grid_html(results)
    if not present:
        return grid
    switches = "".join(
        _switch(f'data-layer="{k}"', name, "dash" if name in figures.DASHED else "", figures.PATHOLOGY_COLOURS[name])
        for k, name in enumerate(results.pathologies)
        if k in present
    )
    note = (
        f"{escape(overlays.RULE)} IoU: mean over the pathologies that the experts drew on the image. "
        '<span class="screen">Point at a panel, or hold it, to see the film alone; the legend switches a pathology.</span>'
    )
    return f'<fieldset class="switches">{switches}</fieldset>{_scroll(grid)}{_note(note)}'


def _students(results: StudyResults) -> str:
    rows = tables.students_rows(results)
    rows = rows.drop(columns="reason") if rows["reason"].isna().all() else rows
    note = (
        "mIoU on the test images. A student learns from its teacher’s soft masks of a fraction of the training images. The "
        "teacher is the fully supervised cell of the same encoder and trial; the difference is paired by trial; ±, half of "
        "the 95% t-interval where two or more trials have finished."
    )
    return _scroll(tables.to_html(rows)) + _note(note)


def _cells(results: StudyResults) -> str:
    rows = tables.cells_rows(results)
    constant = [name for name in ("init", "weak_images", "fraction") if name in rows and rows[name].nunique() < 2]
    left_out = ""
    if "left out" in rows:
        absent = [name for name in results.pathologies if rows[name].isna().all()]
        left_out = f" Without an expert mask in the test set, and left out of every mean: {', '.join(absent)}."
    note = f'IoU pooled over the test images. <span class="screen">Click a header to sort.</span>{escape(left_out)}'
    return _scroll(tables.to_html(rows.drop(columns=constant), sortable=True), "cells") + _note(note)


def _time(results: StudyResults) -> str:
    minutes, seconds = divmod(round(float(pd.to_numeric(results.stages["seconds"]).sum())), 60)
    together = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    note = f"Together {together} of stage time; stages that ran side by side count each."
    return _scroll(tables.to_html(tables.stages_rows(results))) + _note(note)


def _missing(results: StudyResults) -> str:
    if not len(results.missing):
        return '<p class="soft">None: every cell of the study has scores.</p>'
    return _scroll(tables.to_html(tables.missing_rows(results)))


def _provenance(results: StudyResults) -> str:
    parts = [
        "<p>A key is the sha256 of a stage’s name, version, settings, the keys of its inputs and the fingerprint of the data: "
        "the same key, the same result. In the store, the folder of that name holds the files and their manifest.</p>"
    ]
    cells = {"Cell": results.cells["name"], "Key of its scores": results.cells["cell"]}
    stages = {name.capitalize(): results.stages[name] for name in ("stage", "key", "host", "settings")}
    for text, columns in ((f"{len(results.cells)} cells", cells), (f"{len(results.stages)} stage runs", stages)):
        head = "".join(f"<th>{name}</th>" for name in columns)
        lines = zip(*columns.values(), strict=True)
        body = "".join("<tr>" + "".join(f"<td><code>{escape(str(v))}</code></td>" for v in line) + "</tr>" for line in lines)
        table = f'<table class="keys"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        parts.append(f"<details><summary>{text} and their keys</summary>{_scroll(table)}</details>" if body else "")
    return "".join(parts)


TERMS = {
    "IoU": "Intersections and unions of a pathology are summed over all test images, then divided (the paper’s section 3.1).",
    "mIoU": "The mean over pathologies. One without an expert mask in the test set is left out, for every model alike.",
    "95% over trials": "Student’s t-interval of the trials’ mIoU. A trial has its own weak images and its own seed.",
    "95% over patients": "Student’s, with the standard error of 1,000 bootstrap samples of patients with all their images.",
    "Resolved": "The paired difference over trials and patients together has p below 0.05, corrected by Holm for both steps.",
    "Paper": "Gadgil et al., CheXseg, MIDL 2021 (arXiv:2102.10484), on CheXpert’s radiographs.",
}


def _method(notes: Sequence[str]) -> str:
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in TERMS.items())
    extra = "".join(f"<p>{escape(note[0].upper() + note[1:])}.</p>" for note in notes)
    return f"<footer><h2>How the figures are made</h2><dl>{listed}</dl>{extra}</footer>"
