"""Test the arms in the paper's roles, and their intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chexseg.analysis.claims import headline
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score


def test_roles_are_chosen_by_selection(study):
    roles = headline.choose(score(study))
    assert {role: (arm.weak, arm.p) for role, arm in roles.items() if role != "best"} == {
        "weak": ("cam", 0.0),
        "full": (None, 1.0),
        "chexseg": ("cam", 0.9),
    }


def test_rows_have_both_intervals_and_the_published_value(study):
    rows = analyse(study).headline.set_index("arm")
    weak = rows.loc["Weak"]
    chosen = (study.cells["method"] == "weak") & (study.cells["weak"] == "cam")
    assert weak["mIoU"] == pytest.approx(score(study).miou_C[chosen.to_numpy()].mean())
    assert weak["patients low"] < weak["mIoU"] < weak["patients high"]
    assert np.isnan(weak["trials low"]), "of two trials, the interval would hold IoUs below 0"
    full = rows.loc["Full"]
    assert full["trials low"] < full["mIoU"] < full["trials high"]
    assert weak["n"] == 2 and len(weak["cells"].split()) == 2
    assert rows["paper"].dropna().tolist() == [0.156, 0.263, 0.299]


def test_an_arm_with_two_roles_has_one_row(study):
    rows = analyse(study).headline
    assert rows["arm"].tolist() == ["Weak", "Full", "CheXseg"]
    assert rows["settings"].iloc[-1].endswith("; best on the test set")


def test_radiologists_have_a_row_where_their_counts_are_known(study):
    rows = analyse(dataclasses.replace(study, radiologists_IK3=study.counts_CIK3[0])).headline
    assert rows["arm"].iloc[-1] == "Radiologists"
    assert rows["patients low"].iloc[-1] < rows["mIoU"].iloc[-1] < rows["patients high"].iloc[-1]
