"""The page's sections on weak labels and on the classifiers they come from, as HTML."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from chexseg.analysis import classifiers, weak_label_agreement
from chexseg.analysis.published import css_name
from chexseg.analysis.results import StudyResults
from chexseg.analysis.weak_label_agreement import BETTER, MEAN, WORSE, LabelSet
from chexseg.report.page.weak_label_overlays import RULE, blocks_html

NOTE = (
    "IoU pooled over the images of <code>valid</code> that have expert masks, at training size. Random box: the IoU to expect "
    "of a square of as many pixels as the labels have in an image, placed anywhere in it. CAMs are compared with that, IRNet "
    "with the CAMs it started from. Verdicts use the held-out images alone, few as they are: on the others the CAM thresholds "
    "were chosen, which favours CAM over the box and over IRNet, whose threshold is fixed. Differences have 95% intervals over "
    "patients (Student’s, with the standard error of 1,000 bootstrap samples of patients with all their images; paired). "
    "Better or worse: the p-value, by Holm’s correction over the pathologies of one kind of labels, is below 0.05. One such "
    "list in twenty holds a false entry; an interval may exclude 0 by itself where the verdict is undecided. Undecided isn’t "
    "equal: the images are too few to tell. Below six patients there is no interval, for even if all agreed it couldn’t "
    "exclude 0. The classifier’s checkpoint was chosen on all of <code>valid</code>."
)
MARKS = {BETTER: "▲", WORSE: "▼"}


def weak_labels_html(results: StudyResults) -> str:
    """Sentences, tables and overlays; a line where the store doesn't hold what they need."""
    sets = weak_label_agreement.label_sets(results)
    lacking = "".join(
        f'<p class="soft">No figures for the study’s {kind} labels: {escape(reason)}.</p>'
        for kind, reason in weak_label_agreement.absent(results)
    )
    if not sets:
        return lacking
    parts = []
    for number, labels in enumerate(sets):
        rows = weak_label_agreement.rows(labels, results.pathologies)
        said = [escape(sentence) for sentence in weak_label_agreement.sentences(labels, rows)]
        listed = "".join(f"<li>{sentence}</li>" for sentence in said[1:])
        heading = f"<h3>{escape(labels.text)}</h3>" if labels.text else ""
        lead = f'<p class="{"soft" if number else "lead"}">{said[0]}</p>' if said else ""
        block = f'{lead}<ul>{listed}</ul><div class="scroll">{table_html(rows)}</div>'
        parts.append(
            f"<details><summary>{escape(labels.text)}</summary>{block}</details>"
            if number
            else heading + block
        )
    parts.append(f'<p class="note">{NOTE}</p>{lacking}')
    return "".join(parts) + _overlays_html(sets, results.pathologies)


def _overlays_html(sets: list[LabelSet], pathologies: tuple[str, ...]) -> str:
    if any(labels.image is None for labels in sets[0].labels):
        return '<p class="soft">No overlays: the images aren’t at hand.</p>'
    blocks, without = blocks_html(sets[0], pathologies)
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
    note = (
        f"{RULE} White line: the experts’ outline.{which}{missing} "
        '<span class="screen">Point at a panel, or hold it, to see the film alone.</span>'
    )
    return f'<h3>From map to mask</h3><p class="note">{note}</p><div class="weak">{blocks}</div>'


def table_html(rows: pd.DataFrame) -> str:
    """The rows of `agreement.rows`, a pathology's kinds one beneath another."""
    kinds = rows["labels"].nunique()
    partly = bool((rows["images"] > rows["held-out images"]).any())
    groups = '<tr><th colspan="2"></th><th class="group" colspan="4">Held-out images</th>'
    heads = '<tr><th>Pathology</th><th>Labels</th><th class="verdict">verdict</th><th class="number">IoU</th>'
    heads += '<th class="number">random box</th><th class="number">difference, 95%</th>'
    if partly:
        groups += '<th class="group" colspan="3">All masked images</th>'
        heads += '<th class="number apart">IoU</th><th class="number">random box</th><th class="number">difference, 95%</th>'
    body = []
    for index, row in enumerate(rows.to_dict("records")):
        first = index % kinds == 0
        cells = []
        if first:
            images = f"{row['held-out images']} of {row['images']} images held out"
            cells.append(
                f'<th scope="rowgroup" rowspan="{kinds}">{escape(row["pathology"])}<small>{images}</small></th>'
            )
        cells.append(f'<td class="method {css_name(row["labels"].lower())}">{row["labels"]}</td>')
        cells += [_verdict(row), _number(row["held-out IoU"], row["reason"])]
        cells += [
            _number(row["held-out box IoU"], row["reason"], "soft"),
            _difference(row, "", row["reason"]),
        ]
        if partly:
            cells += [
                _number(row["IoU"], row["reason"], "apart"),
                _number(row["box IoU"], row["reason"], "soft"),
            ]
            cells.append(_difference(row, "all ", row["reason"]))
        kind = " ".join(
            filter(None, ["first" if first else "", "average" if row["pathology"] == MEAN else ""])
        )
        body.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    return f'<table class="table1 labels"><thead>{groups}</tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _text(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f").replace("-", "\u2212")


def _dash(reason: object) -> str:
    return f'<abbr title="{escape(str(reason))}">–</abbr>'


def _number(value: float, reason: object, kind: str = "") -> str:
    text = _dash(reason) if np.isnan(value) else _text(value)
    return f'<td class="number {kind}">{text}</td>'


def _difference(row: dict, scope: str, reason: object) -> str:
    value, low, high = (row[f"{scope}{name}"] for name in ("difference", "from", "to"))
    if np.isnan(value):
        return f'<td class="number">{_dash(reason)}</td>'
    against = "box" if row["against"] == weak_label_agreement.BOX else row["against"]
    ends = f"{_text(low, '+')} to {_text(high, '+')}" if not np.isnan(low) else "no interval"
    return f'<td class="number">{_text(value, "+")}<small>minus {against}: {ends}</small></td>'


def _verdict(row: dict) -> str:
    verdict, reason = row["verdict"], row["reason"]
    if not isinstance(verdict, str):
        return f'<td class="verdict">{_dash(reason)}<small>{escape(str(reason))}</small></td>'
    mark = f'<span class="mark">{MARKS[verdict]}</span> ' if verdict in MARKS else ""
    small = f"<small>{escape(reason)}</small>" if isinstance(reason, str) else ""
    return f'<td class="verdict {verdict}">{mark}{verdict}{small}</td>'


def classifiers_html(results: StudyResults) -> str:
    """AUROC of each observation, one column a classifier."""
    rows = classifiers.auroc_rows(results)
    names = classifiers.classifier_names(results.classifiers)
    heads = "".join(
        f'<th class="number">{escape(name)}<small>step {c.step:,} of {c.steps:,}; {c.images:,} images</small></th>'
        for name, c in zip(names, results.classifiers, strict=True)
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
            f'<tr class="{"average" if mean else "five" if five else ""}"><td>{text}</td>{cells}</tr>'
        )
    lacking = rows.loc[
        rows["reason"].notna() & (rows["observation"] != MEAN), "observation"
    ].tolist()
    dash = (
        f" Dash: {classifiers.ONE_CLASS.replace('valid', '<code>valid</code>')}: {', '.join(lacking)}."
        if lacking
        else ""
    )
    note = (
        "Area under the ROC curve on <code>valid</code>; 0.5 is chance. The checkpoint with the highest mean of CheXpert’s "
        f"five competition tasks (of those that have one) is kept, so that mean is optimistic.{dash}"
    )
    return (
        f'<div class="scroll"><table class="auroc"><thead><tr><th>Observation</th>{heads}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="note">{note}</p>'
    )
