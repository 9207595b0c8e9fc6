"""Analyse a study: everything that its report shows, computed once and in one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from chexseg.analysis import axis_effects, classifiers, weak_label_agreement
from chexseg.analysis.arms import Variant
from chexseg.analysis.axis_effects import Answer
from chexseg.analysis.claims import contributions, headline, verdicts
from chexseg.analysis.claims.verdicts import Claim
from chexseg.analysis.points import (
    figure2,
    figure3,
    figure4,
    figure5,
    label_efficiency,
    ranking,
    stage_graph,
    training,
)
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_scores import RADIOLOGISTS, StudyScores, score
from chexseg.analysis.tables import measures_table, paper_tables, records
from chexseg.analysis.tables.value_table import ValueTable, stacked
from chexseg.analysis.weak_label_agreement import Agreement
from chexseg.progress import Reporter

T = TypeVar("T")

#: Maximum variants for which a Table 1 is computed: nobody reads hundreds.
MOST_VARIANTS = 20


@dataclass(frozen=True)
class StudyAnalysis:
    """A study's statistics, claims, tables and points of figures, ready to be rendered.

    answer: to the question of a study that reproduces nothing of the paper. claims: of the paper
    that the study reproduces. headline: the arms in the paper's roles, radiologists and baselines.
    contributions: of pathologies to the claims' differences. chance: which arms are better than
    chance, as text. table1: variant -> table, empty if no variant has several p. baselines: rows
    with the keys of `arms`. Other tables are None where the study has nothing for them. figure2 to
    figure5, label_efficiency, ranking, curves and roc: points, as in `analysis.points`. agreements:
    one per set of weak labels with counts; lacking_labels: (kind, reason) of those without.
    """

    scores: StudyScores
    answer: Answer | None
    claims: tuple[Claim, ...]
    headline: pd.DataFrame
    contributions: ValueTable | None
    chance: str
    table1: tuple[tuple[Variant, ValueTable], ...]
    table2: ValueTable | None
    arms: ValueTable
    baselines: ValueTable | None
    students: ValueTable | None
    radiologists: ValueTable | None
    agreements: tuple[Agreement, ...]
    lacking_labels: tuple[tuple[str, str], ...]
    auroc: ValueTable | None
    measures: ValueTable | None
    classifiers: pd.DataFrame
    cells: pd.DataFrame
    missing: pd.DataFrame
    stages: pd.DataFrame
    runs: pd.DataFrame
    figure2: pd.DataFrame
    figure3: pd.DataFrame
    figure4: pd.DataFrame
    figure5: pd.DataFrame
    label_efficiency: pd.DataFrame
    ranking: pd.DataFrame
    curves: pd.DataFrame
    roc: pd.DataFrame
    stage_graph: pd.DataFrame | None

    @property
    def results(self) -> StudyResults:
        """Return the results that were analysed."""
        return self.scores.results

    @property
    def paper_tables(self) -> dict[str, ValueTable]:
        """Return file name -> table of the paper's two: Table 1 of each variant, and Table 2."""
        tables = _numbered("table1", [table for _, table in self.table1])
        return tables if self.table2 is None else tables | {"table2": self.table2}

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Return file name -> rows of all tables that aren't empty, in the order of the page."""
        single = {
            "contributions": self.contributions,
            "pathologies": stacked(self.arms, self.baselines),
            "students": self.students,
            "radiologists": self.radiologists,
            "auroc": self.auroc,
            "measures": self.measures,
        }
        tables = {
            "claims": verdicts.claims_rows(self.claims if self.scores.arms else ()),
            **({} if self.answer is None else self.answer.tables),
            "cells": self.cells,
            **{n: t.values for n, t in (self.paper_tables | single).items() if t is not None},
            **_numbered("weak-labels", [agreement.rows for agreement in self.agreements]),
            "classifiers": self.classifiers,
            "training": self.curves,
            "stages": self.stages,
            "deviations": pd.DataFrame(self.results.deviations or ()),
            "missing": self.missing,
            "runs": self.runs,
        }
        return {name: rows for name, rows in tables.items() if len(rows)}


def _numbered(name: str, tables: list[T]) -> dict[str, T]:
    return {f"{name}-{n}" if n > 1 else name: table for n, table in enumerate(tables, start=1)}


def analyse(results: StudyResults, measuring: Reporter | None = None) -> StudyAnalysis:
    """Return the analysis of a study's results; nothing is computed later.

    measuring: measure the stored masks, which takes minutes, and show the progress there.
    """
    scores = score(results)

    # Arms are chosen without the test set; only those that are compared are bootstrapped.
    roles = headline.choose(scores)
    choices = verdicts.choose(scores, results.reproduces)
    compared = [arm for pairs, _ in choices.values() for p in pairs for arm in (p.first, p.second)]
    readers = [] if results.radiologists_IK3 is None else [RADIOLOGISTS]
    is_asked = axis_effects.is_asked(scores)
    all_arms = scores.arms if is_asked else ()
    measured = scores.measure([*roles.values(), *compared, *all_arms, *readers, *results.baselines])

    claims = verdicts.judge(choices, measured)
    of_experts = label_efficiency.points(scores, measured) if is_asked else None
    answer = axis_effects.answer(scores, measured) if is_asked else None
    points5 = figure5.points(scores, roles, measured)

    split = contributions.contributions(scores, choices, measured)
    variants = scores.variants[:MOST_VARIANTS] if scores.has_mixtures else ()
    students = paper_tables.students_table(scores)
    arms = paper_tables.arms_table(scores)
    is_drawn = 0 < len(results.graph) <= stage_graph.MOST_DRAWN
    return StudyAnalysis(
        scores=scores,
        answer=answer,
        claims=claims,
        headline=headline.rows(scores, roles, measured),
        contributions=split if len(split) else None,
        chance=headline.above_chance(headline.role_names(scores), roles, measured),
        table1=tuple((variant, paper_tables.table1(scores, variant)) for variant in variants),
        table2=paper_tables.table2(scores) if paper_tables.has_table2(scores) else None,
        arms=arms,
        baselines=paper_tables.baselines_table(scores, arms),
        students=students if len(students) else None,
        radiologists=paper_tables.radiologists_table(points5) if len(points5) else None,
        agreements=weak_label_agreement.agreements(results),
        lacking_labels=weak_label_agreement.lacking(results),
        auroc=classifiers.auroc_table(results.classifiers) if results.classifiers else None,
        measures=measures_table.measures(scores, roles, measuring) if measuring else None,
        classifiers=classifiers.classifiers_rows(results.classifiers),
        cells=records.cells(scores),
        missing=records.missing(scores),
        stages=records.stages(results),
        runs=records.runs(results),
        figure2=figure2.points(scores, variants[0]) if variants else figure2.NO_POINTS,
        figure3=figure3.points(scores),
        figure4=figure4.points(scores),
        figure5=points5,
        label_efficiency=label_efficiency.NO_POINTS if of_experts is None else of_experts,
        ranking=ranking.points(scores, answer) if answer else ranking.NO_POINTS,
        curves=training.curves(results),
        roc=training.roc(results),
        stage_graph=stage_graph.rows(results) if is_drawn else None,
    )
