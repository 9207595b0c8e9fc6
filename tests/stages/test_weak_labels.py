"""Classify, saliency and irnet on the phantom: what they write is what they say."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from chexseg.data import radiographs, shards
from chexseg.data.masks.random_square import expected_intersection
from chexseg.data.sampling import splits
from chexseg.models import classifier, encoders
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation_indices
from chexseg.saliency import gradcam, instances, random_walk
from chexseg.saliency.weak_masks import possibly_present, weak_masks
from chexseg.stages import classify, irnet, saliency
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS, COUNTS, IRNET_WEIGHTS, THRESHOLDS
from chexseg.stages.configs import ClassifyConfig, IRNetConfig, SaliencyConfig

from .conftest import CONTEXT, EXPERT, SIZE


def test_auroc_is_the_chance_that_a_positive_outranks_a_negative():
    generator = np.random.default_rng(0)
    scores_NL = generator.integers(0, 6, (60, len(OBSERVATIONS))) / 5  # with ties
    labels_NL = generator.choice([1, 0, -1, np.nan], (60, len(OBSERVATIONS)))
    labels_NL[:, 3] = 0
    found = classify.auroc(scores_NL, labels_NL)
    for column, name in enumerate(OBSERVATIONS):
        positive = scores_NL[labels_NL[:, column] == 1, column]
        negative = scores_NL[labels_NL[:, column] == 0, column]
        pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
        if not pairs:
            assert found[name] is None
        else:
            assert abs(found[name] - np.mean(pairs)) < 1e-12


def test_the_classifier_in_the_store_has_the_auroc_it_claims(results):
    model = classifier.build("densenet121")
    encoders.load(model, results.paths["classify"] / CLASSIFIER_WEIGHTS)
    table = radiographs.index(results.paths["valid"])
    pixels = radiographs.pixels(results.paths["valid"], table["image_id"].tolist())
    model.eval()
    with torch.inference_mode():
        scores = model(encoders.prepare(pixels, "chexpert")).sigmoid().numpy()
    claimed = results.facts["classify"]["auroc"]
    for name, value in classify.auroc(scores, radiographs.labels(table)).items():
        assert (value is None) == (claimed[name] is None)
        assert value is None or abs(value - claimed[name]) < 0.02


def grad_cam_by_autograd(features_NCHW: torch.Tensor, logits_NK: torch.Tensor) -> torch.Tensor:
    """Return Grad-CAM maps_NKHW by one backward pass per pathology."""
    maps = []
    for k in range(logits_NK.shape[1]):
        (gradient_NCHW,) = torch.autograd.grad(
            logits_NK[:, k].sum(), features_NCHW, retain_graph=True
        )
        alpha_NC11 = gradient_NCHW.mean((2, 3), keepdim=True)
        maps.append((alpha_NC11 * features_NCHW.detach()).sum(1).relu())
    return torch.stack(maps, dim=1)


def test_stored_maps_are_the_grad_cams_of_their_images(results):
    directory = results.paths["saliency"] / "train"
    ids = radiographs.ids(directory)
    assert len(ids) == 32 == results.facts["saliency"]["images"]
    assert not any("lateral" in image_id for image_id in ids)
    scores = radiographs.load_cached(directory, "scores", ids[:4])
    model = classifier.build("densenet121")
    encoders.load(model, results.paths["classify"] / CLASSIFIER_WEIGHTS)
    model.eval()
    features = model.feature_map(
        encoders.prepare(radiographs.pixels(results.paths["train"], ids[:4]), "chexpert")
    )
    logits = model.head(features.mean(dim=(2, 3)))[:, observation_indices(PATHOLOGIES)]
    expected = gradcam.normalise(grad_cam_by_autograd(features, logits)).detach().numpy()
    np.testing.assert_allclose(scores.float().numpy(), expected, atol=2e-3)


def test_chosen_thresholds_are_the_best_of_all_tried(results):
    facts = results.facts["saliency"]
    assert json.loads((results.paths["saliency"] / THRESHOLDS).read_text()) == facts["thresholds"]
    valid = results.paths["valid"]
    ids, patients = zip(*radiographs.mask_index(valid), strict=True)
    train, _ = splits.expert_split(
        ids, patients, EXPERT["expert_train"], EXPERT["expert_select"], 0
    )
    scores = radiographs.load_cached(results.paths["saliency"] / "valid", "scores", train)
    true = radiographs.unpack_bits(
        radiographs.expert_masks(valid, train, PATHOLOGIES, SIZE), (len(PATHOLOGIES), SIZE, SIZE)
    )
    table = radiographs.index(valid).set_index("image_id").loc[train]
    present = possibly_present(torch.from_numpy(radiographs.labels(table, PATHOLOGIES)))
    for k, name in enumerate(PATHOLOGIES):
        if not true[:, k].any():
            assert facts["expert_train_iou"][name] is None
            continue
        best = 0.0
        for threshold in np.arange(0, 1, 0.05):
            mask = weak_masks(
                scores, torch.full((len(PATHOLOGIES),), float(threshold)), present, SIZE
            )[:, k]
            best = max(best, float((mask & true[:, k]).sum() / (mask | true[:, k]).sum()))
        assert abs(facts["expert_train_iou"][name] - best) < 1e-6


def test_irnet_scores_are_stride_4_scaled_and_beside_their_threshold(results):
    directory = results.paths["irnet"] / "train"
    ids = radiographs.ids(directory)
    assert ids == radiographs.ids(results.paths["saliency"] / "train")
    scores = radiographs.load_cached(directory, "scores", ids)
    assert scores.shape == (32, len(PATHOLOGIES), SIZE // 4, SIZE // 4)
    assert scores.dtype == torch.float16
    assert set(scores.amax(dim=(2, 3)).unique().tolist()) <= {0.0, 1.0}
    note = shards.metadata(shards.files(directory)[0])
    assert note["thresholds"] == dict.fromkeys(PATHOLOGIES, 0.6)
    assert note["kind"] == "irnet"


def test_irnet_scores_by_instance_where_the_study_asks_for_it(results, tmp_path, monkeypatch):
    def halves(displacement_N2hw):
        # So small a network's field has one instance, which would be the class-wise walk again.
        return (
            (torch.arange(displacement_N2hw.shape[-1]) >= 8)
            .long()
            .add(1)
            .expand_as(displacement_N2hw[:, 0])
        )

    monkeypatch.setattr(instances, "instance_map", halves)
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    config = IRNetConfig(
        architecture="resnet18", epochs=1, images=8, radius=3, batch_size=8, instances=True
    )
    irnet.run(config, inputs, tmp_path, CONTEXT)
    ids = radiographs.ids(tmp_path / "valid")
    model = irnet.build(config).eval()
    encoders.load(model, tmp_path / IRNET_WEIGHTS)
    pixels = radiographs.pixels(results.paths["valid"], ids)
    boundary, displacement = model.predict(encoders.prepare(pixels, config.init))
    maps = radiographs.load_cached(results.paths["saliency"] / "valid", "scores", ids).float()
    maps = torch.nn.functional.interpolate(maps, size=boundary.shape[-2:], mode="bilinear")
    expected = instances.instance_wise_cams(maps, boundary, halves(displacement), config.foreground)
    found = radiographs.load_cached(tmp_path / "valid", "scores", ids).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    class_wise = gradcam.normalise(random_walk.propagate(maps, boundary))
    assert (found - class_wise).abs().max() > 0.05


def test_finished_files_are_kept_and_missing_ones_made_again(results, tmp_path):
    out = tmp_path / "saliency"
    config = SaliencyConfig(images=32, **EXPERT)
    inputs = {name: results.paths[name] for name in ("train", "valid")} | {
        "classifier": results.paths["classify"]
    }
    out.mkdir()
    saliency.run(config, inputs, out, CONTEXT)
    for path in shards.files(out / "train"):
        kept = results.paths["saliency"] / "train" / path.rpartition("/")[2]
        assert shards.read(path).equals(shards.read(kept))
    first = out / "train" / shards.part_name(0)
    before = first.stat().st_mtime_ns
    facts = saliency.run(config, inputs, out, CONTEXT)
    assert first.stat().st_mtime_ns == before
    assert facts == results.facts["saliency"]
    first.unlink()
    saliency.run(config, inputs, out, CONTEXT)
    assert first.exists()


def test_grad_cam_plus_plus_is_a_kind_with_maps_and_thresholds_of_its_own(results, tmp_path):
    config = SaliencyConfig(kind="cam++", images=16, **EXPERT)
    inputs = {name: results.paths[name] for name in ("train", "valid")} | {
        "classifier": results.paths["classify"]
    }
    saliency.run(config, inputs, tmp_path, CONTEXT)
    assert shards.metadata(shards.files(tmp_path / "train")[0])["kind"] == "cam++"
    ids = radiographs.ids(tmp_path / "train")
    model = classifier.build("densenet121")
    encoders.load(model, results.paths["classify"] / CLASSIFIER_WEIGHTS)
    model.eval()
    chosen = observation_indices(PATHOLOGIES)
    with torch.inference_mode():
        features = model.feature_map(
            encoders.prepare(radiographs.pixels(results.paths["train"], ids), "chexpert")
        )
        expected = gradcam.normalise(
            gradcam.grad_cam_plus_plus(features, model.head.weight[chosen])
        )
        other = gradcam.normalise(gradcam.closed_form(features, model.head.weight[chosen]))
    found = radiographs.load_cached(tmp_path / "train", "scores", ids).float()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    assert (found - other).abs().max() > 0.05


def test_lateral_views_get_maps_only_where_they_are_asked_for(results, tmp_path):
    rows = shards.read(shards.files(results.paths["train"] / "images")[0]).slice(0, 8)
    place = rows.column_names.index("frontal")
    rows = rows.set_column(place, "frontal", pa.array([True, False] * 4))
    (tmp_path / "train" / "images").mkdir(parents=True)
    shards.write(tmp_path / "train" / "images" / shards.part_name(0), rows)
    inputs = {
        "train": tmp_path / "train",
        "valid": results.paths["valid"],
        "classifier": results.paths["classify"],
    }
    ids = rows["image_id"].to_pylist()
    for frontal_only, expected in ((True, ids[::2]), (False, ids)):
        out = tmp_path / str(frontal_only)
        out.mkdir()
        saliency.run(SaliencyConfig(frontal_only=frontal_only, **EXPERT), inputs, out, CONTEXT)
        assert radiographs.ids(out / "train") == expected


@pytest.mark.parametrize("stage", ["saliency", "irnet"])
def test_counts_are_those_of_the_masks_that_a_segmenter_would_see(results, stage):
    """By plain loops over images and pathologies, from the stored scores, thresholds and labels."""
    directory, valid = results.paths[stage], results.paths["valid"]
    rows = shards.read(directory / COUNTS).to_pandas().set_index(["image_id", "pathology"])
    ids, patients = zip(*radiographs.mask_index(valid), strict=True)
    assert rows.index.tolist() == [(image_id, name) for image_id in ids for name in PATHOLOGIES]
    thresholds = json.loads((directory / THRESHOLDS).read_text())
    table = radiographs.index(valid).set_index("image_id")
    train, _ = splits.expert_split(
        ids, patients, EXPERT["expert_train"], EXPERT["expert_select"], 0
    )
    scores = radiographs.load_cached(directory / "valid", "scores", ids).float()
    masks = radiographs.unpack_bits(
        radiographs.expert_masks(valid, ids, PATHOLOGIES, SIZE), (len(PATHOLOGIES), SIZE, SIZE)
    )
    totals = dict.fromkeys(PATHOLOGIES, (0, 0))
    seen = 0
    for n, image_id in enumerate(ids):
        for k, name in enumerate(PATHOLOGIES):
            large = torch.nn.functional.interpolate(
                scores[n, k][None, None], size=(SIZE, SIZE), mode="bilinear"
            )[0, 0]
            positive = table.loc[image_id, OBSERVATIONS[observation_indices([name])[0]]] in (1, -1)
            weak = (
                (large > thresholds[name])
                if positive
                else torch.zeros(SIZE, SIZE, dtype=torch.bool)
            )
            row = rows.loc[(image_id, name)]
            counted = [int((weak & masks[n, k]).sum()), int(weak.sum()), int(masks[n, k].sum())]
            assert row[["intersection", "predicted", "true"]].tolist() == counted
            box = float(expected_intersection(masks[n, k].numpy(), np.array(counted[1])))
            assert row["box"] == pytest.approx(box)
            assert row["chosen_on"] == (image_id in train)
            shared, union = totals[name]
            totals[name] = (shared + counted[0], union + counted[1] + counted[2] - counted[0])
            seen += counted[0] > 0
    assert seen > 0
    for name, (shared, union) in totals.items():
        assert results.facts[stage]["valid_iou"][name] == (
            pytest.approx(shared / union) if union else None
        )


def test_boundary_maps_of_valid_are_kept_for_the_report(results):
    note = shards.metadata(shards.files(results.paths["irnet"] / "valid")[0])
    assert note["arrays"]["boundary"] == {"dtype": "uint8", "shape": [SIZE // 4, SIZE // 4]}
    assert (
        "boundary"
        not in shards.metadata(shards.files(results.paths["irnet"] / "train")[0])["arrays"]
    )


def test_uncertain_labels_can_have_a_policy_for_each_observation(results, tmp_path):
    with pytest.raises(
        ValidationError,
        match=r"no such observation: Edem \(did you mean 'Edema'\?\); allowed: No Finding, ",
    ):
        ClassifyConfig(uncertainty={"Edem": "ones"})
    with pytest.raises(ValidationError, match="no such policy; allowed: ignore"):
        ClassifyConfig(uncertainty={"Edema": "maybe"})
    given = {name: results.paths[name] for name in ("train", "valid")}
    weights = []
    for number, policy in enumerate(({"Edema": "ones", "Atelectasis": "ignore"}, "zeros")):
        out = tmp_path / str(number)
        out.mkdir()
        classify.run(
            ClassifyConfig(architecture="resnet18", epochs=1, uncertainty=policy),
            given,
            out,
            CONTEXT,
        )
        weights.append(load_file(out / CLASSIFIER_WEIGHTS)["head.weight"])
    assert not torch.equal(*weights)


def test_bfloat16_is_another_precision_of_the_same_training(results, tmp_path):
    given = {name: results.paths[name] for name in ("train", "valid")}
    losses, dtypes = [], set()
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        out.mkdir()
        config = ClassifyConfig(architecture="resnet18", epochs=1, precision=precision)
        losses.append(classify.run(config, given, out, CONTEXT)["loss"])
        dtypes |= {
            value.dtype
            for value in load_file(out / CLASSIFIER_WEIGHTS).values()
            if value.is_floating_point()
        }
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.05)
    assert dtypes == {torch.float32}


def test_the_history_of_irnet_has_the_means_of_equal_parts(monkeypatch):
    monkeypatch.setattr(irnet, "POINTS", 2)
    history = [{"total": float(n), "boundary": 2.0 * n} for n in range(1, 6)]
    assert irnet.mean_losses(history) == [
        {"step": 3, "loss": 2.0, "boundary": 4.0},
        {"step": 5, "loss": 4.5, "boundary": 9.0},
    ]
