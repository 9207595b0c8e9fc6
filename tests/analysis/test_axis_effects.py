"""Test a study's answer on made studies whose effects are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chexseg.analysis import axis_effects
from chexseg.analysis.axis_effects import BELOW, FIRST, HIGHER, LOWER, TIED, UNDECIDED, UNTESTED
from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from tests.analysis.test_claims import full, study
from tests.report.rendered import publish


def made(levels: dict[tuple[str, str], float], **settings) -> StudyResults:
    """Return a study of two axes, loss and epochs, with these mIoUs."""
    arms = [full(iou, other=f"loss={a} epochs={b}") for (a, b), iou in levels.items()]
    results = study(arms, **settings)
    words = results.cells["other"].str.extract(r"loss=(?P<loss>\S+) epochs=(?P<epochs>\S+)")
    return dataclasses.replace(results, axes=words.astype(object), reproduces=())


def answer(levels: dict[tuple[str, str], float], **settings) -> axis_effects.Answer:
    return ask(made(levels, **settings))


def ask(results: StudyResults) -> axis_effects.Answer:
    scores = score(results)
    assert axis_effects.is_asked(scores)
    return axis_effects.answer(scores, scores.measure(scores.arms))


ADDITIVE = {("dice", "5"): 0.20, ("focal", "5"): 0.24, ("dice", "9"): 0.21, ("focal", "9"): 0.25}


def test_an_effect_is_the_mean_over_pairs_that_agree_in_the_other_axis():
    answered = answer(ADDITIVE)
    effects = answered.effects.set_index("axis")
    assert effects["value"].to_dict() == {"epochs": "9", "loss": "focal"}
    assert effects["pairs"].tolist() == [2, 2]
    scores = score(made(ADDITIVE))
    means = {arm.other: float(scores.miou_C[list(arm.indices)].mean()) for arm in scores.arms}
    of_loss = [means[f"loss=focal epochs={n}"] - means[f"loss=dice epochs={n}"] for n in (5, 9)]
    assert effects.loc["loss", "difference"] == pytest.approx(np.mean(of_loss))
    assert effects.loc["loss", "verdict"] == HIGHER
    assert effects.loc["loss", "difference low"] < 0.04 < effects.loc["loss", "difference high"]
    assert answered.interactions["verdict"].tolist() == [UNDECIDED]


def test_an_interaction_is_the_change_of_an_effect():
    levels = ADDITIVE | {("focal", "9"): 0.16}
    answered = answer(levels)
    (row,) = answered.interactions.to_dict("records")
    # Focal gains 0.04 at 5 epochs and loses 0.05 at 9; which axis comes first doesn't matter.
    assert row["difference"] == pytest.approx(-0.09, abs=0.02) and row["verdict"] == LOWER
    assert (row["axis"], row["by"]) in (("loss", "epochs"), ("epochs", "loss"))


@pytest.mark.parametrize("axes", [("loss", "epochs"), ("epochs", "loss")])
def test_an_interaction_of_one_draw_is_undecided_whichever_axis_comes_first(axes):
    """Epochs stand for a setting with stages of its own before the fit, losses for one without."""
    levels = ADDITIVE | {("focal", "9"): 0.16}
    results = made(levels, draws=1, trials=5)
    upstream = "classifier " + results.axes["epochs"].astype(str)
    results = dataclasses.replace(
        results, cells=results.cells.assign(upstream=upstream), axes=results.axes[list(axes)]
    )
    (row,) = ask(results).interactions.to_dict("records")
    assert row["P"] < 0.01 and row["verdict"] == UNDECIDED
    assert row["reason"] == "given one classifier, encoder and split"


def test_fewer_than_60_steps_have_no_test():
    results = made(ADDITIVE)
    few = dataclasses.replace(results, cells=results.cells.assign(steps=59.0))
    effects = ask(few).effects
    assert (
        set(effects["reason"]) == {"59 optimiser steps, a test needs 60"}
        and effects["P"].isna().all()
    )


def test_a_setting_that_does_not_matter_to_an_arm_is_no_obstacle():
    results = made(ADDITIVE)
    axes = results.axes.copy()
    axes.loc[axes["loss"] == "focal", "epochs"] = None
    answered = ask(dataclasses.replace(results, axes=axes))
    effects = answered.effects.set_index("axis")
    assert effects.loc["loss", "pairs"] == 4 and effects.loc["epochs", "pairs"] == 1


def test_ranking_marks_what_is_tied_with_the_first():
    ranking = answer(ADDITIVE | {("focal", "9"): 0.2405}).ranking
    assert ranking["place"].tolist() == [FIRST, TIED, BELOW, BELOW]
    assert ranking["mIoU"].is_monotonic_decreasing
    assert ranking["minus the first"].iloc[0] == 0 and np.isnan(ranking["P"].iloc[0])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"draws": 1, "trials": 2}, "2 trials, a test needs 3"),
        ({"draws": 1, "trials": 5}, "given one classifier, encoder and split"),
    ],
)
def test_too_little_decides_nothing(settings, reason):
    answered = answer(ADDITIVE, **settings)
    assert set(answered.effects["verdict"]) == {UNDECIDED}
    assert set(answered.effects["reason"]) == {reason}
    assert set(answered.ranking["place"][1:]) == {
        UNTESTED if reason == "2 trials, a test needs 3" else TIED
    }


def test_equal_arms_have_effects_in_5_percent_of_studies():
    """All P-values of a study are adjusted together, so most studies have none below 0.05."""
    generator, wrong = np.random.default_rng(0), 0
    base = made(ADDITIVE)
    for _ in range(60):
        iou_CI = 0.25 + generator.normal(0, 0.03, 40) + generator.normal(0, 0.01, (12, 1))
        counts = base.counts_CIK3.copy()
        counts[..., 0] = np.round(20_000 * iou_CI / (1 + iou_CI))[..., None]
        answered = ask(dataclasses.replace(base, counts_CIK3=counts))
        wrong += (answered.effects["verdict"] != UNDECIDED).any()
    assert wrong <= 6


def test_only_a_study_that_reproduces_nothing_gets_an_answer(tmp_path):
    results = made(ADDITIVE)
    analysis = analyse(results)
    assert analysis.answer is not None and analysis.claims == ()
    text = publish([results], tmp_path / "own").page.read_text()
    assert 'id="made--answer"' in text and 'id="made--claims"' not in text
    assert "Highest mIoU, " in text and "The paper’s order" not in text
    paper = dataclasses.replace(results, reproduces=("table-1",))
    assert analyse(paper).answer is None
    assert {claim.name for claim in analyse(paper).claims} == {"order", "inverted-u"}
    text = publish([paper], tmp_path / "paper").page.read_text()
    assert 'id="made--answer"' not in text and 'id="made--claims"' in text
