"""Test the rows of Figures 2 to 5, also of studies that lack some of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.points.figure2 import panels
from chexseg.analysis.points.figure3 import panels as figure3_panels
from chexseg.analysis.points.figure4 import panels as figure4_panels
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables.paper_tables import radiologists_table, table1
from tests.analysis.papers_study import RADIOLOGISTS, achieved, by_hand, keep, papers_study
from tests.analysis.points import figure2_points, figure3_points, figure4_points, figure5_points


@pytest.fixture(scope="module")
def paper():
    return papers_study()


def rows_of(study: StudyResults, task: str = AVERAGE) -> pd.DataFrame:
    rows = figure2_points(study)
    return rows[rows["task"] == task].reset_index(drop=True)


def test_rows_hold_means_trials_and_the_paper(study):
    rows = rows_of(study)
    means = rows[rows["kind"] == "mean"]
    assert means.groupby("method")["p"].apply(list).to_dict() == {
        "cam": [0, 0.5, 0.9],
        "irnet": [0, 0.5, 0.9],
        "full": [1],
    }
    scores = score(study)
    table = table1(scores, scores.variants[0]).values
    assert means[means["method"] == "cam"]["value"].tolist() == table["value"].tolist()[:3]
    assert (rows["kind"] == "trial").sum() == (study.cells["method"] != "student").sum()
    assert rows[(rows["kind"] == "paper") & (rows["p"] == 0.9)]["value"].tolist() == [0.299, 0.294]
    assert rows[rows["kind"] == "poster"].set_index("p")["value"].to_dict() == {
        0: 0.156,
        0.9: 0.27,
        1: 0.246,
    }
    assert not (rows_of(study, "Edema")["kind"] == "poster").any(), "the poster has averages alone"


def test_panels_are_the_papers_or_the_studys_first_three(study):
    assert panels(study.pathologies) == (AVERAGE, "Pleural Effusion", "Consolidation", "Edema")
    some = ("Airspace Opacity", "Consolidation", "Support Devices")
    assert panels(some) == (AVERAGE, *some)


def test_figure3_has_students_and_the_teachers_of_their_encoder(paper):
    rows = figure3_points(paper)
    assert figure3_panels(rows) == ("random", "moco", "chexpert"), (
        "imagenet's teacher has no student"
    )
    mean = rows[(rows["kind"] == "mean") & (rows["init"] == "moco")]
    assert mean[mean["method"] == "student"]["fraction"].tolist() == [0.001, 0.01, 0.1]
    ours = achieved(paper, method="student", init="moco", fraction=0.01)
    assert mean[mean["fraction"] == 0.01][["value", "low", "high"]].iloc[
        0
    ].tolist() == pytest.approx(by_hand(*ours), rel=1e-4)
    assert rows.loc[rows["kind"] == "paper", ["init", "value"]].values.tolist() == [
        ["chexpert", 0.263]
    ]


def test_figure4_compares_encoders_with_published_values_beside_ours(paper):
    rows = figure4_points(paper)
    assert figure4_panels(rows) == (0, 100, 2000, 20000)
    full = rows[(rows["images"] == 0) & (rows["kind"] == "mean")]
    assert full["encoder"].tolist() == ["random", "imagenet", "moco", "chexpert"]
    assert full["value"].iloc[1] == pytest.approx(
        achieved(paper, method="full", init="imagenet").mean()
    )
    published = rows[(rows["images"] == 0) & rows["kind"].isin(["paper", "poster"])]
    assert published[["kind", "value"]].values.tolist() == [["paper", 0.263], ["poster", 0.246]]
    table = rows[
        (rows["images"] == 100) & (rows["kind"] == "paper") & (rows["encoder"] == "random")
    ]
    assert (table["high"] - table["value"]).tolist() == pytest.approx([0.00783, 0.00133])


def test_figure5_by_hand():
    """Test Figure 5 by hand, for six patients with one image each.

    Readers share 800 of their 1,000 pixels with the experts' 1,000: IoU 800 / 1,200 in all images.
    CheXseg shares 500 in three images (500 / 1,500) and 800 in the others: pooled, 1,300 / 2,700.
    """
    study = papers_study(trials=1, images=6, pathologies=("Edema",))
    chosen = (
        (study.cells["method"] == "mixed")
        & (study.cells["weak"] == "cam")
        & (study.cells["p"] == 0.9)
    )
    one = keep(
        study,
        chosen.to_numpy(),
        image_ids=tuple(f"patient{number}_study1_view1_frontal" for number in range(6)),
    )
    one = dataclasses.replace(
        one,
        counts_CIK3=np.array([[[[500, 1000, 1000]], [[800, 1000, 1000]]] * 3]),
        radiologists_IK3=np.array([[[800, 1000, 1000]]] * 6),
    )
    rows = figure5_points(one)
    ours = rows[(rows["kind"] == "mean") & (rows["task"] == "Edema")].set_index("role")
    assert ours["value"].to_dict() == pytest.approx(
        {"chexseg": 1300 / 2700, "radiologists": 2 / 3, "gap": 1300 / 2700 - 2 / 3}
    )
    # The images' differences, 500 / 1,500 - 2 / 3 and 0, lie 1 / 6 to either side of their mean: so does IoU, nearly. The
    # standard error of six is 0.183 / sqrt(6) = 0.075, Student's quantile 2.57.
    low, high = ours.loc["gap", ["low", "high"]]
    assert (high - low) / 2 == pytest.approx(2.57 * 0.075, rel=0.1) and ours.loc["gap", "n"] == 6
    assert (low + high) / 2 == pytest.approx(1300 / 2700 - 2 / 3)
    assert ours.loc["radiologists", ["low", "high"]].tolist() == pytest.approx([2 / 3, 2 / 3])
    table = radiologists_table(rows).values
    relative = table[table["series"] == "relative %"]
    assert relative["task"].tolist() == ["Avg. IoU", "Edema"]
    assert relative["value"].tolist() == pytest.approx([-27.78] * 2, abs=0.01)


def test_figure5_has_the_papers_roles_and_what_follows_from_its_text(paper):
    rows = figure5_points(paper)
    arms = rows[rows["kind"] == "mean"].set_index("role")["description"]
    assert arms["chexseg"].iloc[0].startswith("CAM, p = 0.9")
    assert arms["weak"].iloc[0].startswith("IRNet, p = 0, 20,000 weak images, encoder chexpert")
    published = rows[rows["kind"].isin(["paper", "poster"])].set_index(["task", "role", "kind"])[
        "value"
    ]
    # (0.299 - 0.156) / 71.6% and (0.27 - 0.156) / 57.2% above weak supervision.
    assert published["Avg. IoU", "radiologists", "paper"] == pytest.approx(0.3557, abs=1e-4)
    assert published["Avg. IoU", "radiologists", "poster"] == pytest.approx(0.3553, abs=1e-4)
    assert published["Atelectasis", "radiologists", "paper"] == pytest.approx(0.324 / 2.65)
    assert (
        published["Edema", "chexseg", "paper"] == 0.258
        and ("Edema", "radiologists", "paper") not in published
    )
    gap = rows[(rows["role"] == "gap")].set_index("task")
    assert {task for task in RADIOLOGISTS if gap.loc[task, "low"] > 0} == set(RADIOLOGISTS)


def test_figure3_leaves_a_gap_for_a_missing_fraction(paper):
    gone = (paper.cells["init"] == "moco") & (paper.cells["fraction"] == 0.01)
    rows = figure3_points(keep(paper, ~gone.to_numpy()))
    means = rows[(rows["kind"] == "mean") & (rows["method"] == "student")]
    assert means.groupby("init").size().to_dict() == {"random": 3, "moco": 2, "chexpert": 3}


def test_settings_that_a_row_names_are_not_repeated(paper):
    """If a study varies encoders and numbers of images, its cells list both in `other` too."""
    other = "init=" + paper.cells["init"] + " weak_images=" + paper.cells["weak_images"].astype(str)
    named = dataclasses.replace(paper, cells=paper.cells.assign(other=other))
    assert figure4_points(named).equals(figure4_points(paper))
    assert set(figure3_points(named)["settings"]) == {""}


def test_published_means_of_ten_pathologies_stand_beside_no_other_mean():
    some = papers_study(pathologies=("Edema", "Consolidation"), trials=1, images=4)
    assert not figure4_points(some)["kind"].isin(["paper", "poster"]).any()
    assert not figure3_points(some)["kind"].isin(["paper", "poster"]).any()
    rows = figure5_points(some)
    assert set(rows.loc[rows["kind"] == "paper", "task"]) == {"Edema", "Consolidation"}


def test_one_encoder_has_no_figure4(study):
    assert figure4_panels(figure4_points(study)) == ()


def test_undefined_pathology_has_only_published_points(build):
    study = build(absent=("Edema",), images=8, students=False)
    assert set(rows_of(study, "Edema")["kind"]) == {"paper"}


def test_figure5_without_radiologists_or_expert_masks(build):
    rows = figure5_points(build(absent=("Pneumothorax",), images=8, students=False))
    assert set(rows.loc[rows["kind"] == "mean", "role"]) == {"weak", "full", "chexseg"}
    assert rows[(rows["task"] == "Pneumothorax") & (rows["kind"] == "mean")]["value"].isna().all()


def test_a_third_kind_of_weak_labels_has_rows_but_no_published_values(study):
    chosen = study.cells["weak"] == "irnet"
    changed = study.cells.assign(weak=study.cells["weak"].mask(chosen, "cam++"))
    rows = rows_of(dataclasses.replace(study, cells=changed))
    assert set(rows[rows["kind"] == "paper"]["method"]) == {"cam"}
    means = rows[(rows["kind"] == "mean") & (rows["method"] == "cam++")]
    assert means["p"].tolist() == [0, 0.5, 0.9]
