"""The page's sections on weak labels and on the classifiers they come from."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.published import css_name
from chexseg.analysis.results import StudyResults
from chexseg.analysis.weak_label_agreement import BETTER, MEAN, WORSE, LabelSet
from chexseg.report.page.markup import note, scroll
from chexseg.report.page.weak_label_overlays import RULE, blocks_html

NOTE = (
    "IoU is pooled over the images of <code>valid</code> that have expert masks, at training size. "
    "Random box: the expected IoU of a square with as many pixels as the labels have in an image, "
    "placed at random in it. CAMs are compared with the random box, IRNet with the CAMs it started "
    "from. Verdicts use only the held-out images, although they are few: the CAM thresholds were "
    "chosen on the others, which favours CAM over the box and over IRNet, whose threshold is "
    "fixed. Differences are paired and have 95% intervals over patients (Student’s, with the "
    "standard error of 1,000 bootstrap samples of patients with all their images). Better or "
    "worse: the p-value is below 0.05 after Holm’s correction over the pathologies of one kind of "
    "labels. One list of verdicts in twenty contains a false one. An interval may exclude 0 even "
    "if the verdict is undecided. Undecided doesn’t mean equal: the images are too few to decide. "
    "With fewer than six patients there is no interval, because it could not exclude 0 even if all "
    "agreed. The classifier’s checkpoint was chosen on all of <code>valid</code>."
)
#: Verdict -> mark.
MARKS = {BETTER: "▲", WORSE: "▼"}


def weak_labels_html(results: StudyResults) -> str:
    """Return sentences, tables and overlays, and a line for each kind without results."""
    sets = weak_label_agreement.label_sets(results)
    lacking = "".join(
        f'<p class="soft">No scores for the study’s {kind} labels: {escape(reason)}.</p>'
        for kind, reason in weak_label_agreement.absent(results)
    )
    if not sets:
        return lacking
    parts = []
    for number, labels in enumerate(sets):
        rows = weak_label_agreement.rows(labels, results.pathologies)
        sentences = [escape(text) for text in weak_label_agreement.sentences(labels, rows)]
        listed = "".join(f"<li>{sentence}</li>" for sentence in sentences[1:])
        heading = f"<h3>{escape(labels.text)}</h3>" if labels.text else ""
        lead = f'<p class="{"soft" if number else "lead"}">{sentences[0]}</p>' if sentences else ""
        block = f"{lead}<ul>{listed}</ul>{scroll(table_html(rows))}"
        parts.append(
            f"<details><summary>{escape(labels.text)}</summary>{block}</details>"
            if number
            else heading + block
        )
    parts.append(note(NOTE) + lacking)
    return "".join(parts) + _overlays_html(sets, results.pathologies)


def _overlays_html(sets: list[LabelSet], pathologies: tuple[str, ...]) -> str:
    image = sets[0].labels[0].image
    if image is None:
        return '<p class="soft">No overlays: the images aren’t available.</p>'
    blocks, without = blocks_html(sets[0], pathologies, image)
    if not blocks:
        return ""
    which = (
        f" Of the {len(sets)} sets of labels only the first is drawn: {escape(sets[0].text)}."
        if len(sets) > 1
        else ""
    )
    missing = (
        f" Without an expert mask in <code>valid</code>: {', '.join(without)}." if without else ""
    )
    text = (
        f"{RULE} White line: the experts’ outline.{which}{missing} "
        '<span class="screen">Point at a panel, or hold it, to see only the radiograph.</span>'
    )
    return f'<h3>From map to mask</h3>{note(text)}<div class="weak">{blocks}</div>'


def table_html(rows: pd.DataFrame) -> str:
    """Return the rows of `weak_label_agreement.rows`, grouped by pathology."""
    kinds = rows["labels"].nunique()
    partly = bool((rows["images"] > rows["held-out images"]).any())
    groups = '<tr><th colspan="2"></th><th class="group" colspan="4">Held-out images</th>'
    scores = (
        '<th class="number{}">IoU</th><th class="number">random box</th>'
        '<th class="number">difference, 95%</th>'
    )
    heads = '<tr><th>Pathology</th><th>Labels</th><th class="verdict">verdict</th>'
    heads += scores.format("")
    if partly:
        groups += '<th class="group" colspan="3">All images with masks</th>'
        heads += scores.format(" apart")
    body = []
    for index, row in enumerate(rows.to_dict("records")):
        first = index % kinds == 0
        cells = []
        if first:
            images = f"{row['held-out images']} of {row['images']} images held out"
            cells.append(
                f'<th scope="rowgroup" rowspan="{kinds}">{escape(row["pathology"])}'
                f"<small>{images}</small></th>"
            )
        cells.append(f'<td class="method {css_name(row["labels"].lower())}">{row["labels"]}</td>')
        cells += [
            _verdict(row),
            _number(row["held-out IoU"], row["reason"]),
            _number(row["held-out box IoU"], row["reason"], "soft"),
            _difference(row, "", row["reason"]),
        ]
        if partly:
            cells += [
                _number(row["IoU"], row["reason"], "apart"),
                _number(row["box IoU"], row["reason"], "soft"),
                _difference(row, "all ", row["reason"]),
            ]
        kind = " ".join(
            filter(None, ["first" if first else "", "average" if row["pathology"] == MEAN else ""])
        )
        body.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    return (
        f'<table class="table1 labels"><thead>{groups}</tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _text(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f").replace("-", "\u2212")


def _dash(reason: object) -> str:
    return f'<abbr title="{escape(str(reason))}">–</abbr>'


def _number(value: float, reason: object, kind: str = "") -> str:
    text = _dash(reason) if np.isnan(value) else _text(value)
    return f'<td class="number {kind}">{text}</td>'


def _difference(row: dict[str, Any], scope: str, reason: object) -> str:
    value, low, high = (row[f"{scope}{name}"] for name in ("difference", "from", "to"))
    if np.isnan(value):
        return f'<td class="number">{_dash(reason)}</td>'
    against = "box" if row["against"] == weak_label_agreement.BOX else row["against"]
    ends = f"{_text(low, '+')} to {_text(high, '+')}" if not np.isnan(low) else "no interval"
    return f'<td class="number">{_text(value, "+")}<small>minus {against}: {ends}</small></td>'


def _verdict(row: dict[str, Any]) -> str:
    verdict, reason = row["verdict"], row["reason"]
    if not isinstance(verdict, str):
        return f'<td class="verdict">{_dash(reason)}<small>{escape(str(reason))}</small></td>'
    mark = f'<span class="mark">{MARKS[verdict]}</span> ' if verdict in MARKS else ""
    small = f"<small>{escape(reason)}</small>" if isinstance(reason, str) else ""
    return f'<td class="verdict {verdict}">{mark}{verdict}{small}</td>'


def classifiers_html(results: StudyResults) -> str:
    """Return the AUROC of each observation, one column per classifier."""
    rows = classifiers.auroc_rows(results)
    names = classifiers.classifier_names(results.classifiers)
    heads = "".join(
        f'<th class="number">{escape(name)}<small>step {classifier.step:,} of '
        f"{classifier.steps:,}; {classifier.images:,} images</small></th>"
        for name, classifier in zip(names, results.classifiers, strict=True)
    )
    body = []
    for row in rows.to_dict("records"):
        mean, five = row["observation"] == MEAN, row["competition"] == "yes"
        text = (
            "Mean of the five"
            if mean
            else f"{row['observation']}{' <small>competition</small>' if five else ''}"
        )
        cells = "".join(_number(row[name], row["reason"]) for name in names)
        body.append(
            f'<tr class="{"average" if mean else "five" if five else ""}">'
            f"<td>{text}</td>{cells}</tr>"
        )
    lacking = rows.loc[
        rows["reason"].notna() & (rows["observation"] != MEAN), "observation"
    ].tolist()
    one_class = classifiers.ONE_CLASS.replace("valid", "<code>valid</code>")
    dash = f" Dash: {one_class}: {', '.join(lacking)}." if lacking else ""
    text = (
        "Area under the ROC curve on <code>valid</code>; 0.5 is chance. The checkpoint with the "
        "highest mean over CheXpert’s five competition tasks (those with a defined value) is kept, "
        f"so this mean is optimistic.{dash}"
    )
    head = f"<thead><tr><th>Observation</th>{heads}</tr></thead>"
    return scroll(f'<table class="auroc">{head}<tbody>{"".join(body)}</tbody></table>') + note(text)
