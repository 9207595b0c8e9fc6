"""Test the classifier's published choices: input, uncertain labels, checkpoints, first weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from chexseg.data import chexpert, images, radiographs, shards
from chexseg.models import classifier, encoders, losses
from chexseg.pathologies import COMPETITION, OBSERVATIONS, PATHOLOGIES, observation_indices
from chexseg.run import encoder_import
from chexseg.stages import classify, ingest, moco, pretrain, saliency
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS, ENCODER_WEIGHTS, HISTORY, ROC
from chexseg.stages.configs import (
    ClassifyConfig,
    IngestConfig,
    MoCoConfig,
    PretrainConfig,
    SaliencyConfig,
)
from chexseg.store.store import Store

from .conftest import CONTEXT, EXPERT, RESIDENT_AND_STREAMED, SIZE

PUBLISHED = ClassifyConfig(
    architecture="resnet18",
    epochs=1,
    batch_size=8,
    uncertainty="ignore",
    geometry="crop",
    normalisation="imagenet",
    checkpoints_per_epoch=3,
    auroc_over="studies",
)


@pytest.fixture(scope="module")
def strips(phantom_root, tmp_path_factory) -> dict[str, Path]:
    out = {}
    for split in ("train", "valid"):
        out[split] = tmp_path_factory.mktemp(f"{split}-strips")
        config = IngestConfig(split=split, size=SIZE, geometry="short-side")
        facts = ingest.run(config, {"data": phantom_root}, out[split], CONTEXT)
        assert (facts["with_masks"], facts["longer_than_strip"]) == (0, 0)
    return out


@pytest.fixture(scope="module")
def cropping(strips, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("crops")
    return out, classify.run(PUBLISHED, strips, out, CONTEXT)


def test_strips_hold_the_same_images_in_the_same_shards(strips, results, phantom_root):
    for split, artifact in strips.items():
        padded = results.paths[split]
        assert radiographs.index(artifact).equals(radiographs.index(padded))
        for one, other in zip(
            shards.files(artifact / "images"), shards.files(padded / "images"), strict=True
        ):
            assert (Path(one).name, radiographs.ids(artifact / "images")) == (
                Path(other).name,
                radiographs.ids(padded / "images"),
            )
    paths = chexpert.read(phantom_root, "train").set_index("image_id")["path"]
    image_id = paths.index[0]
    raw = images.decode(paths[image_id])
    stored = radiographs.pixels(strips["train"], [image_id])[0].numpy()
    np.testing.assert_array_equal(stored, images.Strip(*raw.shape, SIZE).image(raw))


def test_a_classifier_of_crops_says_what_it_has_learned_from(cropping, results):
    described = json.loads((cropping[0] / "classifier.json").read_text())
    assert (described["geometry"], described["normalisation"]) == ("crop", "imagenet")
    default = json.loads((results.paths["classify"] / "classifier.json").read_text())
    assert default.keys() == {"architecture", "observations"}


def naive_crop(raw_HW: np.ndarray) -> torch.Tensor:
    """Return the central square of the short side, resized, as ImageNet's normalised channels."""
    height, width = raw_HW.shape
    scale = SIZE / min(height, width)
    picture = Image.fromarray(raw_HW).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
    )
    left, top = (picture.width - SIZE) // 2, (picture.height - SIZE) // 2
    square = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE))) / 255
    channels = [
        (square - mean) / deviation
        for mean, deviation in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ]
    return torch.from_numpy(np.stack(channels)).float()


def test_cams_and_the_checkpoints_auroc_come_from_central_crops(
    cropping, strips, results, phantom_root, tmp_path
):
    path, facts = cropping
    inputs = {name: results.paths[name] for name in ("train", "valid")}
    inputs |= {f"{name}_strips": artifact for name, artifact in strips.items()}
    config = SaliencyConfig(architecture="resnet18", images=16, **EXPERT)
    mapped = saliency.run(config, {**inputs, "classifier": path}, tmp_path, CONTEXT)
    assert mapped["images"] == 16
    model = classifier.build("resnet18")
    encoders.load(model, path / CLASSIFIER_WEIGHTS)
    model.eval()
    table = chexpert.read(phantom_root, "valid")
    with torch.inference_mode():
        raw = [images.decode(name) for name in table["path"]]
        probabilities = torch.cat([model(naive_crop(one)[None]).sigmoid() for one in raw])
    # The stored checkpoint's AUROC, again: the best of CheXpert's five tasks, by study.
    scores = classify.auroc(
        *classify.by_study(
            table["image_id"].tolist(), probabilities.numpy(), radiographs.labels(table)
        )
    )
    means = [scores[name] for name in COMPETITION if scores[name] is not None]
    assert facts["mean_auroc"] == pytest.approx(np.mean(means), abs=1e-3)
    for name, (false, true) in json.loads((path / ROC).read_text()).items():
        assert np.trapezoid(true, false) == pytest.approx(facts["auroc"][name]), name
    history = json.loads((path / HISTORY).read_text())
    (best,) = [entry for entry in history if entry["step"] == facts["step"]]
    assert best["mean_auroc"] == facts["mean_auroc"] == max(e["mean_auroc"] for e in history)
    assert best["loss"] == facts["loss"]
    # CAMs: the crop's probabilities, and no score where the crop doesn't reach.
    ids = radiographs.ids(tmp_path / "valid")
    stored = radiographs.arrays(tmp_path / "valid", "probabilities", ids)
    rows = [table["image_id"].tolist().index(image_id) for image_id in ids]
    expected = probabilities[rows][:, observation_indices(PATHOLOGIES)]
    torch.testing.assert_close(stored, expected, atol=1e-4, rtol=1e-4)
    maps = radiographs.arrays(tmp_path / "valid", "scores", ids).float()
    assert maps.shape[2:] == (SIZE // 4, SIZE // 4)
    outside = np.zeros(maps.shape[2:])
    for row, map_Khw in zip(rows, maps, strict=True):
        top, left, high, wide = images.Strip(*raw[row].shape, SIZE).centre_in_frame()
        for y in range(SIZE // 4):
            for x in range(SIZE // 4):
                inside = top <= 4 * y + 2 <= top + high and left <= 4 * x + 2 <= left + wide
                outside[y, x] += not inside
                assert inside or not map_Khw[:, y, x].any()
    assert outside.any() and maps.any()


@pytest.mark.heavy
@RESIDENT_AND_STREAMED
def test_a_killed_training_on_crops_resumes_to_the_same_weights(strips, tmp_path, resident_bytes):
    class Killed(Exception):
        pass

    def kill(done, total, unit, note=None):
        if done == 2 * 16 and "loss" in (note or {}):
            raise Killed

    context = replace(CONTEXT, resident_bytes=resident_bytes)
    config = PUBLISHED.model_copy(update={"batch_size": 16, "architecture": "mobilenet_v2"})
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    facts = classify.run(config, strips, quiet, context)
    with pytest.raises(Killed):
        classify.run(config, strips, killed, replace(context, progress=kill))
    assert classify.run(config, strips, killed, context) == facts
    first, second = (load_file(path / CLASSIFIER_WEIGHTS) for path in (quiet, killed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_uncertain_labels_are_masked_out_of_the_loss():
    random = np.random.default_rng(0)
    labels = random.choice([1.0, 0.0, -1.0, math.nan], (6, len(OBSERVATIONS))).astype(np.float32)
    logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    loss = losses.classification(logits, torch.from_numpy(chexpert.targets(labels, "ignore")))
    loss.backward()
    total, count = 0.0, 0
    for n in range(6):
        for k in range(len(OBSERVATIONS)):
            if labels[n, k] == -1:
                assert logits.grad[n, k] == 0
                continue
            probability = 1 / (1 + math.exp(-logits[n, k].item()))
            total -= math.log(probability if labels[n, k] == 1 else 1 - probability)
            count += 1
    assert 0 < count < labels.size
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "batch_size", "parts"), [(1000, 16, 10), (48, 8, 10), (97, 5, 4)]
)
def test_a_checkpoint_is_the_first_step_after_each_part_of_an_epoch(count, batch_size, parts):
    config = ClassifyConfig(batch_size=batch_size, checkpoints_per_epoch=parts)
    expected, seen, upcoming = [], 0, count / parts
    for step in range(1, 3 * count // batch_size + 1):
        seen += batch_size
        if seen >= upcoming - 1e-9:
            expected.append(step)
            while seen >= upcoming - 1e-9:
                upcoming += count / parts
    steps = range(1, 3 * count // batch_size + 1)
    assert [step for step in steps if classify.is_checkpoint(config, step, count)] == expected
    # The last step is a checkpoint too, whether or not it reaches the last part.
    assert len(expected) >= min(3 * parts, len(steps)) - 1


def test_the_area_below_a_roc_curve_is_the_auroc():
    random = np.random.default_rng(2)
    scores = random.integers(0, 9, (60, len(OBSERVATIONS))) / 9  # with ties
    labels = random.choice([1.0, 0.0, -1.0, math.nan], scores.shape)
    labels[:, 0], labels[:, 1] = 1.0, math.nan
    curves, areas = classify.roc(scores, labels), classify.auroc(scores, labels)
    assert curves.keys() == {name for name, area in areas.items() if area is not None}
    assert len(curves) == len(OBSERVATIONS) - 2
    for name, (false, true) in curves.items():
        assert (false[0], true[0]) == (0, 0) and (false[-1], true[-1]) == (1, 1)
        assert np.trapezoid(true, false) == pytest.approx(areas[name])
        slopes = np.arctan2(np.diff(true), np.diff(false))
        assert np.abs(np.diff(slopes)).min() > 1e-9, "no point on a line between two others"


def test_a_studys_score_is_the_maximum_of_its_views():
    ids = [
        "patient1_study1_view1_frontal",
        "patient1_study1_view2_lateral",
        "patient1_study11_view1_frontal",
        "patient11_study1_view1_frontal",
        "film7",
    ]
    assert [chexpert.study(image_id) for image_id in ids] == [
        "patient1_study1",
        "patient1_study1",
        "patient1_study11",
        "patient11_study1",
        "film7",
    ]
    random = np.random.default_rng(1)
    scores = random.random((5, len(OBSERVATIONS)), dtype=np.float32)
    labels = np.repeat(random.choice([1.0, 0.0, math.nan], (4, 14)), [2, 1, 1, 1], axis=0)
    by_study, study_labels = classify.by_study(ids, scores, labels)
    views = [[0, 1], [2], [3], [4]]
    for s, rows in enumerate(views):
        for k in range(len(OBSERVATIONS)):
            assert by_study[s, k] == max(scores[row, k] for row in rows)
            np.testing.assert_equal(study_labels[s, k], labels[rows[0], k])
    computed = classify.auroc(by_study, study_labels)
    for k, name in enumerate(OBSERVATIONS):
        wins = [
            1.0 if by_study[a, k] > by_study[b, k] else 0.5 * (by_study[a, k] == by_study[b, k])
            for a in range(4)
            for b in range(4)
            if study_labels[a, k] == 1 and study_labels[b, k] == 0
        ]
        assert computed[name] == (pytest.approx(sum(wins) / len(wins)) if wins else None)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, tuple[Path, dict[str, torch.Tensor]]]:
    """Return architecture -> (directory of its import, weights in the file by torchvision's names).

    The files are as torchvision publishes them; DenseNet's with the names of old versions.
    """
    root, out = tmp_path_factory.mktemp("imagenet"), {}
    store = Store(root / "store")
    for seed, architecture in enumerate(("densenet121", "resnet18")):
        torch.manual_seed(seed)
        state = getattr(torchvision.models, architecture)(weights=None).state_dict()
        old = {
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")
            if "denselayer" in name
            else name: value
            for name, value in state.items()
        }
        torch.save(old, root / f"{architecture}.pth")
        done = encoder_import.import_encoder(
            root / f"{architecture}.pth", "imagenet", architecture, store
        )
        out[architecture] = done.artifact.path, state
    return out


def same_filters(weights: dict[str, torch.Tensor], prefix: str, state: dict) -> bool:
    """Return whether all convolutions in the file are in the weights, up to a vanishing step."""
    filters = [name for name, value in state.items() if value.ndim == 4]
    assert len(filters) >= 20
    return all(
        torch.allclose(weights[prefix + name.removeprefix("features.")], state[name], atol=1e-6)
        for name in filters
    )


VANISHING = {"epochs": 1, "learning_rate": 1e-12, "batch_size": 24}


@pytest.mark.parametrize("architecture", ["densenet121", "resnet18"])
def test_a_classifier_starts_from_the_imported_weights(imported, results, tmp_path, architecture):
    path, state = imported[architecture]
    inputs = {"train": results.paths["train"], "valid": results.paths["valid"]}
    config = ClassifyConfig(architecture=architecture, init="imagenet", **VANISHING)
    classify.run(config, {**inputs, "encoder": path}, tmp_path, CONTEXT)
    weights = load_file(tmp_path / CLASSIFIER_WEIGHTS)
    assert same_filters(weights, "body.", state)
    torch.manual_seed(9)
    assert not same_filters(classifier.build(architecture).state_dict(), "body.", state)


def test_an_encoders_pretraining_starts_from_the_imported_weights(imported, results, tmp_path):
    path, state = imported["resnet18"]
    inputs = {"train": results.paths["train"], "valid": results.paths["valid"], "encoder": path}
    pretrain.run(PretrainConfig(init="imagenet", **VANISHING), inputs, tmp_path, CONTEXT)
    assert same_filters(load_file(tmp_path / ENCODER_WEIGHTS), "", state)


def test_moco_starts_from_the_imported_weights_in_both_networks(
    imported, results, tmp_path, monkeypatch
):
    path, state = imported["resnet18"]
    inputs, made = {"train": results.paths["train"], "encoder": path}, []
    network = moco.moco.MoCo
    monkeypatch.setattr(moco.moco, "MoCo", lambda *args: made.append(network(*args)) or made[0])
    moco.run(MoCoConfig(init="imagenet", **VANISHING), inputs, tmp_path, CONTEXT)
    assert same_filters(load_file(tmp_path / ENCODER_WEIGHTS), "", state)
    assert same_filters(made[0].key.module.state_dict(), "body.", state)
