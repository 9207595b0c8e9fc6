"""The page's first section: the paper's claims and what the study says of them, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from chexseg.analysis.claims.verdicts import (
    NO_DATA,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    claims,
    claims_rows,
)
from chexseg.analysis.results import StudyResults
from chexseg.report.page.html_tables import to_html

NOTE = (
    "No arm is chosen on the test set: where a claim speaks of the best, it is the best on the selection images; of several "
    "numbers of images the largest is taken. Differences are paired by trial and patient and tested over both together (the "
    "trials as readers and the patients as cases of a multi-reader study: Obuchowski and Rockette 1995, Hillis 2014), with "
    "Holm’s correction over the comparisons of one claim. Reproduced: all of them are resolved with the paper’s sign, "
    "p &lt; 0.05. Not reproduced: one is resolved against it. Undecided at this n: otherwise, which says nothing against the "
    "claim. The gap closed has Fieller’s interval; it counts as reproduced above 0 unless all of it lies below both published "
    "shares. The paper’s figures are CheXpert’s test set’s; on other images compare the sign."
)
#: Verdict -> (mark, the page's class for it).
MARKS = {REPRODUCED: ("▲", "better"), NOT_REPRODUCED: ("▼", "worse"), UNDECIDED: ("", "")}
#: Columns of the table of comparisons.
COLUMNS = [
    "claim",
    "comparison",
    "claimed",
    "first",
    "second",
    "difference",
    "difference low",
    "difference high",
    "relative",
]
COLUMNS += ["trials", "patients", "p-value", "adjusted p-value"]


def claims_html(results: StudyResults) -> str:
    """A sentence, the claims with their verdicts, their comparisons, and the claims that the study has nothing for."""
    found = claims(results)
    judged = [claim for claim in found if claim.verdict != NO_DATA]
    parts = [f'<p class="lead">{summary(found)}</p>']
    if judged:
        parts.append(
            f'<div class="scroll">{_table(judged)}</div><p class="note">{NOTE}</p>{_comparisons(judged)}'
        )
    lacking = "".join(
        f"<li>{escape(claim.paper.text)} {escape(claim.because)}</li>"
        for claim in found
        if claim.verdict == NO_DATA
    )
    if lacking:
        parts.append(
            f"<details><summary>Claims without data here</summary><ul>{lacking}</ul></details>"
        )
    return "".join(parts)


def summary(found: Sequence[Claim]) -> str:
    """How many claims got which verdict, in a sentence."""
    counts = {
        verdict: sum(claim.verdict == verdict for claim in found) for verdict in (*MARKS, NO_DATA)
    }
    words = {NO_DATA: "without data here"}
    told = [
        f"{number} {words.get(verdict, verdict)}" for verdict, number in counts.items() if number
    ]
    return f"Of {len(found)} claims of the paper: {', '.join(told)}."


def _table(judged: Sequence[Claim]) -> str:
    body = []
    for claim in judged:
        mark, kind = MARKS[claim.verdict]
        body.append(
            f'<tr class="first"><th scope="row">{escape(claim.paper.text)}</th>'
            f'<td class="verdict {kind}"><span class="mark">{mark}</span>{"&nbsp;" if mark else ""}{claim.verdict}</td>'
            f"<td>{escape(claim.because)}</td>"
            f"<td>{escape(claim.paper.figures)}<small>{escape(claim.paper.place)}</small></td></tr>"
        )
    head = '<th>Claim</th><th class="verdict">verdict</th><th>here</th><th>paper</th>'
    return f'<table class="table1 labels claims"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _comparisons(judged: Sequence[Claim]) -> str:
    rows = claims_rows(judged)[COLUMNS]
    rows["relative"] = [
        "-" if pd.isna(value) else f"{100 * value:+.1f}%".replace("-", "\u2212")
        for value in rows["relative"]
    ]
    table = to_html(rows)
    note = (
        "IoU pooled over the test images, of pathologies or their mean; first and second: means over all finished trials; ±: "
        "half of the 95% interval over trials and patients together, before Holm’s correction; relative: to the second."
    )
    summary_line = f"<summary>The {len(rows)} comparisons</summary>"
    return f'<details>{summary_line}<div class="scroll cells">{table}</div><p class="note">{note}</p></details>'
