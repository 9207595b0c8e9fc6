"""The paper's claims, each with a verdict computed from a study's counts. Rows and sentences; no drawing.

A claim is made of comparisons, each with the sign that the paper gives it. No arm is chosen on the test set: where a claim
speaks of the best, that is the best on the selection images; of several sizes the largest is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from chexseg.analysis.claims import claim_arms
from chexseg.analysis.claims.claim_arms import Pair
from chexseg.analysis.claims.headline import p_text
from chexseg.analysis.published import ABOVE_RADIOLOGISTS, HEADLINES
from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.inference import (
    FEWEST_PATIENTS,
    Difference,
    difference,
    gap_closed,
    holm,
)
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.statistics.study_arms import StudyArms, study_arms

REPRODUCED, NOT_REPRODUCED, UNDECIDED, NO_DATA = (
    "reproduced",
    "not reproduced",
    "undecided at this n",
    "no data",
)
SIGNIFICANT = 0.05
#: Comparisons that a sentence names; the table has all.
TOLD = 4


@dataclass(frozen=True)
class Paper:
    """A claim as the paper makes it. pairs: what it compares in a study, and what the study lacks for it."""

    text: str
    figures: str
    place: str
    pairs: Callable[[StudyArms], tuple[list[Pair], list[str]]]


@dataclass(frozen=True)
class Comparison:
    """One pair of a claim, measured. adjusted: its p-value by Holm over the claim's comparisons."""

    pair: Pair
    first: float
    second: float
    difference: Difference
    adjusted: float

    @cached_property
    def verdict(self) -> str:
        """Whether the difference is told from 0, and on which side."""
        if not self.adjusted < SIGNIFICANT:
            return UNDECIDED
        return REPRODUCED if self.difference.value * self.pair.sign > 0 else NOT_REPRODUCED

    @property
    def reason(self) -> str | None:
        """Why there is no test."""
        if not np.isnan(self.difference.p):
            return None
        if np.isnan(self.difference.value):
            return "no expert mask in the test set"
        if self.difference.trials.n < 2:
            return "fewer than two trials have finished in both"
        return f"fewer than {FEWEST_PATIENTS} patients have an expert mask"


@dataclass(frozen=True)
class Claim:
    """A claim and what a study says of it. share: of the gap to the radiologists, where that is what is claimed."""

    name: str
    paper: Paper
    verdict: str
    because: str
    comparisons: tuple[Comparison, ...] = ()
    lacking: tuple[str, ...] = ()  # what would have to be finished
    share: Interval | None = field(default=None)


@once
def claims(results: StudyResults) -> list[Claim]:
    """Every claim of `PAPER` with its verdict.

    Differences are tested over trials and patients together (`inference.crossed`), with Holm's correction over one claim's
    comparisons, as a claim stands only if all of them do; a claim's verdict doesn't depend on which others a study covers.
    Reproduced: all are resolved with the paper's sign. Not reproduced: one is resolved against it. Undecided: otherwise.
    No data: cells are lacking.
    """
    study = study_arms(results)
    return [_judge(study, name, paper) for name, paper in PAPER.items()]


def _judge(study: StudyArms, name: str, paper: Paper) -> Claim:
    pairs, lacking = paper.pairs(study)
    if lacking:
        return Claim(
            name, paper, NO_DATA, f"It needs {', '.join(lacking)}.", lacking=tuple(lacking)
        )
    found = [
        difference(study.measured(pair.first), study.measured(pair.second), pair.k)
        for pair in pairs
    ]
    comparisons = tuple(
        Comparison(pair, study.mean(pair.first, pair.k), study.mean(pair.second, pair.k), step, p)
        for pair, step, p in zip(
            pairs, found, holm([step.p for step in found]).tolist(), strict=True
        )
    )
    if name == "gap":
        return _judge_gap(study, paper, comparisons)
    against = [c for c in comparisons if c.verdict == NOT_REPRODUCED]
    unresolved = [c for c in comparisons if c.verdict == UNDECIDED]
    if against:
        return Claim(name, paper, NOT_REPRODUCED, f"Against it: {_said(against)}.", comparisons)
    if unresolved:
        agree = sum(c.difference.value * c.pair.sign > 0 for c in comparisons)
        resolved = len(comparisons) - len(unresolved)
        because = f"{agree} of {len(comparisons)} with the paper’s sign, {resolved} resolved. Open: {_said(unresolved)}."
        return Claim(name, paper, UNDECIDED, because, comparisons)
    return Claim(name, paper, REPRODUCED, f"All as claimed: {_said(comparisons)}.", comparisons)


def _judge_gap(study: StudyArms, paper: Paper, comparisons: tuple[Comparison, ...]) -> Claim:
    """By the interval of the share: reproduced if above 0 and not wholly below both published shares."""
    closing, gap = comparisons
    share = gap_closed(
        *(study.measured(arm) for arm in (closing.pair.first, closing.pair.second, gap.pair.first))
    )
    published = sorted(
        HEADLINES[key].value
        for key in ("gap to radiologists closed", "poster gap to radiologists closed")
    )
    if gap.verdict == NOT_REPRODUCED:
        return Claim(
            "gap",
            paper,
            NOT_REPRODUCED,
            f"There is no gap to close: {_said([gap])}.",
            comparisons,
            share=share,
        )
    if np.isnan(share.low):
        because = f"No bounds of the share at this n: {_said(comparisons)}."
        return Claim("gap", paper, UNDECIDED, because, comparisons, share=share)
    because = f"{100 * share.mean:.1f}% of the gap is closed (95%: {100 * share.low:.1f} to {100 * share.high:.1f}%)."
    because = because.replace("-", "\u2212")
    if 100 * share.high < published[0]:
        verdict, because = NOT_REPRODUCED, f"{because} That is below both published shares."
    elif share.low > 0:
        within = [f"{value:g}%" for value in published if share.low <= value / 100 <= share.high]
        verdict = REPRODUCED
        because += f" Of the published shares {' and '.join(within) or 'none'} {'lie' if len(within) > 1 else 'lies'} in that."
    else:
        verdict = UNDECIDED
    return Claim("gap", paper, verdict, because, comparisons, share=share)


def _said(comparisons: Sequence[Comparison]) -> str:
    """Differences with their p-values, so many as a sentence bears."""
    told = [
        f"{c.pair.text} {c.difference.value:+.3f}".replace("-", "\u2212")
        + f" ({c.reason or p_text(c.adjusted)})"
        for c in comparisons[:TOLD]
    ]
    return "; ".join(told) + (
        f"; {len(comparisons) - TOLD} more" if len(comparisons) > TOLD else ""
    )


#: The claims in the order of the paper's argument.
PAPER: dict[str, Paper] = {
    "order": Paper(
        "Mixing beats full supervision, which beats weak supervision: weak < full < CheXseg.",
        "0.156 < 0.263 < 0.299; poster: 0.156 < 0.246 < 0.27",
        "paper, sections 1 and 4.1; poster, Experiments",
        claim_arms.order,
    ),
    "inverted-u": Paper(
        "With CAM and with IRNet, mIoU over p is an inverted U: it rises from p = 0 and drops at p = 1.",
        "CAM 0.163, 0.299 at p = 0.9, 0.263; IRNet 0.151, 0.294 at p = 0.9, 0.263",
        "paper, section 4.1, Table 1, Figure 2",
        claim_arms.inverted_u,
    ),
    "student": Paper(
        "With enough images, a student surpasses its teacher, whatever the encoder’s start.",
        "3.42% higher on average, 1.69% with CheXpert’s encoder",
        "paper, sections 1 and 4.2, Figure 3",
        claim_arms.students,
    ),
    "student-below": Paper(
        "CheXseg surpasses distillation.",
        "the student’s mIoU is 6.65% worse",
        "paper, sections 1, 4.2 and 5",
        claim_arms.best_student,
    ),
    "init": Paper(
        "For every method, an encoder that starts from CheXpert’s classifier is best.",
        "weak, 20,000 images: CAM 0.142 against 0.136 to 0.139, IRNet 0.156 against 0.111 to 0.128",
        "paper, section 4.3, Figure 4, Table 2; poster, Experiments",
        claim_arms.inits,
    ),
    "irnet": Paper(
        "Weak labels by IRNet beat CAM’s with CheXpert’s encoder, and lose with the others.",
        "0.156 against 0.142; 0.111 against 0.136 (random), 0.128 against 0.139 (MoCo-CXR), 0.124 against 0.139 (ImageNet)",
        "paper, caption of Figure 4b, Table 2",
        claim_arms.irnet_and_cam,
    ),
    "gap": Paper(
        "CheXseg closes most of the gap that weak supervision leaves to radiologists.",
        "71.6%; poster: 57.2%",
        "paper, abstract, sections 1 and 4.4; poster, Comparison to Radiologists",
        claim_arms.gap,
    ),
    "above-radiologists": Paper(
        f"CheXseg scores above radiologists on {', '.join(ABOVE_RADIOLOGISTS[:-1])} and {ABOVE_RADIOLOGISTS[-1]}.",
        "165%, 79% and 26% higher",
        "paper, section 4.4, Figure 5; poster, Comparison to Radiologists",
        claim_arms.above_radiologists,
    ),
    "below-radiologists": Paper(
        "CheXseg scores below radiologists on the other seven pathologies.",
        "printed in Figure 5 alone",
        "paper, section 4.4, Figure 5",
        claim_arms.below_radiologists,
    ),
}


def claims_rows(found: Sequence[Claim]) -> pd.DataFrame:
    """One row a comparison, or one for a claim without.

    ``first`` and ``second`` are means over all trials; ``difference`` is the first minus the second, ``difference low`` and
    ``difference high`` its 95% interval over trials and patients together, ``claimed`` the paper's sign; ``relative`` is the
    difference over the second; ``p-value`` and ``adjusted p-value`` are two-sided, before and after Holm over the claim;
    ``closed`` is the share of the gap to the radiologists with the ends of its interval. ``reason`` is why something is empty.
    """
    rows = []
    for claim in found:
        about = {"claim": claim.name, "verdict": claim.verdict, "text": claim.paper.text}
        source = {"paper": claim.paper.figures, "place": claim.paper.place}
        if not claim.comparisons:
            rows.append(about | {"reason": claim.because} | source)
        for c in claim.comparisons:
            measured = {
                "comparison": c.pair.text,
                "claimed": ">" if c.pair.sign > 0 else "<",
                "first": c.first,
            }
            measured |= {"second": c.second, "difference": c.difference.value}
            measured |= {
                "difference low": c.difference.together.low,
                "difference high": c.difference.together.high,
            }
            measured |= {"relative": c.difference.value / c.second if c.second else np.nan}
            measured |= {"trials": c.difference.trials.n, "patients": c.difference.patients.n}
            measured |= {"p-value": c.difference.p, "adjusted p-value": c.adjusted}
            if claim.share is not None:
                measured |= {
                    "closed": claim.share.mean,
                    "closed low": claim.share.low,
                    "closed high": claim.share.high,
                }
            rows.append(about | measured | {"reason": c.reason} | source)
    columns = [
        *(
            "claim",
            "verdict",
            "text",
            "comparison",
            "claimed",
            "first",
            "second",
            "difference",
            "difference low",
        ),
        *(
            "difference high",
            "relative",
            "trials",
            "patients",
            "p-value",
            "adjusted p-value",
            "closed",
            "closed low",
            "closed high",
        ),
        *("reason", "paper", "place"),
    ]
    return pd.DataFrame(rows, columns=columns).astype({"trials": "Int64", "patients": "Int64"})
