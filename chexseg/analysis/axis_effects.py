"""Answer a study's own question: the effect of each of its axes, interactions, and a ranking."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.statistics.crossed import Trial
from chexseg.analysis.statistics.inference import (
    ONE_DRAW,
    SIGNIFICANT,
    Measured,
    difference,
    fault,
    holds_for_one_draw,
    holm,
    shared_trials,
)
from chexseg.analysis.study_scores import StudyScores

#: A larger study has no answer: bootstrapping all its arms would take minutes.
MOST_ARMS = 60
HIGHER, LOWER, UNDECIDED = "higher", "lower", "undecided"
FIRST, TIED, BELOW = "first", "tied with the first", "below the first"
#: The place of an arm of fewer trials than a test needs.
UNTESTED = "untested"


@dataclass(frozen=True)
class Answer:
    """The effects of a study's axes.

    effects: axis, value, against (the axis' first value), pairs, the value's mIoU, difference with
    its interval, trials, P, verdict, reason. interactions: of two axes, the same for the change of
    one axis' effect by the other. ranking: arms by mIoU on the test set; those that aren't resolved
    from the first are tied with it.
    """

    effects: pd.DataFrame
    interactions: pd.DataFrame
    ranking: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Return file name -> rows."""
        return {
            "effects": self.effects,
            "interactions": self.interactions,
            "ranking": self.ranking,
        }


def is_asked(scores: StudyScores) -> bool:
    """Return whether a study reproduces nothing, and has axes and 2 to `MOST_ARMS` arms."""
    axes = scores.results.axes
    has_axes = axes is not None and len(axes.columns) > 0
    return has_axes and not scores.results.reproduces and 2 <= len(scores.arms) <= MOST_ARMS


def answer(scores: StudyScores, measured: Mapping[Arm | str, Measured]) -> Answer:
    """Return the answer of a study that `is_asked`. measured: of all its arms.

    An effect is the mean over pairs of arms that agree in all other axes, where these matter to
    both. P-values are two-sided, over draws, trials and patients, after Holm's correction over all
    effects (or interactions, or ranks).
    """
    axes = scores.results.axes
    assert axes is not None  # for type checkers
    points = {arm: axes.iloc[arm.indices[0]].to_dict() for arm in scores.arms}
    return Answer(
        effects=_judged(list(_effects(points, measured))),
        interactions=_judged(list(_interactions(points, measured))),
        ranking=_ranking(scores, measured),
    )


def of_axis(answer: Answer, axis: str) -> Answer:
    """Return an answer with the effects and interactions of one axis alone, and all arms.

    P-values keep their adjustment over all axes.
    """
    effects, interactions = (
        rows[(rows[names] == axis).any(axis=1)].reset_index(drop=True) if len(rows) else rows
        for rows, names in (
            (answer.effects, ["axis"]),
            (answer.interactions, ["axis", "by"]),
        )
    )
    return Answer(effects, interactions, answer.ranking)


def _effects(
    points: Mapping[Arm, Mapping[str, Any]], measured: Mapping[Arm | str, Measured]
) -> Iterator[dict[str, Any]]:
    for axis, values in _values(points).items():
        for value in values[1:]:
            pairs = [
                (one, other)
                for one, other in itertools.product(points, points)
                if points[one][axis] == value
                and points[other][axis] == values[0]
                and _agree(points[one], points[other], {axis})
            ]
            if pairs:
                row = {"axis": axis, "value": value, "against": values[0]}
                yield row | _tested(pairs, measured)


def _interactions(
    points: Mapping[Arm, Mapping[str, Any]], measured: Mapping[Arm | str, Measured]
) -> Iterator[dict[str, Any]]:
    """Yield the change of each axis' effect by each other axis, from first values to others."""
    for (axis, of_axis), (other, of_other) in itertools.combinations(_values(points).items(), 2):
        for value, changed in itertools.product(of_axis[1:], of_other[1:]):
            corners: dict[tuple[Any, Any], list[Arm]] = {}
            for arm, point in points.items():
                corners.setdefault((point[axis], point[other]), []).append(arm)
            sets = [
                corners.get((a, b), [])
                for a, b in (
                    (value, changed),
                    (of_axis[0], of_other[0]),
                    (of_axis[0], changed),
                    (value, of_other[0]),
                )
            ]
            squares = [
                square
                for square in itertools.product(*sets)
                if all(_agree(points[square[0]], points[arm], {axis, other}) for arm in square)
            ]
            if squares:
                row = {"axis": axis, "value": value, "by": other, "from": of_other[0]}
                tested = _tested(squares, measured)
                del tested["mIoU"]  # the mean of two corners says nothing
                yield row | {"to": changed} | tested


def _tested(
    groups: Sequence[tuple[Arm, ...]], measured: Mapping[Arm | str, Measured]
) -> dict[str, Any]:
    """Return the mean of a contrast over groups of arms.

    A group of two is the first minus the second. One of four, (a, b, c, d), is a - c minus d - b:
    twice the difference of the means of a and b, and of c and d.
    """
    half = len(groups[0]) // 2
    firsts = [arm for group in groups for arm in group[:half]]
    seconds = [arm for group in groups for arm in group[half:]]
    step = difference(_mean(firsts, measured), _mean(seconds, measured))
    lacking = fault(step, min(arm.steps for arm in (*firsts, *seconds)))
    of_draw = any(
        holds_for_one_draw(step.n_draws, *(arm.stages for arm in group)) for group in groups
    )
    whole = step.together
    return {
        "difference": half * step.value,
        "difference low": np.nan if lacking else half * whole.low,
        "difference high": np.nan if lacking else half * whole.high,
        "P": np.nan if lacking else step.p,
        "mIoU": float(np.mean([measured[arm].mean(-1) for arm in firsts])),
        "pairs": len(groups),
        "draws": step.n_draws,
        "trials": step.n_trials,
        "reason": lacking or (ONE_DRAW if of_draw else None),
    }


def _judged(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of `_tested` with adjusted P-values and verdicts."""
    table = pd.DataFrame(rows)
    if not rows:
        return table
    table["P"] = holm(table["P"].tolist())
    signs = pd.Series(np.where(table["difference"] > 0, HIGHER, LOWER), table.index)
    decided = (table["P"] < SIGNIFICANT) & table["reason"].isna()
    place = table.columns.get_loc("difference")
    table.insert(int(place), "verdict", signs.where(decided, UNDECIDED))
    return table


def _ranking(scores: StudyScores, measured: Mapping[Arm | str, Measured]) -> pd.DataFrame:
    """Return one row per arm, the highest mIoU first."""
    ranked = sorted(
        scores.arms, key=lambda arm: np.nan_to_num(measured[arm].mean(-1), nan=-1), reverse=True
    )
    rows = []
    for arm in ranked:
        over_trials = arm.over_trials(scores.miou_C)
        tested = _tested([(arm, ranked[0])], measured)
        rows.append(
            {
                "arm": str(arm),
                "mIoU": over_trials.mean,
                "mIoU low": over_trials.low,
                "mIoU high": over_trials.high,
                "minus the first": tested["difference"],
                "P": np.nan if arm is ranked[0] else tested["P"],
                "draws": len({draw for draw, _ in arm.trials}),
                "trials": len(arm.trials),
                "reason": tested["reason"],
                "cells": scores.cell_keys(arm.indices),
            }
        )
    table = pd.DataFrame(rows)
    table["P"] = holm(table["P"].tolist())
    below = (table["P"] < SIGNIFICANT) & table["reason"].isna()
    place = pd.Series(np.where(below, BELOW, TIED), table.index).mask(table["P"].isna(), UNTESTED)
    place.iloc[0] = FIRST
    table.insert(0, "place", place)
    table.loc[0, "reason"] = None
    return table


def _values(points: Mapping[Arm, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return axis -> its values in the order of the arms, without None, where it doesn't matter."""
    axes = next(iter(points.values())).keys()
    return {
        axis: list(dict.fromkeys(p[axis] for p in points.values() if p[axis] is not None))
        for axis in axes
    }


def _agree(one: Mapping[str, Any], other: Mapping[str, Any], without: set[str]) -> bool:
    """Return whether two points agree in all axes that matter to both."""
    return all(
        value == other[axis] or value is None or other[axis] is None
        for axis, value in one.items()
        if axis not in without
    )


def _mean(arms: Sequence[Arm], measured: Mapping[Arm | str, Measured]) -> Measured:
    """Return the mean of arms in the trials that all have; an arm may occur several times."""
    all_measured = [measured[arm] for arm in arms]
    trials: list[Trial] = shared_trials(*all_measured)
    rows = [[one.trials.index(t) for t in trials] for one in all_measured if one.trials]
    values = [m.values_TK[row] for m, row in zip(all_measured, rows, strict=True)]
    sampled = [m.sampled_BTK[:, row] for m, row in zip(all_measured, rows, strict=True)]
    return Measured(
        tuple(trials),
        np.mean(values, axis=0),
        np.mean(sampled, axis=0),
        all_measured[0].patients_K,
    )
