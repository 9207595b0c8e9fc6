"""Test the split of a difference in mIoU by pathology, by hand and beside the paper's Table 1."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.analysis.claims.contributions import MEAN, MEAN_OF_MANY
from chexseg.analysis.study_analysis import analyse
from chexseg.pathologies import PATHOLOGIES
from tests.analysis.test_claims import full, mixed, study, weak


def rows_of(made, comparison: str):
    values = analyse(made).contributions.values
    return values[values["comparison"] == comparison].set_index("pathology")


def test_contributions_add_up_and_the_rare_pathology_is_left_out_of_the_second_mean():
    made = study([weak(0.15), full(0.26), mixed(0.30)], ("Edema", "Lung Lesion", "Atelectasis"))
    # 9 of 40 patients have a lung lesion; only CheXseg finds any of it.
    made.counts_CIK3[:, 9:, 1] = 0
    made.counts_CIK3[(made.cells["method"] != "mixed").to_numpy(), :9, 1, 0] = 0
    rows = rows_of(made, "CheXseg minus full")
    iou_MK = np.stack(
        [
            (lambda c: c[:, :, 0].sum(0) / (c[..., 1] + c[..., 2] - c[..., 0]).sum(0))(c_IK3)
            for c_IK3 in made.counts_CIK3
        ]
    )
    mixtures, fulls = (
        iou_MK[(made.cells["method"] == name).to_numpy()].mean(0) for name in ("mixed", "full")
    )
    wanted = (mixtures - fulls) / 3
    assert rows.loc[list(made.pathologies), "value"].tolist() == pytest.approx(wanted)
    assert rows.loc[MEAN, "value"] == pytest.approx(wanted.sum())
    assert rows.loc[MEAN_OF_MANY, "value"] == pytest.approx((wanted[0] + wanted[2]) * 3 / 2)
    assert rows.loc[["Edema", "Lung Lesion", "Atelectasis"], "n"].tolist() == [40, 9, 40]
    assert rows.loc[MEAN_OF_MANY, "value"] < rows.loc[MEAN, "value"] / 2


def test_the_papers_gain_is_split_as_its_table_prints_it():
    made = study([weak(0.15), full(0.26), mixed(0.30)], PATHOLOGIES)
    rows = rows_of(made, "CheXseg minus full")
    printed = rows["paper"]
    two = printed["Lung Lesion"] + printed["Pneumothorax"]
    assert printed[list(PATHOLOGIES)].sum() == pytest.approx(0.0353)
    assert two / 0.0353 == pytest.approx(0.82, abs=0.005)
    assert printed[MEAN] == pytest.approx(0.0353)


def test_a_study_without_differences_has_no_split():
    assert analyse(study([full(0.26)])).contributions is None


def test_a_difference_without_a_test_has_no_intervals():
    made = study([weak(0.15), full(0.26), mixed(0.30)], draws=1, trials=2)
    rows = rows_of(made, "CheXseg minus full")
    assert rows["value"].notna().sum() == 4 and rows["low"].isna().all()
