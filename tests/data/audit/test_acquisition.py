"""Test the scores of acquisition: shortcuts are seen, and chance isn't taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data.audit import acquisition, validation


def naive_auroc(values, labels):
    """Compare each positive image with each negative one; a tie counts one half."""
    wins = pairs = 0.0
    for value, label in zip(values, labels, strict=True):
        for other, other_label in zip(values, labels, strict=True):
            if label != 1 or not (other_label == 0 or np.isnan(other_label)):
                continue
            if np.isnan(value) or np.isnan(other):
                continue
            pairs += 1
            wins += 1.0 if value > other else 0.5 if value == other else 0.0
    return wins / pairs


def test_auroc_is_the_share_of_pairs_in_order():
    random = np.random.default_rng(0)
    for _ in range(20):
        values = random.integers(0, 5, 40).astype(float)
        values[random.random(40) < 0.1] = np.nan
        labels = random.choice([1.0, 0.0, -1.0, np.nan], 40)
        score = acquisition.auroc(values, labels)
        assert score["auroc"] == pytest.approx(naive_auroc(values, labels))


def test_a_label_without_both_classes_has_no_score():
    assert acquisition.auroc(np.arange(3.0), np.ones(3)) is None
    assert acquisition.auroc(np.arange(3.0), np.array([-1.0, -1.0, 0.0])) is None
    assert acquisition.auroc(np.full(3, np.nan), np.array([1.0, 0.0, 0.0])) is None
    assert acquisition.auroc(np.ones(3), np.array([1.0, 0.0, 0.0])) == {"auroc": 0.5, "p": 1.0}


def test_only_scores_that_chance_does_not_explain_are_warned_of():
    scored = {
        "padding": {
            "Edema": {"auroc": 0.9, "p": 1e-6},
            "Fracture": {"auroc": 1.0, "p": 0.1},
            "Atelectasis": None,
        },
        "AP": {"Edema": {"auroc": 0.05, "p": 1e-6}, "Fracture": {"auroc": 0.79, "p": 1e-9}},
    }
    first, second = acquisition.warnings(scored)
    assert first.startswith("AP alone predicts Edema with an AUROC of 0.05")
    assert second.startswith("padding alone predicts Edema with an AUROC of 0.90")


def test_the_study_set_gives_lung_opacity_away_by_its_padding(shared):
    audit = validation.check(shared / "covid-cxr")
    train, valid = (audit.splits[split]["acquisition"] for split in ("train", "valid"))
    assert train["padding"]["Lung Opacity"]["auroc"] == pytest.approx(0.96, abs=0.005)
    assert train["pixels"]["Lung Opacity"]["auroc"] == pytest.approx(0.98, abs=0.005)
    assert valid["padding"]["Lung Opacity"]["auroc"] == pytest.approx(0.49, abs=0.005)
    assert "acquisition" not in audit.splits["test"]
    warnings = audit.notes["acquisition predicts a label"]
    assert any("padding alone predicts Lung Opacity with an AUROC of 0.96" in w for w in warnings)
    assert not any("valid.csv" in warning for warning in warnings)
    assert not audit.fatal and "0.96/0.49" in audit.text()
    assert audit.as_dict()["splits"]["train"]["acquisition"] == train
