"""Judge the paper's claims on a study's counts, as rows and sentences.

A claim is a list of comparisons, each with the sign that the paper claims. No arm is chosen on the
test set: "best" means best on the selection images, and among several sizes the largest is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import PAIRS, Choice, Pair
from chexseg.analysis.published import HEADLINES, PublishedClaim, published_claims
from chexseg.analysis.statistics.inference import (
    FEWEST_PATIENTS,
    Difference,
    Measured,
    difference,
    gap_closed,
    holm,
    verdicts,
)
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import StudyScores

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
UNDECIDED, NO_DATA = "undecided at this n", "no data"
#: Prefixes of the published shares of the gap in `HEADLINES`: the paper's and the poster's.
SOURCES = ("", "poster ")
#: Maximum comparisons in a sentence; the table has all.
MOST_IN_SENTENCE = 4


@dataclass(frozen=True)
class Claim:
    """A claim with a study's verdict.

    comparisons: one row per pair, with its columns of `claims_rows`, its verdict, and whether it
    agrees with the paper's sign. lacking: arms and masks without which there is no verdict. share:
    of the gap to the radiologists, for the claim on it.
    """

    name: str
    paper: PublishedClaim
    verdict: str
    because: str
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    lacking: tuple[str, ...] = ()
    share: Interval | None = None


def choose(scores: StudyScores) -> dict[str, Choice]:
    """Return claim -> the pairs of arms that it compares, and the arms that are lacking."""
    return {name: pairs(scores) for name, pairs in PAIRS.items()}


def judge(
    choices: Mapping[str, Choice], measured: Mapping[Arm | str, Measured]
) -> tuple[Claim, ...]:
    """Return the claims of the paper with their verdicts.

    Differences are tested over trials and patients together (`inference.crossed`). Holm's
    correction is over the comparisons of one claim, because a claim holds only if all of them do;
    the verdict doesn't depend on the other claims that a study covers.

    - reproduced: all comparisons are resolved with the paper's sign;
    - not reproduced: one is resolved against it;
    - no data: cells are missing;
    - undecided: otherwise.

    choices: from `choose`. measured: the IoU of all their arms.
    """
    return tuple(_judge(name, *choices[name], measured) for name in PAIRS)


def _judge(
    name: str,
    pairs: Sequence[Pair],
    lacking: Sequence[str],
    measured: Mapping[Arm | str, Measured],
) -> Claim:
    claim = partial(Claim, name, published_claims()[name])
    if lacking:
        return claim(NO_DATA, f"It needs {', '.join(lacking)}.", lacking=tuple(lacking))
    rows = _compare(pairs, measured)
    if name == "gap":
        method, weak, readers = pairs[0].first, pairs[0].second, pairs[1].first
        share = gap_closed(measured[method], measured[weak], measured[readers])
        return claim(*_judge_gap(rows, share), rows, share=share)
    against, unresolved = (rows[rows["verdict"] == v] for v in (NOT_REPRODUCED, UNDECIDED))
    if len(against):
        return claim(NOT_REPRODUCED, f"Against it: {_summary(against)}.", rows)
    if len(unresolved):
        because = (
            f"{rows['agrees'].sum()} of {len(rows)} with the paper’s sign,"
            f" {len(rows) - len(unresolved)} resolved. Open: {_summary(unresolved)}."
        )
        return claim(UNDECIDED, because, rows)
    return claim(REPRODUCED, f"All as claimed: {_summary(rows)}.", rows)


def _compare(pairs: Sequence[Pair], measured: Mapping[Arm | str, Measured]) -> pd.DataFrame:
    """Return `Claim.comparisons`; Holm's correction is over these pairs."""
    rows = []
    for pair in pairs:
        first, second = measured[pair.first], measured[pair.second]
        step, reference = difference(first, second, pair.k), second.mean(pair.k)
        rows.append(
            {
                "comparison": pair.text,
                "claimed": ">" if pair.sign > 0 else "<",
                "first": first.mean(pair.k),
                "second": reference,
                "difference": step.value,
                "difference low": step.together.low,
                "difference high": step.together.high,
                "relative": step.value / reference if reference else np.nan,
                "trials": step.trials.n,
                "patients": step.patients.n,
                "p-value": step.p,
                "reason": _reason(step),
            }
        )
    table = pd.DataFrame(rows)
    adjusted = pd.Series(holm(table["p-value"].tolist()))
    signed = table["difference"] * [pair.sign for pair in pairs]
    judged = verdicts(signed, adjusted, REPRODUCED, NOT_REPRODUCED, UNDECIDED).fillna(UNDECIDED)
    return table.assign(**{"adjusted p-value": adjusted}, agrees=signed > 0, verdict=judged)


def _reason(step: Difference) -> str | None:
    """Return why there is no test, or None if there is one."""
    if not np.isnan(step.p):
        return None
    if np.isnan(step.value):
        return "no expert mask in the test set"
    if step.trials.n < 2:
        return "fewer than two trials have finished in both"
    return f"fewer than {FEWEST_PATIENTS} patients have an expert mask"


def _judge_gap(rows: pd.DataFrame, share: Interval) -> tuple[str, str]:
    """Return the verdict on the share of the gap by its interval, and why.

    Reproduced: it is above 0 and not below both published shares. The second row is the gap.
    """
    published = sorted(HEADLINES[f"{source}gap to radiologists closed"] for source in SOURCES)
    if rows["verdict"].iloc[1] == NOT_REPRODUCED:
        return NOT_REPRODUCED, f"There is no gap to close: {_summary(rows[1:])}."
    if np.isnan(share.low):
        return UNDECIDED, f"No bounds of the share at this n: {_summary(rows)}."
    because = (
        f"{100 * share.mean:.1f}% of the gap is closed"
        f" (95%: {100 * share.low:.1f} to {100 * share.high:.1f}%)."
    ).replace("-", "\u2212")
    if 100 * share.high < published[0]:
        return NOT_REPRODUCED, f"{because} That is below both published shares."
    if share.low <= 0:
        return UNDECIDED, because
    within = [f"{value:g}%" for value in published if share.low <= value / 100 <= share.high]
    verb = "are" if len(within) > 1 else "is"
    because += f" Of the published shares {' and '.join(within) or 'none'} {verb} in this interval."
    return REPRODUCED, because


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _summary(rows: pd.DataFrame) -> str:
    """Return the first differences with their p-values, and the number of the others."""
    texts = [
        f"{row['comparison']} {row['difference']:+.3f}".replace("-", "\u2212")
        + f" ({p_text(row['adjusted p-value']) if pd.isna(row['reason']) else row['reason']})"
        for row in rows[:MOST_IN_SENTENCE].to_dict("records")
    ]
    if len(rows) > MOST_IN_SENTENCE:
        texts.append(f"{len(rows) - MOST_IN_SENTENCE} more")
    return "; ".join(texts)


#: Columns of `claims_rows`.
COLUMNS = (
    "claim", "verdict", "text", "comparison", "claimed", "first", "second",
    "difference", "difference low", "difference high", "relative", "trials", "patients",
    "p-value", "adjusted p-value", "closed", "closed low", "closed high",
    "reason", "paper", "place",
)  # fmt: skip


def claims_rows(judged: Sequence[Claim]) -> pd.DataFrame:
    """Return one row per comparison, or a single row for a claim without any, with `COLUMNS`.

    ``first`` and ``second`` are means over all trials. ``difference`` is the first minus the
    second, with its 95% interval over trials and patients together; ``relative`` is its ratio to
    the second. ``claimed`` is the paper's sign. ``p-value`` and ``adjusted p-value`` are two-sided,
    before and after Holm's correction over the claim. ``closed`` is the share of the gap to the
    radiologists, with its interval. ``reason`` says why a value is empty.
    """
    rows: list[dict[str, Any]] = []
    for claim in judged:
        shared: dict[str, Any] = {
            "claim": claim.name,
            "verdict": claim.verdict,
            "text": claim.paper.text,
            "paper": claim.paper.figures,
            "place": claim.paper.place,
        }
        if claim.share is not None:
            share = claim.share
            shared |= {"closed": share.mean, "closed low": share.low, "closed high": share.high}
        compared = claim.comparisons.to_dict("records") or [{"reason": claim.because}]
        rows += [row | shared for row in compared]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {"trials": "Int64", "patients": "Int64"}
    )
