"""Test the headline: a plain statement of what the study shows of the paper's first claim."""

from __future__ import annotations

import dataclasses

from chexseg.analysis.claims.headline import Headline, verdict
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_analysis import analyse


def headline(study: StudyResults) -> Headline:
    return analyse(study).headline


def test_headline_takes_roles_by_selection_and_says_what_is_resolved(study):
    summary = headline(study)
    assert {role: (arm.weak, arm.p) for role, arm in summary.roles.items() if role != "best"} == {
        "weak": ("cam", 0.0),
        "full": (None, 1.0),
        "chexseg": ("cam", 0.9),
    }
    sentences = verdict(summary)
    assert "shows here" in sentences[0]
    # Two trials: t(0.975, 1) is 12.7, and the two steps share Holm's correction.
    assert all(
        "not resolved, p = " in sentence and sentence.endswith("by Holm.")
        for sentence in sentences[1:3]
    )
    assert sentences[3] == "Neither step is resolved at this number of trials and patients."


def test_steps_are_resolved_where_trials_and_patients_agree(build):
    summary = headline(
        build(pathologies=("Edema", "Consolidation"), trials=6, images=60, students=False, drop=())
    )
    assert summary.resolved("Full minus weak")
    assert summary.adjusted["Full minus weak"] >= summary.steps["Full minus weak"].p
    assert "resolved, p < 0.001 by Holm." in verdict(summary)[1]


def test_verdict_says_when_the_order_does_not_show(study):
    swapped = study.cells.copy()
    weak, full = swapped["method"] == "weak", swapped["method"] == "full"
    swapped.loc[full, ["method", "p", "weak"]] = ["weak", 0.0, "cam"]
    swapped.loc[weak, ["method", "p", "weak"]] = ["full", 1.0, None]
    swapped["weak_images"] = 100
    swapped["trial"] = range(len(swapped))
    sentences = verdict(headline(dataclasses.replace(study, cells=swapped)))
    assert "does not show here" in sentences[0]
    assert all(
        sentence.endswith("fewer than two trials are in both.") for sentence in sentences[1:]
    )


def test_verdict_of_half_a_study_names_what_lacks(study):
    keep = (study.cells["method"] != "full").to_numpy()
    half = dataclasses.replace(study, cells=study.cells[keep], counts_CIK3=study.counts_CIK3[keep])
    assert verdict(headline(half)) == [
        "The paper’s order, weak < full < CheXseg, can't be judged yet: no finished cell for Full."
    ]


def test_radiologists_have_a_row_where_their_counts_are_known(study):
    with_them = dataclasses.replace(study, radiologists_IK3=study.counts_CIK3[0])
    rows = analyse(with_them).headline_rows
    assert rows["arm"].iloc[-1] == "Radiologists"
    assert rows["patients low"].iloc[-1] < rows["mIoU"].iloc[-1] < rows["patients high"].iloc[-1]
