"""Test the agreement of weak labels with expert masks: figures by hand and verdicts."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from chexseg.analysis import classifiers, load, weak_label_agreement
from chexseg.analysis.results import WeakCounts, WeakLabels
from chexseg.config import study_file
from chexseg.data import chexlocalize, shards
from chexseg.pathologies import COMPETITION, OBSERVATIONS, PATHOLOGIES
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan
from chexseg.report.page import page, weak_label_overlays
from chexseg.saliency import weak_masks
from chexseg.store.store import Store

SETTINGS = """
settings:
  pathologies: [Consolidation, Edema]
  size: 64
  encoder: {architecture: resnet18, init: chexpert}
  labels: {expert_split: {train: 1, select: 1}}
"""
IDS = tuple(f"patient{n}_study1_view1_frontal" for n in (1, 2, 3))
SIZE = 64
#: (intersection, predicted, true, expected intersection of the box) on the three images. Thresholds
#: were chosen on the first.
COUNTS = {
    "saliency": {
        "Edema": [(4, 8, 6, 2.0), (2, 4, 4, 1.0), (0, 2, 0, 0.0)],
        "Consolidation": [(1, 1, 2, 0.25), (0, 0, 0, 0.0), (0, 0, 0, 0.0)],
    },
    "irnet": {
        "Edema": [(3, 3, 6, 0.5), (3, 3, 4, 0.5), (0, 0, 0, 0.0)],
        "Consolidation": [(0, 0, 2, 0.0), (0, 0, 0, 0.0), (0, 0, 0, 0.0)],
    },
}


def a_plan(text: str = "axes: {labels.weak: [cam, irnet], labels.p: [0]}") -> Plan:
    study = study_file.parse(f"name: weak\n{text}\n{SETTINGS}", "weak.yaml")
    return planner.plan(study, {"train": "a", "valid": "b", "test": "c"})


def nodes(planned: Plan, stage: str) -> list[Node]:
    return [node for node in planned.nodes.values() if node.stage == stage]


def masks_NKHW(shift: int) -> np.ndarray:
    """Return masks with one square each for Consolidation and Edema; the others are empty."""
    out = np.zeros((len(IDS), len(PATHOLOGIES), SIZE, SIZE), dtype=bool)
    for n in range(len(IDS)):
        out[n, PATHOLOGIES.index("Edema"), 10 + n : 30, 5 + shift : 25] = True
    out[0, PATHOLOGIES.index("Consolidation"), 40:50, 30 + shift : 50] = True
    return out


def write(store: Store, node: Node) -> None:
    """Write an artifact as its stage does."""
    generator = np.random.default_rng(1)
    facts: dict = {}
    with store.working_on(node) as out:
        out.mkdir(parents=True)
        if node.stage == "ingest":
            for folder in ("images", "masks"):
                (out / folder).mkdir()
            pixels = generator.integers(0, 255, (len(IDS), SIZE, SIZE), dtype=np.uint8)
            shards.write(
                out / "images" / "part-00000.parquet",
                shards.table({"image_id": IDS}, {"pixels": pixels}),
            )
            rows = shards.table({"image_id": IDS}, {"masks": masks_NKHW(0)})
            shards.write(out / "masks" / "part-00000.parquet", rows)
        elif node.stage in ("classify", "pretrain"):
            auroc = {
                name: None if name == "Fracture" else 0.5 + n / 100
                for n, name in enumerate(OBSERVATIONS)
            }
            facts = {
                "auroc": auroc,
                "mean_auroc": 0.56,
                "step": 40,
                "steps": 80,
                "images": 320,
                "loss": 0.1,
            }
        else:
            (out / "valid").mkdir()
            arrays = {"scores": generator.random((len(IDS), 10, 2, 2)).astype(np.float16)}
            if node.stage == "irnet":
                arrays["scores"] = generator.random((len(IDS), 10, 16, 16)).astype(np.float16)
                arrays["boundary"] = generator.integers(0, 255, (len(IDS), 16, 16), dtype=np.uint8)
            (out / "thresholds.json").write_text(json.dumps(dict.fromkeys(PATHOLOGIES, 0.6)))
            rows = shards.table({"image_id": IDS}, arrays, pathologies=PATHOLOGIES)
            shards.write(out / "valid" / "part-00000.parquet", rows)
            write_counts(node.stage, out)
        store.commit(node, out, facts, 1.0)


def write_counts(stage: str, out) -> None:
    named = {
        "image_id": np.repeat(IDS, len(PATHOLOGIES)),
        "pathology": np.tile(PATHOLOGIES, len(IDS)),
    }
    empty = [(0, 0, 0, 0.0)] * len(IDS)
    values = (
        np.array([COUNTS[stage].get(name, empty) for name in PATHOLOGIES])
        .swapaxes(0, 1)
        .reshape(-1, 4)
    )
    pixels = {
        name: values[:, n].astype(np.int64)
        for n, name in enumerate(("intersection", "predicted", "true"))
    }
    columns = (
        named
        | pixels
        | {"box": values[:, 3], "chosen_on": np.repeat([True, False, False], len(PATHOLOGIES))}
    )
    metadata = {"kind": "weak counts", "pathologies": PATHOLOGIES, "size": SIZE}
    shards.write(out / "counts.parquet", shards.table(columns, {}, **metadata))
    runs = [chexlocalize.encode(mask)["counts"] for masks in masks_NKHW(4) for mask in masks]
    shards.write(
        out / "predictions.parquet",
        shards.table({**named, "counts": runs}, {}, kind="predictions", size=SIZE),
    )


STAGES = ("ingest", "classify", "pretrain", "saliency", "irnet")


def a_store(root, planned: Plan, stages=STAGES) -> Store:
    store = Store(root)
    for stage in stages:
        for node in nodes(planned, stage):
            write(store, node)
    return store


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    planned = a_plan()
    return load.study_results(planned, a_store(tmp_path_factory.mktemp("store"), planned))


# ---- IoU


def test_figures_by_hand(loaded):
    (labels,) = weak_label_agreement.label_sets(loaded)
    rows = weak_label_agreement.rows(labels, loaded.pathologies, replicates=50).set_index(
        ["pathology", "labels"]
    )
    cam, irnet = rows.loc["Edema", "CAM"], rows.loc["Edema", "IRNet"]
    assert (cam["images"], cam["held-out images"], cam["held-out patients"]) == (2, 1, 1)
    assert cam["IoU"] == pytest.approx(6 / (14 + 10 - 6)) and cam["box IoU"] == pytest.approx(
        3 / (14 + 10 - 3)
    )
    assert cam["held-out IoU"] == pytest.approx(2 / (6 + 4 - 2)) and cam[
        "held-out box IoU"
    ] == pytest.approx(1 / (6 + 4 - 1))
    assert (cam["against"], irnet["against"]) == (weak_label_agreement.BOX, "CAM")
    assert cam["difference"] == pytest.approx(1 / 4 - 1 / 9) and cam[
        "all difference"
    ] == pytest.approx(1 / 3 - 1 / 7)
    assert irnet["IoU"] == pytest.approx(0.6) and irnet["held-out IoU"] == pytest.approx(0.75)
    assert irnet["difference"] == pytest.approx(0.75 - 0.25) and irnet[
        "all difference"
    ] == pytest.approx(0.6 - 1 / 3)
    absent = rows.loc["Consolidation", "CAM"]
    assert absent["IoU"] == pytest.approx(0.5) and np.isnan(absent["held-out IoU"])
    assert (
        not isinstance(absent["verdict"], str)
        and absent["reason"] == weak_label_agreement.NOT_HELD_OUT
    )
    mean = rows.loc[weak_label_agreement.MEAN, "CAM"]
    assert mean["IoU"] == pytest.approx((1 / 3 + 1 / 2) / 2) and mean[
        "held-out IoU"
    ] == pytest.approx(1 / 4)
    assert mean["box IoU"] == pytest.approx((1 / 7 + 0.25 / 2.75) / 2)


def test_a_single_patient_decides_nothing(loaded):
    (labels,) = weak_label_agreement.label_sets(loaded)
    row = (
        weak_label_agreement.rows(labels, loaded.pathologies, replicates=50)
        .set_index(["pathology", "labels"])
        .loc["Edema", "IRNet"]
    )
    assert (
        row["verdict"] == weak_label_agreement.UNDECIDED
        and row["reason"] == "only 1 patient"
        and np.isnan(row["from"])
    )


def in_memory(
    intersections: dict[str, list[int]], chosen_on: int = 0, size: int = 20
) -> weak_label_agreement.LabelSet:
    """Return label sets of one pathology with 20 pixels per image; weak labels also have `size`.

    `intersections` gives the pixels that each kind hits; boxes hit 2.
    """
    made = []
    for kind, hits in intersections.items():
        ids = tuple(f"patient{n}_study1_view1_frontal" for n in range(len(hits)))
        counts_IK3 = np.array([[[hit, size, size]] for hit in hits])
        counts = WeakCounts(
            ids, counts_IK3, np.full((len(ids), 1), 2.0), np.arange(len(ids)) < chosen_on
        )
        made.append(WeakLabels(kind, kind, "cam" if kind == "irnet" else None, {}, counts))
    return weak_label_agreement.LabelSet(tuple(made))


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
    rows = weak_label_agreement.rows(labels, ("Edema",)).set_index("labels")
    row = rows[rows["pathology"] == "Edema"].loc["IRNet"]
    assert row["from"] <= row["difference"] <= row["to"]
    assert row["verdict"] == row["all verdict"] == verdict
    assert (row["from"] > 0 or row["to"] < 0) == (verdict != "undecided")
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


def test_equal_labels_differ_by_nothing():
    """Check that paired labels share their draws: independent draws would widen the interval."""
    hits = [6, 2, 9, 0, 4, 7, 5, 3]
    row = weak_label_agreement.rows(in_memory({"cam": hits, "irnet": hits}), ("Edema",)).iloc[1]
    assert (row["difference"], row["from"], row["to"], row["verdict"]) == (
        0,
        0,
        0,
        weak_label_agreement.UNDECIDED,
    )


def test_verdicts_leave_out_what_thresholds_were_chosen_on():
    """Check with IRNet better on the eight images used for thresholds, worse on the others."""
    labels = in_memory({"cam": [6] * 16, "irnet": [19] * 8 + [3] * 8}, chosen_on=8)
    rows = weak_label_agreement.rows(labels, ("Edema",))
    row = rows.iloc[1]
    assert (row["verdict"], row["all difference"] > 0) == (weak_label_agreement.WORSE, True)
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
    rows = weak_label_agreement.rows(weak_label_agreement.LabelSet((cam,)), names).set_index(
        "pathology"
    )
    first = rows.loc[names[0]]
    assert (
        first["p-value"] < 0.05 < first["adjusted p-value"]
        and first["verdict"] == weak_label_agreement.UNDECIDED
        and first["from"] > 0
    )
    assert rows["adjusted p-value"].drop(weak_label_agreement.MEAN).min() == pytest.approx(
        10 * rows["p-value"].drop(weak_label_agreement.MEAN).min()
    )
    assert (
        rows.loc[weak_label_agreement.MEAN, "adjusted p-value"]
        == rows.loc[weak_label_agreement.MEAN, "p-value"]
    )


def test_nothing_held_out_is_said():
    labels = in_memory({"cam": [6] * 8}, chosen_on=8)
    rows = weak_label_agreement.rows(labels, ("Edema",))
    assert rows["reason"].tolist() == [weak_label_agreement.NOTHING_HELD_OUT] * 2
    assert [
        sentence.split(",")[0] for sentence in weak_label_agreement.sentences(labels, rows)
    ] == ["On all 8 masked images"]


def test_sets_tell_what_they_differ_in(tmp_path):
    planned = a_plan("axes: {labels.weak: [cam, irnet], labels.p: [0], classify.epochs: [2, 5]}")
    results = load.study_results(planned, a_store(tmp_path, planned))
    sets = weak_label_agreement.label_sets(results)
    assert [labels.text for labels in sets] == ["classify.epochs 2", "classify.epochs 5"]
    assert [[entry.kind for entry in labels.labels] for labels in sets] == [["cam", "irnet"]] * 2
    assert {"weak-labels", "weak-labels-2", "auroc", "classifiers"} <= set(
        page.every_table(results)
    )


def test_a_set_holds_cams_of_both_kinds_and_irnets_with_theirs():
    def made(key: str, kind: str, start: str | None = None, **settings) -> WeakLabels:
        counts = WeakCounts(
            ("a",), np.ones((1, 1, 3), dtype=np.int64), np.zeros((1, 1)), np.array([False])
        )
        return WeakLabels(
            key, kind, start, {"saliency.kind": kind if start is None else "", **settings}, counts
        )

    study = [made("i", "irnet", "c", **{"irnet.epochs": 1}), made("p", "cam++"), made("c", "cam")]
    study.append(made("j", "irnet", "p", **{"irnet.epochs": 3}))
    results = type("Results", (), {"weak_labels": (*study, made("o", "irnet", "gone"))})
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


def test_auroc_of_each_observation(loaded):
    rows = classifiers.auroc_rows(loaded).set_index("observation")
    names = [name for name in rows.columns if name not in ("competition", "reason")]
    assert names == ["weak labels, densenet121", "encoder, resnet18"]
    assert rows.index.tolist() == [*OBSERVATIONS, weak_label_agreement.MEAN]
    assert rows.loc["Edema", names[0]] == pytest.approx(0.5 + OBSERVATIONS.index("Edema") / 100)
    assert (
        np.isnan(rows.loc["Fracture", names[0]])
        and rows.loc["Fracture", "reason"] == classifiers.ONE_CLASS
    )
    assert rows.loc[weak_label_agreement.MEAN, names[0]] == 0.56
    assert rows.index[rows["competition"] == "yes"].tolist()[:-1] == [
        name for name in OBSERVATIONS if name in COMPETITION
    ]
    undefined = dataclasses.replace(
        loaded.classifiers[0], auroc=dict.fromkeys(OBSERVATIONS), mean_auroc=0.0
    )
    rows = classifiers.auroc_rows(dataclasses.replace(loaded, classifiers=(undefined,)))
    assert rows[names[0]].isna().all(), "a mean of nothing is no 0"


# ---- overlays


def positions(hits: list[int]) -> dict[str, int]:
    return weak_label_overlays.choose(in_memory({"cam": hits}), 0)


def test_best_median_and_worst_with_ties_by_id():
    assert positions([3, 9, 5, 1, 7]) == {"best": 1, "median": 2, "worst": 3}
    assert positions([3, 9, 5, 1]) == {"best": 1, "median": 2, "worst": 3}, (
        "of two in the middle, the higher"
    )
    assert positions([4, 4, 4]) == {"best": 0, "median": 1, "worst": 2}
    assert positions([4, 2]) == {"best": 0, "worst": 1}
    assert positions([4]) == {"only image": 0}
    both = in_memory({"cam": [8, 6, 0], "irnet": [0, 6, 8]})
    assert weak_label_overlays.choose(both, 0) == {"best": 1, "median": 0, "worst": 2}, (
        "by the mean of the kinds"
    )


def test_images_without_an_expert_pixel_are_never_chosen():
    labels = in_memory({"cam": [9, 5, 1]})
    counts_IK3 = labels.labels[0].counts.counts_IK3
    counts_IK3[1, 0] = (0, 20, 0)
    assert weak_label_overlays.choose(labels, 0) == {"best": 0, "worst": 2}
    counts_IK3[:, 0] = (0, 20, 0)
    assert weak_label_overlays.choose(labels, 0) == {}


@pytest.mark.parametrize(("native", "size"), [(4, 128), (10, 320), (3, 50), (10, 176), (7, 7)])
def test_upsampling_is_the_stages(native, size):
    scores_hw = np.random.default_rng(0).random((native, native)).astype(np.float16)
    wanted = weak_masks.upsampled(torch.from_numpy(scores_hw)[None, None], size)[0, 0].numpy()
    assert weak_label_overlays.upsampled(scores_hw.astype(np.float32), size) == pytest.approx(
        wanted, abs=1e-6
    )


def test_heat_is_clear_at_zero_and_lighter_where_there_is_more():
    scores_hw = np.linspace(0, 1, 176, dtype=np.float32)[None].repeat(176, axis=0)
    heat = np.asarray(
        Image.open(io.BytesIO(weak_label_overlays.heat_png(scores_hw))).convert("RGBA"), dtype=float
    )[0]
    assert heat[0, 3] == 0 and heat[-1, 3] == weak_label_overlays.OPACITY
    assert (np.diff(heat[:, 3]) >= 0).all()
    luminance = heat[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1).all() and luminance[-1] - luminance[0] > 150


def test_outline_shows_on_black_and_on_white():
    mask_HW = np.zeros((64, 64), dtype=bool)
    mask_HW[20:40, 20:40] = True
    layer = Image.open(io.BytesIO(weak_label_overlays.outline_png(mask_HW))).convert("RGBA")
    for ground in ("black", "white"):
        film = Image.new("RGBA", layer.size, ground)
        before = np.asarray(film.convert("L"), dtype=int)
        film.alpha_composite(layer)
        assert np.abs(np.asarray(film.convert("L"), dtype=int) - before).max() > 100


# ---- the page


def test_page_shows_figures_and_overlays(loaded, tmp_path):
    written = page.publish([loaded], tmp_path, images=False)
    text = written.page.read_text()
    assert "On the 2 held-out images, IRNet improves" in text and "Random box" in text
    # Edema on two images, Consolidation on one; six panels each.
    assert text.count('<div class="film ') == 6 * 3
    assert text.count("<details open>") == 1 and "only 1 patient" in text
    assert "CAM thresholds were chosen on it" in text and "held out" in text
    names = {path.name for path in written.files}
    assert {
        "weak-weak-labels.csv",
        "weak-weak-labels.md",
        "weak-auroc.csv",
        "weak-classifiers.md",
    } <= names


def test_cams_alone_have_no_panels_of_irnet(tmp_path):
    planned = a_plan("axes: {labels.weak: [cam], labels.p: [0]}")
    results = load.study_results(planned, a_store(tmp_path, planned))
    text = page.render([results])
    assert text.count('<div class="film ') == 4 * 3 and "Boundary map" not in text
    assert "On the 2 held-out images, CAM beats" in text


def test_unmade_artifacts_are_said_to_be_so(tmp_path):
    planned = a_plan()
    half = load.study_results(planned, a_store(tmp_path / "half", planned, STAGES[:-1]))
    text = page.render([half])
    assert (
        "No figures for the study’s IRNet labels: not finished yet" in text
        and "CAM beats a random box" in text
    )
    nothing = page.render([load.study_results(planned, Store(tmp_path / "nothing"))])
    assert "CAM labels: not finished yet" in nothing and "<h2>Classifiers" not in nothing


def test_without_the_images_and_with_unreadable_maps(loaded):
    bare = [dataclasses.replace(labels, image=None) for labels in loaded.weak_labels]
    assert "the images aren’t at hand" in page.render(
        [dataclasses.replace(loaded, weak_labels=tuple(bare))]
    )

    def unreadable(image_id: str):
        raise KeyError(f"<{image_id}>")

    damaged = [dataclasses.replace(labels, maps=unreadable) for labels in loaded.weak_labels]
    text = page.render([dataclasses.replace(loaded, weak_labels=tuple(damaged))])
    assert "IRNet can&#x27;t be read" in text and "<patient1" not in text
