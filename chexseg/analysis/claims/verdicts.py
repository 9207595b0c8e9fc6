"""Judge the paper's claims on a study's counts, as rows and sentences.

A claim is a list of comparisons, each with the sign that the paper claims. No arm is chosen on the
test set: "best" means best on the selection images, and among several sizes the largest is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.claims.claim_arms import PAIRS, Choice, Pair
from chexseg.analysis.published import HEADLINES, PublishedClaim, published_claims
from chexseg.analysis.statistics.crossed import Trial
from chexseg.analysis.statistics.inference import (
    ONE_DRAW,
    SIGNIFICANT,
    Measured,
    difference,
    fault,
    gap_closed,
    holds_for_one_draw,
    holm,
)
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import StudyScores

REPRODUCED, CONTRADICTED = "reproduced", "contradicted"
UNDECIDED, NO_DATA = "undecided", "no data"
#: The share of the gap that "most of the gap" means.
MOST = 0.5
#: Prefixes of the published shares of the gap in `HEADLINES`: the paper's and the poster's.
SOURCES = ("", "poster ")
#: Maximum comparisons in a sentence; the table has all.
MOST_IN_SENTENCE = 4


@dataclass(frozen=True)
class Claim:
    """A claim with a study's verdict.

    comparisons: one row per pair, with its columns of `claims_rows`, and its verdict. lacking: arms
    and masks without which there is no verdict. share: of the gap to the radiologists, for the
    claim on it.
    """

    name: str
    paper: PublishedClaim
    verdict: str
    because: str
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    lacking: tuple[str, ...] = ()
    share: Interval | None = None


def choose(scores: StudyScores, reproduces: Iterable[str]) -> dict[str, Choice]:
    """Return claim -> the pairs of arms that it compares, and the arms that are lacking.

    reproduces: tables and figures of the paper; the claims that they support are chosen.
    """
    shown = set(reproduces)
    claims = published_claims().items()
    return {name: PAIRS[name](scores) for name, claim in claims if shown & set(claim.support)}


def judge(
    choices: Mapping[str, Choice], measured: Mapping[Arm | str, Measured]
) -> tuple[Claim, ...]:
    """Return the chosen claims of the paper with their verdicts.

    Differences are tested over draws, trials and patients together (`crossed.crossed`), one-sided,
    because a claim has a sign.

    - reproduced: each comparison has the paper's sign at P < 0.05. All of them must hold, so none
      needs a correction (an intersection-union test, Berger 1982).
    - contradicted: one has the opposite sign at P < 0.05, after Holm's correction over the
      comparisons of the claim: one is enough.
    - no data: cells are missing.
    - undecided: otherwise. Also if arms of one draw differ in the stages before the fit: the result
      would speak of this classifier, encoder and split only.

    choices: from `choose`. measured: the IoU of all their arms.
    """
    return tuple(_judge(name, *choice, measured) for name, choice in choices.items())


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
    against, unresolved = (rows[rows["verdict"] == v] for v in (CONTRADICTED, UNDECIDED))
    if len(against):
        return claim(CONTRADICTED, f"Against it: {_summary(against)}.", rows)
    if len(unresolved):
        agree = (rows["difference"] * rows["sign"] > 0).sum()
        because = f"{agree} of {len(rows)} with the paper’s sign. Open: {_summary(unresolved)}."
        return claim(UNDECIDED, because, rows)
    return claim(REPRODUCED, f"All as claimed: {_summary(rows)}.", rows)


def _compare(pairs: Sequence[Pair], measured: Mapping[Arm | str, Measured]) -> pd.DataFrame:
    """Return `Claim.comparisons`; Holm's correction is over these pairs."""
    rows = []
    for pair in pairs:
        first, second = measured[pair.first], measured[pair.second]
        step = difference(first, second, pair.k)
        lacking = fault(step, _steps(pair))
        of_draw = holds_for_one_draw(step.n_draws, _stages(pair.first), _stages(pair.second))
        whole, reference = step.together, second.mean(pair.k)
        row = {
            "comparison": pair.text,
            "claimed": ">" if pair.sign > 0 else "<",
            "sign": pair.sign,
            "first": first.mean(pair.k),
            "second": reference,
            "difference": step.value,
            "difference low": np.nan if lacking else whole.low,
            "difference high": np.nan if lacking else whole.high,
            "published": pair.published,
            "relative": step.value / reference if reference else np.nan,
            "draws": step.n_draws,
            "trials": step.n_trials,
            "patients": step.patients.n,
            "P": np.nan if lacking else step.one_sided(pair.sign),
            "P against": np.nan if lacking else step.one_sided(-pair.sign),
            "reason": lacking or (ONE_DRAW if of_draw else None),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["P against"] = holm(table["P against"].tolist())
    verdict = pd.Series(UNDECIDED, table.index, dtype=object)
    decidable = table["reason"].isna()
    verdict[decidable & (table["P"] < SIGNIFICANT)] = REPRODUCED
    verdict[decidable & (table["P against"] < SIGNIFICANT)] = CONTRADICTED
    return table.assign(verdict=verdict)


def _steps(pair: Pair) -> float:
    """Return the fewest optimiser steps of a pair's cells."""
    return min(arm.steps for arm in (pair.first, pair.second) if isinstance(arm, Arm))


def _stages(arm: Arm | str) -> Mapping[Trial, str]:
    """Return an arm's stages by trial; the radiologists have none."""
    return arm.stages if isinstance(arm, Arm) else {}


def _judge_gap(rows: pd.DataFrame, share: Interval) -> tuple[str, str]:
    """Return the verdict on the share of the gap, and why. The second row is the gap.

    Reproduced: the interval's lower end is above one half. Contradicted: its upper end is below.
    """
    if rows["verdict"].iloc[1] == CONTRADICTED:
        return CONTRADICTED, f"There is no gap to close: {_summary(rows[1:])}."
    if np.isnan(share.low) or rows["P"].isna().any():
        return UNDECIDED, f"No bounds of the share: {_summary(rows)}."
    because = (
        f"{100 * share.mean:.1f}% of the gap is closed"
        f" (95%: {100 * share.low:.1f} to {100 * share.high:.1f}%)."
    ).replace("-", "\u2212")
    published = sorted(HEADLINES[f"{source}gap to radiologists closed"] for source in SOURCES)
    within = [f"{value:g}%" for value in published if share.low <= value / 100 <= share.high]
    verb = "are" if len(within) > 1 else "is"
    because += f" Of the published shares {' and '.join(within) or 'none'} {verb} in this interval."
    if ONE_DRAW in set(rows["reason"]):
        return UNDECIDED, f"{because} This holds {ONE_DRAW}."
    if share.low > MOST:
        return REPRODUCED, because
    return CONTRADICTED if share.high < MOST else UNDECIDED, because


def p_text(p: float) -> str:
    """Return a P-value as text."""
    return "P < 0.001" if p < 0.001 else f"P = {p:.3f}" if p < 0.1 else f"P = {p:.2f}"


def _summary(rows: pd.DataFrame) -> str:
    """Return the first differences with their P-values, and the number of the others."""
    texts = [_sentence(row) for row in rows[:MOST_IN_SENTENCE].to_dict("records")]
    if len(rows) > MOST_IN_SENTENCE:
        texts.append(f"{len(rows) - MOST_IN_SENTENCE} more")
    return "; ".join(texts)


def _sentence(row: Mapping[str, Any]) -> str:
    """Return a difference with its P-value, and whether the published one is in its interval."""
    against = row["verdict"] == CONTRADICTED
    notes = [row["reason"]] if isinstance(row["reason"], str) else []
    if not np.isnan(row["P"]):
        notes.insert(0, p_text(row["P against" if against else "P"]))
    if not np.isnan(row["published"]) and not np.isnan(row["difference low"]):
        inside = row["difference low"] <= row["published"] <= row["difference high"]
        where = "in the interval" if inside else "not in the interval"
        notes.append(f"published {row['published']:+.3f}, {where}")
    text = f"{row['comparison']} {row['difference']:+.3f} ({'; '.join(notes)})"
    return text.replace("-0.", "\u22120.")


#: Columns of `claims_rows`.
COLUMNS = (
    "claim", "verdict", "text", "comparison", "claimed", "first", "second",
    "difference", "difference low", "difference high", "published", "relative", "draws", "trials",
    "patients", "P", "P against", "closed", "closed low", "closed high", "reason", "paper", "place",
)  # fmt: skip


def claims_rows(judged: Sequence[Claim]) -> pd.DataFrame:
    """Return one row per comparison, or a single row for a claim without any, with `COLUMNS`.

    ``first`` and ``second`` are means over all trials. ``difference`` is the first minus the second
    in the trials of both, with its 95% interval over draws, trials and patients together;
    ``published`` is the paper's, ``relative`` its ratio to the second. ``claimed`` is the paper's
    sign. ``P`` is one-sided, for this sign; ``P against`` for the opposite one, after Holm's
    correction over the claim. ``closed`` is the share of the gap to the radiologists, with its
    interval. ``reason`` says why a value is empty, or a comparison undecided.
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
        {"draws": "Int64", "trials": "Int64", "patients": "Int64"}
    )
