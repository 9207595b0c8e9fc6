"""The paper's figures agree with each other, and what a study shows of its first claim is said as it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chexseg.pathologies import PATHOLOGIES
from chexseg.report import published
from chexseg.report.published import headline, headline_rows, table1, table1_average, table2, verdict


@pytest.mark.parametrize("method", ["cam", "irnet"])
@pytest.mark.parametrize("p", [*published.TABLE1_P, 1])
def test_printed_average_is_the_mean_of_the_printed_rows(method, p):
    mean = np.mean([table1(name, method, p) for name in PATHOLOGIES])
    # The paper's own rounding is off by 0.002 in one column (CAM, p = 0.6); a mistyped digit would show as 0.001 x 10.
    assert table1("Avg. IoU", method, p) == pytest.approx(mean, abs=0.0021 if (method, p) == ("cam", 0.6) else 6e-4)


def test_table1_looks_up_what_the_paper_prints():
    assert table1("Avg. IoU", "CAM", 0.9) == 0.299
    assert table1("Lung Lesion", "irnet", 0.4) == 0.0508
    assert table1("Edema", "cam", 1) == table1("Edema", "irnet", 1.0) == 0.248
    assert table1("Edema", "cam", 0.5) is None
    assert table1("Fracture", "cam", 0) is None
    assert table1("Edema", "gradcam", 0) is None


def test_average_of_some_pathologies_is_theirs():
    assert table1_average(["Edema", "Cardiomegaly"], "cam", 0) == pytest.approx((0.176 + 0.325) / 2)
    assert table1_average(PATHOLOGIES, "cam", 0.6) == 0.273
    assert table1_average(["Edema"], "cam", 0.5) is None


def test_captions_agree_with_table_2():
    for method in ("cam", "irnet"):
        for init in ("random", "imagenet", "moco", "chexpert"):
            assert published.HEADLINES[f"weak {method}, {init}"].value == table2(method, init, 20000)[0]
    assert table2("CAM", "moco", 2000) == (0.133, 0.00002)
    assert table2("cam", "moco", 5) is None


def test_headline_takes_roles_by_selection_and_says_what_is_resolved(study):
    found = headline(study, replicates=200)
    assert {role: (arm.weak, arm.p) for role, arm in found.roles.items() if role != "best"} == {
        "weak": ("cam", 0.0),
        "full": (None, 1.0),
        "chexseg": ("cam", 0.9),
    }
    sentences = verdict(found)
    assert "shows here" in sentences[0]
    assert sentences[2].endswith("not resolved.") is not found.chexseg_minus_full.resolved


def test_verdict_says_when_the_order_does_not_show(study):
    swapped = study.cells.copy()
    weak, full = swapped["method"] == "weak", swapped["method"] == "full"
    swapped.loc[full, ["method", "p", "weak"]] = ["weak", 0.0, "cam"]
    swapped.loc[weak, ["method", "p", "weak"]] = ["full", 1.0, None]
    swapped["trial"] = range(len(swapped))
    sentences = verdict(headline(dataclasses.replace(study, cells=swapped), replicates=50))
    assert "does not show here" in sentences[0]
    assert all(sentence.endswith("fewer than two trials are in both.") for sentence in sentences[1:])


def test_verdict_of_half_a_study_names_what_lacks(study):
    keep = (study.cells["method"] != "full").to_numpy()
    half = dataclasses.replace(study, cells=study.cells[keep], counts_CIK3=study.counts_CIK3[keep])
    assert verdict(headline(half, replicates=50)) == [
        "The paper’s order, weak < full < CheXseg, can't be judged yet: no finished cell for Full."
    ]


def test_radiologists_have_a_row_where_their_counts_are_known(study):
    with_them = dataclasses.replace(study, radiologists_IK3=study.counts_CIK3[0])
    rows = headline_rows(with_them, headline(with_them, replicates=50))
    assert rows["arm"].iloc[-1] == "Radiologists"
    assert rows["patients low"].iloc[-1] < rows["mIoU"].iloc[-1] < rows["patients high"].iloc[-1]
