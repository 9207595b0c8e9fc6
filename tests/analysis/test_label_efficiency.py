"""Test the points and the figure of label efficiency on a made study."""

from __future__ import annotations

import dataclasses

import pytest

from chexseg.analysis.points.label_efficiency import EXPERTS, GAIN, MIOU
from chexseg.analysis.study_analysis import analyse
from chexseg.report.figures.study_figures import draw
from tests.analysis.test_claims import full, mixed, study
from tests.report.rendered import publish

#: Expert images -> mIoU of full supervision and of the mixture.
LEVELS = {10: (0.10, 0.16), 50: (0.20, 0.22), 147: (0.26, 0.265)}


@pytest.fixture
def made():
    arms = [
        arm
        for number, (alone, with_weak) in LEVELS.items()
        for arm in (full(alone, other=f"train={number}"), mixed(with_weak, other=f"train={number}"))
    ]
    results = study(arms, draws=5)
    axes = results.cells.rename(columns={"p": "labels.p"})[["labels.p"]].astype(object)
    axes[EXPERTS] = results.cells["other"].str.removeprefix("train=")
    return dataclasses.replace(results, axes=axes, reproduces=())


def test_gains_are_the_paired_differences_by_number_of_experts(made):
    rows = analyse(made).label_efficiency
    means = rows[rows["kind"] == "mean"].set_index(["panel", "series", "experts"])["value"]
    for number in LEVELS:
        with_weak, alone = (means[MIOU, name, number] for name in ("CAM, p = 0.9", "full"))
        assert means[GAIN, "CAM, p = 0.9", number] == pytest.approx(with_weak - alone)
    gains = rows[rows["panel"] == GAIN]
    assert gains["experts"].tolist() == [10, 50, 147] and (gains["n"] == 5).all()
    assert gains["low"].iloc[0] > 0.03


def test_that_the_gain_shrinks_is_an_interaction(made):
    rows = analyse(made).answer.interactions
    row = rows[(rows["value"] == "147") | (rows["to"] == "147")].iloc[0]
    assert row["difference"] == pytest.approx(-0.055, abs=0.015)
    assert row["verdict"] == "lower"


def test_the_page_shows_two_panels(made, tmp_path):
    names = [name for name in draw(analyse(made)) if name.startswith("label")]
    assert names == ["label-efficiency-a", "label-efficiency-b"]
    assert 'id="made--label-efficiency"' in publish([made], tmp_path).page.read_text()


def test_a_study_of_one_number_of_experts_has_no_such_figure(made):
    one = dataclasses.replace(made, axes=made.axes.assign(**{EXPERTS: "147"}))
    assert not len(analyse(one).label_efficiency)
