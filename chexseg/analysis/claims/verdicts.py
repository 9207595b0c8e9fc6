"""Judge the paper's claims on a study's counts, as rows and sentences.

A claim is a list of comparisons, each with the sign that the paper claims. No arm is chosen on the
test set: "best" means best on the selection images, and among several sizes the largest is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims import claim_arms
from chexseg.analysis.claims.claim_arms import Pair
from chexseg.analysis.published import HEADLINES, PublishedClaim, published_claims
from chexseg.analysis.statistics.inference import (
    FEWEST_PATIENTS,
    Difference,
    Measured,
    difference,
    gap_closed,
    holm,
)
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import StudyScores

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NO_DATA = (
    "reproduced",
    "not reproduced",
    "undecided at this n",
    "no data",
)
SIGNIFICANT = 0.05
#: Maximum comparisons in a sentence; the table has all.
MOST_IN_SENTENCE = 4


@dataclass(frozen=True)
class Comparison:
    """One measured pair of a claim. adjusted: Holm's p-value over the claim's comparisons."""

    pair: Pair
    first: float
    second: float
    difference: Difference
    adjusted: float

    @property
    def verdict(self) -> str:
        """Return the verdict by the sign and significance of the difference."""
        if not self.adjusted < SIGNIFICANT:
            return UNDECIDED
        return REPRODUCED if self.difference.value * self.pair.sign > 0 else NOT_REPRODUCED

    @property
    def reason(self) -> str | None:
        """Return why there is no test, or None if there is one."""
        if not np.isnan(self.difference.p):
            return None
        if np.isnan(self.difference.value):
            return "no expert mask in the test set"
        if self.difference.trials.n < 2:
            return "fewer than two trials have finished in both"
        return f"fewer than {FEWEST_PATIENTS} patients have an expert mask"


@dataclass(frozen=True)
class Claim:
    """A claim with a study's verdict."""

    name: str
    paper: PublishedClaim
    verdict: str
    because: str
    comparisons: tuple[Comparison, ...] = ()
    lacking: tuple[str, ...] = ()  # arms and masks without which there is no verdict
    share: Interval | None = None  # of the gap to the radiologists, for the claim on it


def choose(scores: StudyScores) -> dict[str, claim_arms.Choice]:
    """Return claim -> the pairs of arms that it compares, and the arms that are lacking."""
    return {name: pairs(scores) for name, pairs in PAIRS.items()}


def judge(
    choices: Mapping[str, claim_arms.Choice], measured: Mapping[Arm | str, Measured]
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
    paper = published_claims()[name]
    if lacking:
        return Claim(
            name, paper, NO_DATA, f"It needs {', '.join(lacking)}.", lacking=tuple(lacking)
        )
    steps = [difference(measured[pair.first], measured[pair.second], pair.k) for pair in pairs]
    adjusted = holm([step.p for step in steps]).tolist()
    comparisons = tuple(
        Comparison(
            pair,
            measured[pair.first].mean(pair.k),
            measured[pair.second].mean(pair.k),
            step,
            p,
        )
        for pair, step, p in zip(pairs, steps, adjusted, strict=True)
    )
    if name == "gap":
        return _judge_gap(measured, paper, comparisons)
    against = [c for c in comparisons if c.verdict == NOT_REPRODUCED]
    unresolved = [c for c in comparisons if c.verdict == UNDECIDED]
    if against:
        return Claim(name, paper, NOT_REPRODUCED, f"Against it: {_summary(against)}.", comparisons)
    if unresolved:
        agree = sum(c.difference.value * c.pair.sign > 0 for c in comparisons)
        resolved = len(comparisons) - len(unresolved)
        because = (
            f"{agree} of {len(comparisons)} with the paper’s sign, {resolved} resolved."
            f" Open: {_summary(unresolved)}."
        )
        return Claim(name, paper, UNDECIDED, because, comparisons)
    return Claim(name, paper, REPRODUCED, f"All as claimed: {_summary(comparisons)}.", comparisons)


def _judge_gap(
    measured: Mapping[Arm | str, Measured],
    paper: PublishedClaim,
    comparisons: tuple[Comparison, ...],
) -> Claim:
    """Judge the share of the gap by its interval.

    Reproduced: it is above 0 and not below both published shares.
    """
    closing, gap = comparisons
    share = gap_closed(
        measured[closing.pair.first], measured[closing.pair.second], measured[gap.pair.first]
    )
    claim = partial(Claim, "gap", paper, comparisons=comparisons, share=share)
    published = sorted(
        HEADLINES[key]
        for key in ("gap to radiologists closed", "poster gap to radiologists closed")
    )
    if gap.verdict == NOT_REPRODUCED:
        return claim(NOT_REPRODUCED, f"There is no gap to close: {_summary([gap])}.")
    if np.isnan(share.low):
        return claim(UNDECIDED, f"No bounds of the share at this n: {_summary(comparisons)}.")
    because = (
        f"{100 * share.mean:.1f}% of the gap is closed"
        f" (95%: {100 * share.low:.1f} to {100 * share.high:.1f}%)."
    ).replace("-", "\u2212")
    if 100 * share.high < published[0]:
        return claim(NOT_REPRODUCED, f"{because} That is below both published shares.")
    if share.low <= 0:
        return claim(UNDECIDED, because)
    within = [f"{value:g}%" for value in published if share.low <= value / 100 <= share.high]
    verb = "are" if len(within) > 1 else "is"
    because += f" Of the published shares {' and '.join(within) or 'none'} {verb} in this interval."
    return claim(REPRODUCED, because)


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _summary(comparisons: Sequence[Comparison]) -> str:
    """Return the first differences with their p-values, and the number of the others."""
    texts = [
        f"{c.pair.text} {c.difference.value:+.3f}".replace("-", "\u2212")
        + f" ({c.reason or p_text(c.adjusted)})"
        for c in comparisons[:MOST_IN_SENTENCE]
    ]
    if len(comparisons) > MOST_IN_SENTENCE:
        texts.append(f"{len(comparisons) - MOST_IN_SENTENCE} more")
    return "; ".join(texts)


#: Claim -> function that chooses the arms to compare.
PAIRS: dict[str, Callable[[StudyScores], claim_arms.Choice]] = {
    "order": claim_arms.order,
    "inverted-u": claim_arms.inverted_u,
    "student": claim_arms.students,
    "student-below": claim_arms.best_student,
    "init": claim_arms.inits,
    "irnet": claim_arms.irnet_and_cam,
    "gap": claim_arms.gap,
    "above-radiologists": claim_arms.above_radiologists,
    "below-radiologists": claim_arms.below_radiologists,
}

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
        row: dict[str, Any] = {
            "claim": claim.name,
            "verdict": claim.verdict,
            "text": claim.paper.text,
            "paper": claim.paper.figures,
            "place": claim.paper.place,
        }
        if claim.share is not None:
            row |= {
                "closed": claim.share.mean,
                "closed low": claim.share.low,
                "closed high": claim.share.high,
            }
        if not claim.comparisons:
            rows.append(row | {"reason": claim.because})
        for c in claim.comparisons:
            rows.append(
                {
                    **row,
                    "comparison": c.pair.text,
                    "claimed": ">" if c.pair.sign > 0 else "<",
                    "first": c.first,
                    "second": c.second,
                    "difference": c.difference.value,
                    "difference low": c.difference.together.low,
                    "difference high": c.difference.together.high,
                    "relative": c.difference.value / c.second if c.second else np.nan,
                    "trials": c.difference.trials.n,
                    "patients": c.difference.patients.n,
                    "p-value": c.difference.p,
                    "adjusted p-value": c.adjusted,
                    "reason": c.reason,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {"trials": "Int64", "patients": "Int64"}
    )
