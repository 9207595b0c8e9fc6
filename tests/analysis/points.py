"""Compute the points of a study's figures from its results, for tests."""

from __future__ import annotations

import pandas as pd

from chexseg.analysis.claims import headline
from chexseg.analysis.points import figure2, figure3, figure4, figure5
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_scores import RADIOLOGISTS, score


def figure2_points(study: StudyResults) -> pd.DataFrame:
    scores = score(study)
    return figure2.points(scores, scores.variants[0])


def figure3_points(study: StudyResults) -> pd.DataFrame:
    return figure3.points(score(study))


def figure4_points(study: StudyResults) -> pd.DataFrame:
    return figure4.points(score(study))


def figure5_points(study: StudyResults) -> pd.DataFrame:
    scores = score(study)
    roles = headline.choose(scores)
    readers = [] if study.radiologists_IK3 is None else [RADIOLOGISTS]
    return figure5.points(scores, roles, scores.measure([*roles.values(), *readers]))
