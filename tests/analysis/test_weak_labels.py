"""Test the agreement of weak labels with expert masks: figures by hand and verdicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from chexseg import weak_label_kinds
from chexseg.analysis import classifiers, load, weak_label_agreement
from chexseg.analysis.baselines import CONSTANT, PRIOR
from chexseg.analysis.results import WeakCounts, WeakLabels
from chexseg.analysis.study_analysis import analyse
from chexseg.pathologies import COMPETITION, OBSERVATIONS, PATHOLOGIES
from chexseg.weak_label_kinds import WeakLabelKind
from tests.analysis.weak_label_store import a_plan, a_store, in_memory

# ---- IoU


def by_scope(labels, pathologies, **options) -> pd.DataFrame:
    """Return the rows by scope, pathology and kind of labels."""
    rows = weak_label_agreement.rows(labels, pathologies, **options)
    return rows.set_index(["scope", "pathology", "labels"])


def test_figures_by_hand(loaded):
    (labels,) = weak_label_agreement.label_sets(loaded)
    rows = by_scope(labels, loaded.pathologies, replicates=50)
    cam, held_out = rows.loc["all", "Edema", "CAM"], rows.loc["held-out", "Edema", "CAM"]
    assert (cam["images"], held_out["images"], held_out["patients"]) == (2, 1, 1)
    assert cam["IoU"] == pytest.approx(6 / (14 + 10 - 6))
    assert cam["box IoU"] == pytest.approx(3 / (14 + 10 - 3))
    assert held_out["IoU"] == pytest.approx(2 / (6 + 4 - 2))
    assert held_out["box IoU"] == pytest.approx(1 / (6 + 4 - 1))
    # The prior is the first image's mask, 20 rows of 20; the others' have 19 and 18 of these rows.
    assert rows.loc["held-out", "Edema", PRIOR]["IoU"] == pytest.approx(37 / 40)
    assert held_out["difference"] == pytest.approx(1 / 4 - 37 / 40)
    assert cam["difference"] == pytest.approx(1 / 3 - 57 / 60)
    irnet, irnet_held_out = (rows.loc[s, "Edema", "IRNet"] for s in ("all", "held-out"))
    assert (cam["against"], irnet["against"]) == (PRIOR, "CAM")
    assert irnet["IoU"] == pytest.approx(0.6) and irnet_held_out["IoU"] == pytest.approx(0.75)
    assert irnet_held_out["difference"] == pytest.approx(0.75 - 0.25)
    assert irnet["difference"] == pytest.approx(0.6 - 1 / 3)
    absent = rows.loc["held-out", "Consolidation", "CAM"]
    assert rows.loc["all", "Consolidation", "CAM"]["IoU"] == pytest.approx(0.5)
    assert np.isnan(absent["IoU"]) and not isinstance(absent["verdict"], str)
    assert absent["reason"] == weak_label_agreement.NO_EXPERT["held-out"]
    mean = rows.loc["all", weak_label_agreement.MEAN, "CAM"]
    assert mean["IoU"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert mean["box IoU"] == pytest.approx((1 / 7 + 0.25 / 2.75) / 2)
    held_out_mean = rows.loc["held-out", weak_label_agreement.MEAN, "CAM"]
    assert held_out_mean["IoU"] == pytest.approx(1 / 4)


def test_a_single_patient_decides_nothing(loaded):
    (labels,) = weak_label_agreement.label_sets(loaded)
    row = by_scope(labels, loaded.pathologies, replicates=50).loc["held-out", "Edema", "IRNet"]
    assert row["verdict"] == weak_label_agreement.UNDECIDED
    assert row["reason"] == "only 1 patient" and np.isnan(row["low"])


@pytest.mark.parametrize(
    ("irnet", "verdict"),
    [
        ([9, 12, 10, 14, 9, 11, 12, 10], "better"),
        ([1, 2, 1, 0, 2, 1, 0, 2], "worse"),
        ([14, 0, 12, 1, 9, 2, 8, 3], "undecided"),
    ],
)
def test_verdicts_follow_the_interval(irnet, verdict):
    labels = in_memory({"cam": [6, 7, 5, 6, 6, 7, 5, 6], "irnet": irnet})
    rows = by_scope(labels, ("Edema",))
    row = rows.loc["held-out", "Edema", "IRNet"]
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["verdict"] == rows.loc["all", "Edema", "IRNet"]["verdict"] == verdict
    assert (row["low"] > 0 or row["high"] < 0) == (verdict != "undecided")
    sentences = weak_label_agreement.sentences(labels, rows.reset_index())
    wanted = {
        "better": "improves CAM’s labels for Edema and worsens them for no pathology.",
        "worse": "improves CAM’s labels for no pathology and worsens them for Edema.",
        "undecided": (
            "improves CAM’s labels for no pathology and worsens them for no pathology; undecided "
            "for Edema."
        ),
    }
    assert sentences[0] == f"On the 8 held-out images, IRNet {wanted[verdict]}"
    assert sentences[1].startswith("On the 8 held-out images, CAM beats a random box for Edema"), (
        "no image but held-out ones"
    )


@pytest.mark.parametrize(
    ("prior", "verdict"), [([2, 1, 3, 2, 2, 1, 3, 2], "better"), ([12, 11, 14, 12] * 2, "worse")]
)
def test_cams_are_better_than_chance_if_better_than_the_location_prior(prior, verdict):
    """They beat the random box in both cases."""
    labels = in_memory({"cam": [6, 7, 5, 6, 6, 7, 5, 6]}, prior=prior)
    rows = by_scope(labels, ("Edema",))
    row, drawn = (rows.loc["held-out", "Edema", name] for name in ("CAM", PRIOR))
    assert (row["against"], row["verdict"]) == (PRIOR, verdict) and row["IoU"] > row["box IoU"]
    assert drawn["IoU"] == pytest.approx(sum(prior) / (320 - sum(prior)))
    assert row["difference"] == pytest.approx(row["IoU"] - drawn["IoU"])
    assert drawn[["against", "difference", "verdict", "reason"]].isna().all()
    sentence = weak_label_agreement.sentences(labels, rows.reset_index())[0]
    beaten, lost = ("Edema", "no pathology") if verdict == "better" else ("no pathology", "Edema")
    assert sentence == (
        f"On the 8 held-out images, CAM beats the location prior for {beaten}"
        f" and does worse than it for {lost}."
    )


def test_an_empty_prior_judges_nothing():
    """Better than an empty mask isn't better than chance."""
    labels = in_memory({"cam": [6] * 8}, prior=[0] * 8)
    labels.counts[0].baselines[PRIOR][..., 1] = 0
    row = by_scope(labels, ("Edema",)).loc["held-out", "Edema", "CAM"]
    assert row["IoU"] > 0 and row["reason"] == weak_label_agreement.NO_PRIOR
    assert row[["difference", "P", "verdict"]].isna().all()


def test_each_pathology_has_rows_of_baselines(loaded):
    (labels,) = weak_label_agreement.label_sets(loaded)
    rows = weak_label_agreement.rows(labels, loaded.pathologies, replicates=10)
    names = rows.groupby(["scope", "pathology"])["labels"].agg(list)
    assert set(map(tuple, names)) == {("CAM", "IRNet", CONSTANT, PRIOR)}


def test_equal_labels_differ_by_nothing():
    """Check that paired labels share their draws: independent draws would widen the interval."""
    hits = [6, 2, 9, 0, 4, 7, 5, 3]
    row = weak_label_agreement.rows(in_memory({"cam": hits, "irnet": hits}), ("Edema",)).iloc[1]
    assert (row["difference"], row["low"], row["high"], row["verdict"]) == (
        0,
        0,
        0,
        weak_label_agreement.UNDECIDED,
    )


def test_verdicts_leave_out_what_thresholds_were_chosen_on():
    """Check with IRNet better on the eight images used for thresholds, worse on the others."""
    labels = in_memory({"cam": [6] * 16, "irnet": [19] * 8 + [3] * 8}, chosen_on=8)
    rows = weak_label_agreement.rows(labels, ("Edema",))
    both = rows[(rows["pathology"] == "Edema") & (rows["labels"] == "IRNet")].set_index("scope")
    assert both.loc["held-out", "verdict"] == weak_label_agreement.WORSE
    assert both.loc["all", "difference"] > 0
    sentences = weak_label_agreement.sentences(labels, rows)
    assert sentences[1].startswith(
        "On all 16 masked images, on 8 of which CAM thresholds were chosen, IRNet"
    )


def test_verdicts_are_corrected_for_the_number_of_pathologies():
    """Check that one nominally significant difference among ten is no finding.

    The mean is not among the corrected tests.
    """
    generator, names = np.random.default_rng(0), PATHOLOGIES
    box_IK = np.full((30, len(names)), 6.0)
    hits_IK = np.clip(np.round(box_IK + generator.normal(0, 4, box_IK.shape)), 0, 20).astype(int)
    hits_IK[:, 0] = np.clip(np.round(7.6 + generator.normal(0, 4, 30)), 0, 20)
    counts_IK3 = np.stack([hits_IK, np.full_like(hits_IK, 20), np.full_like(hits_IK, 20)], axis=-1)
    ids = tuple(f"patient{n}_study1_view1_frontal" for n in range(30))
    cam = WeakLabels(
        "cam", "cam", None, {}, WeakCounts(ids, counts_IK3, box_IK, np.zeros(30, dtype=bool))
    )
    rows = by_scope(weak_label_agreement.LabelSet((cam,)), names)
    rows = rows.loc["held-out"].droplevel("labels")
    first = rows.loc[names[0]]
    assert (
        first["P"] < 0.05 < first["adjusted P"]
        and first["verdict"] == weak_label_agreement.UNDECIDED
        and first["low"] > 0
    )
    assert rows["adjusted P"].drop(weak_label_agreement.MEAN).min() == pytest.approx(
        10 * rows["P"].drop(weak_label_agreement.MEAN).min()
    )
    assert (
        rows.loc[weak_label_agreement.MEAN, "adjusted P"]
        == rows.loc[weak_label_agreement.MEAN, "P"]
    )


def test_nothing_held_out_is_said():
    labels = in_memory({"cam": [6] * 8}, chosen_on=8)
    rows = weak_label_agreement.rows(labels, ("Edema",))
    held_out = rows[rows["scope"] == "held-out"]
    assert held_out["reason"].tolist() == [weak_label_agreement.NOTHING_HELD_OUT] * 2
    assert [
        sentence.split(",")[0] for sentence in weak_label_agreement.sentences(labels, rows)
    ] == ["On all 8 masked images"]


def test_sets_tell_what_they_differ_in(tmp_path):
    planned = a_plan("axes: {labels.weak: [cam, irnet], labels.p: [0], classify.epochs: [2, 5]}")
    results = load.study_results(planned, a_store(tmp_path, planned))
    sets = weak_label_agreement.label_sets(results)
    assert [labels.text for labels in sets] == ["classify.epochs 2", "classify.epochs 5"]
    assert [[entry.kind for entry in labels.labels] for labels in sets] == [["cam", "irnet"]] * 2
    assert {"weak-labels", "weak-labels-2", "auroc", "classifiers"} <= set(analyse(results).tables)


def test_a_walk_without_boundaries_is_a_set_beside_irnet(tmp_path):
    planned = a_plan(
        "axes: {labels.weak: [cam, irnet], labels.p: [0], irnet.boundaries: [true, false]}"
    )
    results = load.study_results(planned, a_store(tmp_path, planned))
    sets = weak_label_agreement.label_sets(results)
    assert [[entry.kind for entry in labels.labels] for labels in sets] == [["cam", "irnet"]] * 2
    walk = next(labels for labels in sets if "irnet.boundaries False" in labels.text)
    assert walk.text == "irnet.boundaries False"  # and no setting of a network that it lacks


def made(key: str, kind: str, start: str | None = None, **settings) -> WeakLabels:
    counts = WeakCounts(
        ("a",), np.ones((1, 1, 3), dtype=np.int64), np.zeros((1, 1)), np.array([False])
    )
    kinds = {"saliency.kind": kind if start is None else ""}
    return WeakLabels(key, kind, start, kinds | settings, counts)


def test_a_set_holds_cams_of_both_kinds_and_irnets_with_theirs():
    study = [made("i", "irnet", "c", **{"irnet.epochs": 1}), made("p", "cam++"), made("c", "cam")]
    study.append(made("j", "irnet", "p", **{"irnet.epochs": 3}))
    of_study = (*study, made("o", "irnet", "gone"))
    results = type("Results", (), {"weak_labels": of_study, "draw_of_seed": {}})
    sets = weak_label_agreement.label_sets(results)
    assert sorted("".join(labels.key for labels in label_set.labels) for label_set in sets) == [
        "cpi",
        "o",
        "pj",
    ]
    assert {"IRNet from CAM, irnet.epochs 1", "IRNet from CAM++, irnet.epochs 3"} <= {
        label_set.text for label_set in sets
    }
    first = next(label_set for label_set in sets if len(label_set.labels) == 3)
    assert weak_label_agreement.rows(first, ("Edema",), replicates=10)["against"].tolist()[:3] == [
        weak_label_agreement.BOX,
        weak_label_agreement.BOX,
        "CAM",
    ]
    assert weak_label_agreement.rows(first, ("Edema",), replicates=10)["labels"].tolist()[:3] == [
        "CAM",
        "CAM++",
        "IRNet",
    ]


# ---- classifiers


@pytest.mark.parametrize("threshold", [0.6, "training"])
def test_a_threshold_of_irnet_is_chosen_on_images_too(tmp_path, threshold):
    planned = a_plan(
        "axes: {labels.weak: [irnet], labels.p: [0], saliency.threshold: [otsu],"
        f" irnet.threshold: [{threshold}]}}"
    )
    results = load.study_results(planned, a_store(tmp_path, planned))
    tuned = [one.tuned for one in weak_label_agreement.label_sets(results)]
    assert tuned and set(tuned) == {threshold == "training"}


def test_labels_of_no_classifier_join_the_set_of_the_cams(loaded, monkeypatch):
    """So one table and one row of maps compares both."""
    monkeypatch.setitem(weak_label_kinds.KINDS, "bright", WeakLabelKind("Bright", "bright"))
    monkeypatch.setitem(weak_label_agreement.METHODS, "bright", "Bright")
    cams = next(labels for labels in loaded.weak_labels if labels.kind == "cam")
    settings = {"bright.pool": 4}
    bright = dataclasses.replace(cams, kind="bright", key="b", settings=settings)
    both = dataclasses.replace(loaded, weak_labels=(bright, *loaded.weak_labels))
    (joined,) = weak_label_agreement.label_sets(both)
    assert [labels.kind for labels in joined.labels][-1] == "bright"
    rows = weak_label_agreement.rows(joined, loaded.pathologies, replicates=10)
    assert set(rows.loc[rows["labels"] == "Bright", "against"]) == {PRIOR}
    alone = dataclasses.replace(loaded, weak_labels=(bright,))
    assert [labels.kind for labels in weak_label_agreement.label_sets(alone)[0].labels] == [
        "bright"
    ]


def test_auroc_of_each_observation(loaded):
    rows = classifiers.auroc_table(loaded.classifiers).values
    names = rows["classifier"].drop_duplicates().tolist()
    assert names == ["weak labels, densenet121", "encoder, resnet18"]
    rows = rows[rows["classifier"] == names[0]].set_index("observation")
    assert rows.index.tolist() == [*OBSERVATIONS, weak_label_agreement.MEAN]
    edema = 0.5 + OBSERVATIONS.index("Edema") / 100
    assert rows.loc["Edema", "value"] == pytest.approx(edema)
    assert np.isnan(rows.loc["Fracture", "value"])
    assert rows.loc["Fracture", "reason"] == classifiers.ONE_CLASS
    assert rows.loc[weak_label_agreement.MEAN, "value"] == 0.56
    assert rows.index[rows["competition"]].tolist()[:-1] == [
        name for name in OBSERVATIONS if name in COMPETITION
    ]
    undefined = dataclasses.replace(
        loaded.classifiers[0], auroc=dict.fromkeys(OBSERVATIONS), mean_auroc=0.0
    )
    values = classifiers.auroc_table((undefined,)).values["value"]
    assert values.isna().all(), "a mean of nothing is no 0"


def test_sets_of_several_draws_are_named_by_their_draw():
    labels = [
        made(str(seed), "cam", **{"classify.seed": seed}) for seed in (0, 5069766777393853266)
    ]
    results = type(
        "Results", (), {"weak_labels": labels, "draw_of_seed": {0: 0, 5069766777393853266: 1}}
    )
    texts = [one.text for one in weak_label_agreement.label_sets(results)]
    assert texts == ["draw 0", "draw 1"]
