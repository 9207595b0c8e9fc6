"""The page's first section: the paper's claims and the study's verdicts on them."""

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
from chexseg.report.page.markup import note, scroll

NOTE = (
    "No arm is chosen on the test set: the best arm is the best on the selection images, and of "
    "several numbers of images the largest is used. Differences are paired by trial and patient "
    "and tested over both together: trials are the readers and patients the cases of a "
    "multi-reader study (Obuchowski and Rockette 1995, Hillis 2014). Holm’s correction is over the "
    "comparisons of one claim. Reproduced: all comparisons are resolved with the paper’s sign, "
    "p &lt; 0.05. Not reproduced: one is resolved with the opposite sign. Undecided at this n: all "
    "other cases; this is no evidence against the claim. The gap closed has Fieller’s interval. It "
    "counts as reproduced if the interval is above 0 and not entirely below both published "
    "shares. The paper’s values are for CheXpert’s test set; on other images compare only the sign."
)
#: Verdict -> (mark, CSS class).
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
    "trials",
    "patients",
    "p-value",
    "adjusted p-value",
]


def claims_html(results: StudyResults) -> str:
    """Return a summary, the claims with their verdicts and comparisons, and those without data."""
    all_claims = claims(results)
    judged = [claim for claim in all_claims if claim.verdict != NO_DATA]
    parts = [f'<p class="lead">{summary(all_claims)}</p>']
    if judged:
        parts.append(scroll(_table(judged)) + note(NOTE) + _comparisons(judged))
    lacking = "".join(
        f"<li>{escape(claim.paper.text)} {escape(claim.because)}</li>"
        for claim in all_claims
        if claim.verdict == NO_DATA
    )
    if lacking:
        parts.append(
            f"<details><summary>Claims without data here</summary><ul>{lacking}</ul></details>"
        )
    return "".join(parts)


def summary(all_claims: Sequence[Claim]) -> str:
    """Return a sentence with the number of claims of each verdict."""
    counts = {
        verdict: sum(claim.verdict == verdict for claim in all_claims)
        for verdict in (*MARKS, NO_DATA)
    }
    parts = [
        f"{number} {'without data here' if verdict == NO_DATA else verdict}"
        for verdict, number in counts.items()
        if number
    ]
    return f"Of {len(all_claims)} claims of the paper: {', '.join(parts)}."


def _table(judged: Sequence[Claim]) -> str:
    body = []
    for claim in judged:
        mark, kind = MARKS[claim.verdict]
        body.append(
            f'<tr class="first"><th scope="row">{escape(claim.paper.text)}</th>'
            f'<td class="verdict {kind}"><span class="mark">{mark}</span>'
            f"{'&nbsp;' if mark else ''}{claim.verdict}</td>"
            f"<td>{escape(claim.because)}</td>"
            f"<td>{escape(claim.paper.figures)}<small>{escape(claim.paper.place)}</small></td></tr>"
        )
    head = '<th>Claim</th><th class="verdict">verdict</th><th>this study</th><th>paper</th>'
    return (
        f'<table class="table1 labels claims"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _comparisons(judged: Sequence[Claim]) -> str:
    rows = claims_rows(judged)[COLUMNS]
    rows["relative"] = [
        "-" if pd.isna(value) else f"{100 * value:+.1f}%".replace("-", "\u2212")
        for value in rows["relative"]
    ]
    text = (
        "IoU of pathologies or their mean, pooled over the test images. first, second: means over "
        "all finished trials. ±: half of the 95% interval over trials and patients together, "
        "before Holm’s correction. relative: difference relative to the second."
    )
    return (
        f"<details><summary>The {len(rows)} comparisons</summary>"
        f"{scroll(to_html(rows), 'cells')}{note(text)}</details>"
    )
