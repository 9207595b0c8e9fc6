"""The page's result section: the paper's three arms, their intervals and their order."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from chexseg.analysis.claims.headline import headline, headline_rows, verdict
from chexseg.analysis.published import css_name
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables.study_tables import cell_keys
from chexseg.report.page.html_tables import runs_button
from chexseg.report.page.markup import note, number, scroll


def result_html(results: StudyResults) -> str:
    """Return the verdict on the paper's order, and a table of its arms with a forest plot."""
    result = headline(results)
    rows = headline_rows(results, result)
    keys = [cell_keys(results, arm.indices) for arm in dict.fromkeys(result.roles.values())]
    keys += [""] * (len(rows) - len(keys))  # the radiologists have no runs
    top = 1.08 * float(
        np.nanmax(rows[["mIoU", "patients high", "paper"]].to_numpy(dtype=float), initial=0.1)
    )
    sentences = [escape(sentence) for sentence in verdict(result)]
    listed = "".join(f"<li>{sentence}</li>" for sentence in sentences[1:])
    titles = ["mIoU", "95% over trials", "trials", "95% over patients", "paper"]
    head = "".join(f'<th class="number">{title}</th>' for title in titles)
    body = []
    for row, cells in zip(rows.to_dict("records"), keys, strict=True):
        numbers = [
            runs_button(f"<big>{number(row['mIoU'])}</big>", cells),
            _ends(row, "trials"),
            str(row["n"]),
            _ends(row, "patients"),
            number(row["paper"]),
        ]
        body.append(
            "<tr><td>"
            f'<span class="dot" style="background:var(--{css_name(row["colour"])})"></span>'
            f"{row['arm']}<small>{escape(row['settings'])}</small></td>"
            + "".join(f'<td class="number">{text}</td>' for text in numbers)
            + f'<td class="strip">{_strip(row, top)}</td></tr>'
        )
    table = (
        f'<table class="arms"><thead><tr><th>Arm</th>{head}'
        f'<th class="strip">0 to {top:.2f}</th></tr></thead><tbody>{"".join(body)}</tbody></table>'
    )
    text = (
        "Weak, full and CheXseg are the arms with the highest mIoU on the selection images at "
        "p = 0, at p = 1 and between; the test set was not used for this choice. The value of the "
        "best arm on the test set is optimistic, because that arm is chosen by it. Last column: "
        "dot, mean over trials; thick line, 95% over patients; thin line, 95% over trials; open "
        "diamond, the paper on CheXpert’s test set, ten pathologies."
    )
    details = f"<ul>{listed}</ul>" if listed else ""
    return f'<p class="lead">{sentences[0]}</p>{details}{scroll(table)}{note(text)}'


def _ends(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return "–" if np.isnan(low) else f"{number(low)} to {number(high)}"


def _strip(row: dict[str, Any], top: float) -> str:
    """Return a row of a forest plot: mean, both intervals, the paper's value."""
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
    parts.append(
        f'<circle cx="{at(row["mIoU"])}" cy="11" r="5.5" fill="{colour}" stroke="var(--paper)"/>'
    )
    if not np.isnan(row["paper"]):
        turned = 'transform="translate(0 11) rotate(45)" fill="var(--paper)" stroke="var(--soft)"'
        diamond = f'<rect x="-3.6" y="-3.6" width="7.2" height="7.2" {turned}/>'
        parts.append(f'<svg x="{at(row["paper"])}" overflow="visible">{diamond}</svg>')
    return f'<svg role="img" aria-label="mIoU {row["mIoU"]:.3f}">{"".join(parts)}</svg>'
