"""Test each setting of IRNet that has a published value, against the stage's stored results."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from chexseg.data import radiographs, shards
from chexseg.data.images import Strip
from chexseg.data.sampling import splits
from chexseg.models import augmentation, encoders, irnet_losses
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency import centre_crop, dense_crf, random_walk
from chexseg.saliency.weak_masks import possibly_present, weak_masks
from chexseg.seeds import derive
from chexseg.stages import irnet
from chexseg.stages.artifacts import COUNTS, ENCODER_WEIGHTS, IRNET_WEIGHTS, THRESHOLDS
from chexseg.stages.configs import IRNetConfig

from .conftest import CONTEXT, SIZE

SMALL = {"architecture": "resnet18", "epochs": 1, "images": 16, "radius": 4, "batch_size": 8}


@pytest.fixture
def inputs(results):
    return {name: results.paths[name] for name in ("train", "valid", "saliency")}


@pytest.fixture
def examples(monkeypatch):
    """Return a list that gets (seeds, radius) of each training step."""
    seen = []
    for name, losses in irnet.LOSSES.items():

        def watched(boundary, displacement, seeds, radius, losses=losses, name=name):
            seen.append((name, seeds.clone(), radius))
            return losses(boundary, displacement, seeds, radius)

        monkeypatch.setitem(irnet.LOSSES, name, watched)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 1e-4, "weight_decay": 0.0, "schedule": "constant", "learning_rate": 0.01},
    ],
)
def test_the_optimiser_is_plain_sgd(inputs, tmp_path, monkeypatch, settings):
    """Every weight after each step, by the formula, from the gradients of that step."""
    config = IRNetConfig(**SMALL, **settings)
    steps = []
    step = torch.optim.SGD.step

    def watched(optimizer, *arguments, **options):
        groups = [[p for p in g["params"] if p.grad is not None] for g in optimizer.param_groups]
        before = [[(p.detach().clone(), p.grad.clone()) for p in group] for group in groups]
        answer = step(optimizer, *arguments, **options)
        steps.append((before, [[p.detach().clone() for p in group] for group in groups]))
        return answer

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    irnet.train(config, inputs, tmp_path, CONTEXT)
    assert len(steps) == 2
    velocity = {}
    for number, (before, after) in enumerate(steps):
        rate = config.learning_rate
        if config.schedule == "polynomial":
            rate *= (1 - number / len(steps)) ** 0.9
        for g, (olds, news) in enumerate(zip(before, after, strict=True)):
            for i, ((weight, gradient), new) in enumerate(zip(olds, news, strict=True)):
                slope = gradient + config.weight_decay * weight
                velocity[g, i] = config.momentum * velocity.get((g, i), 0) + slope
                group_rate = 10 * rate if g == 1 else rate  # the displacement branch
                torch.testing.assert_close(new, weight - group_rate * velocity[g, i])


def cams(inputs, ids):
    maps = radiographs.load_cached(inputs["saliency"] / "train", "scores", ids).float()
    return interpolate(maps, size=(SIZE // 4, SIZE // 4), mode="bilinear")


@pytest.mark.parametrize("classes", ["present", "all"])
def test_seeds_are_of_the_classes_of_the_setting(inputs, tmp_path, examples, classes):
    config = IRNetConfig(
        **{**SMALL, "images": 32, "batch_size": 32},
        seed_classes=classes,
        foreground=0.25,
        background=0.1,
    )
    irnet.train(config, inputs, tmp_path, CONTEXT)
    ((_, seeds, radius),) = examples
    assert radius == 4
    ids = radiographs.ids(inputs["saliency"] / "train")
    table = radiographs.index(inputs["train"]).set_index("image_id").loc[ids]
    labels = torch.from_numpy(radiographs.labels(table, PATHOLOGIES))
    maps = cams(inputs, ids)
    expected = set()
    for n in range(len(ids)):
        one = torch.full(maps.shape[1:], 255, dtype=torch.uint8)
        for k in range(len(PATHOLOGIES)):
            if classes == "all" or labels[n, k].item() in (1, -1):
                one[k][maps[n, k] > 0.25] = 1
                one[k][maps[n, k] < 0.1] = 0
        expected.add(one.numpy().tobytes())
    assert {one.numpy().tobytes() for one in seeds} == expected
    used = (seeds != 255).flatten(2).any(2)
    assert used.all() if classes == "all" else not used.all()


@pytest.mark.parametrize("lengths", ["absolute", "relative"])
def test_both_seeds_of_each_class_go_through_the_crf(inputs, tmp_path, examples, lengths):
    config = IRNetConfig(
        **{**SMALL, "images": 6, "batch_size": 6}, crf=True, seed_classes="all", lengths=lengths
    )
    irnet.train(config, inputs, tmp_path, CONTEXT)
    ((_, seeds, _),) = examples
    ids = splits.sample(radiographs.ids(inputs["saliency"] / "train"), 6, 0, "irnet images")
    maps = radiographs.load_cached(inputs["saliency"] / "train", "scores", ids).float()
    large = interpolate(maps, size=(SIZE, SIZE), mode="bilinear")
    pixels = radiographs.pixels(inputs["train"], ids)
    expected, moved = set(), 0
    for n in range(len(ids)):
        one = torch.full((10, SIZE // 4, SIZE // 4), 255, dtype=torch.uint8)
        scale = SIZE / 320 if lengths == "relative" else 1
        above, possible = (
            dense_crf.refine(pixels[n], large[n] > limit, scale)[:, 2::4, 2::4]
            for limit in (0.3, 0.05)
        )
        one[~possible] = 0
        one[above] = 1
        moved += int((above != (large[n, :, 2::4, 2::4] > 0.3)).sum())
        expected.add(one.numpy().tobytes())
    assert {one.numpy().tobytes() for one in seeds} == expected
    assert moved > 100 and (seeds == 1).any() and (seeds == 0).any()


def test_seeds_after_the_crf_are_augmented_with_their_images(inputs, tmp_path, examples):
    """Views of the seeds have the same three values, and ignore what lies outside the image."""
    config = IRNetConfig(
        **{**SMALL, "batch_size": 4, "images": 8},
        crf=True,
        lengths="relative",
        seed_classes="all",
        smallest_scale=0.5,
    )
    irnet.train(config, inputs, tmp_path, CONTEXT)
    for _, seeds, _ in examples:
        assert set(seeds.unique().tolist()) == {0, 1, 255}
        ignored = (seeds == 255).all(1)
        assert ignored.any() and not ignored.all()


def test_an_augmented_step_ignores_what_lies_outside_the_image(
    inputs, tmp_path, examples, monkeypatch
):
    views, crops = [], augmentation.scaled_crops

    def watched(images, maps, scales, size, generator, mode):
        views.append((scales, size, crops(images, maps, scales, size, generator, mode)))
        return views[-1][2]

    monkeypatch.setattr(augmentation, "scaled_crops", watched)
    config = IRNetConfig(**SMALL, smallest_scale=0.5, largest_scale=1.5, seed_classes="all")
    irnet.train(config, inputs, tmp_path, CONTEXT)
    assert len(views) == len(examples) == 2
    for (scales, size, (images, maps, inside)), (_, seeds, _) in zip(views, examples, strict=True):
        assert (scales, size) == ((0.5, 1.5), (SIZE // 4, SIZE // 4))
        assert images.shape == (8, SIZE, SIZE) and not inside.all()
        expected = irnet_losses.seeds(maps, torch.ones(8, 10))
        for n in range(8):
            outside = ~inside[n]
            assert (seeds[n][:, outside] == 255).all()
            assert torch.equal(seeds[n][:, inside[n]], expected[n][:, inside[n]])
    # Each step has other views, from the seed alone, so that a resumed training sees the same.
    assert derive(0, "irnet views", 1) != derive(0, "irnet views", 2)
    assert not torch.equal(views[0][2][2], views[1][2][2])


def test_published_losses_train_on_relative_pairs(inputs, tmp_path, examples):
    settings = {**SMALL, "radius": 10}
    config = IRNetConfig(**settings, losses="published", lengths="relative")
    facts = irnet.train(config, inputs, tmp_path, CONTEXT)
    assert [(name, radius) for name, _, radius in examples] == [("published", 2.0)] * 2
    assert facts["losses"]["total"] > 0


def test_without_boundaries_nothing_is_trained_and_cams_spread_evenly(inputs, tmp_path):
    config = IRNetConfig(boundaries=False, lengths="relative")
    facts = irnet.run(config, inputs, tmp_path, CONTEXT)
    assert "steps" not in facts and not (tmp_path / IRNET_WEIGHTS).exists()
    assert "boundary" not in shards.metadata(shards.files(tmp_path / "valid")[0])["arrays"]
    ids = radiographs.ids(tmp_path / "train")
    maps = cams(inputs, ids)
    radius, steps = random_walk.relative_walk(SIZE / 4 / 80, 3, 8)
    assert (radius, steps) == (1.01, 2)
    for _ in range(steps):  # the mean over a pixel and its neighbours by edges
        total, number = torch.zeros_like(maps), torch.zeros_like(maps)
        for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            for values, target in ((maps, total), (torch.ones_like(maps), number)):
                padded = torch.nn.functional.pad(values, (1, 1, 1, 1))
                target += padded[..., 1 + dy : 17 + dy, 1 + dx : 17 + dx]
        maps = total / number
    largest = maps.amax((2, 3), keepdim=True)
    expected = maps / largest.where(largest > 0, 1)
    found = radiographs.load_cached(tmp_path / "train", "scores", ids).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_scores_are_scaled_at_the_size_of_the_image(inputs, tmp_path, monkeypatch):
    # So small a classifier's maps are flat at their peaks.
    monkeypatch.setattr(random_walk, "propagate", lambda maps, *_: torch.rand_like(maps) ** 4)
    config = IRNetConfig(boundaries=False, normalise="image")
    irnet.run(config, inputs, tmp_path, CONTEXT)
    ids = radiographs.ids(tmp_path / "train")
    scores = radiographs.load_cached(tmp_path / "train", "scores", ids).float()
    largest = interpolate(scores, size=(SIZE, SIZE), mode="bilinear").amax((2, 3))
    torch.testing.assert_close(largest, torch.ones_like(largest), atol=1e-3, rtol=0)
    assert scores.max() > 1


def test_thresholds_are_the_best_on_the_images_of_the_cams(inputs, tmp_path):
    config = IRNetConfig(boundaries=False, threshold="training")
    facts = irnet.run(config, inputs, tmp_path, CONTEXT)
    rows = shards.read(tmp_path / COUNTS).to_pandas()
    cam_rows = shards.read(inputs["saliency"] / COUNTS).to_pandas()
    chosen = cam_rows.loc[cam_rows["chosen_on"], "image_id"].unique().tolist()
    assert rows.loc[rows["chosen_on"], "image_id"].unique().tolist() == chosen
    assert 0 < len(chosen) < rows["image_id"].nunique()
    valid = inputs["valid"]
    scores = radiographs.load_cached(tmp_path / "valid", "scores", chosen)
    true = radiographs.unpack_bits(
        radiographs.expert_masks(valid, chosen, PATHOLOGIES, SIZE), (len(PATHOLOGIES), SIZE, SIZE)
    )
    table = radiographs.index(valid).set_index("image_id").loc[chosen]
    present = possibly_present(torch.from_numpy(radiographs.labels(table, PATHOLOGIES)))
    tried = 0
    for k, name in enumerate(PATHOLOGIES):
        if not true[:, k].any():
            assert facts["expert_train_iou"][name] is None
            continue
        ious = []
        for step in range(20):
            limits = torch.full((len(PATHOLOGIES),), step / 20)
            mask = weak_masks(scores, limits, present, SIZE)[:, k]
            ious.append(float((mask & true[:, k]).sum() / (mask | true[:, k]).sum()))
        assert facts["expert_train_iou"][name] == pytest.approx(max(ious))
        assert facts["thresholds"][name] == ious.index(max(ious)) / 20
        tried += 1
    assert tried > 2 and len(set(facts["thresholds"].values())) > 1
    note = shards.metadata(shards.files(tmp_path / "train")[0])
    assert note["thresholds"] == facts["thresholds"]
    assert json.loads((tmp_path / THRESHOLDS).read_text()) == facts["thresholds"]


def test_each_map_has_the_threshold_of_otsu(inputs, tmp_path):
    """By Otsu's definition, over all 256 levels, for each image and pathology."""
    config = IRNetConfig(boundaries=False, threshold="otsu")
    facts = irnet.run(config, inputs, tmp_path, CONTEXT)
    assert set(facts["thresholds"].values()) == {None}
    rows = shards.read(tmp_path / COUNTS).to_pandas().set_index(["image_id", "pathology"])
    ids = radiographs.ids(tmp_path / "valid")
    scores = radiographs.load_cached(tmp_path / "valid", "scores", ids).float()
    large = interpolate(scores, size=(SIZE, SIZE), mode="bilinear")
    table = radiographs.index(inputs["valid"]).set_index("image_id").loc[ids]
    labels = torch.from_numpy(radiographs.labels(table, PATHOLOGIES))
    positive = 0
    for n, image_id in enumerate(ids):
        for k, name in enumerate(PATHOLOGIES):
            levels, pixels = (255 * large[n, k]).byte(), 0
            if labels[n, k].item() in (1, -1) and levels.any():
                best, values = (-1.0, 0), levels.double()
                for level in range(255):
                    above = levels > level
                    share = float(above.double().mean())
                    if 0 < share < 1:
                        gap = float(values[above].mean() - values[~above].mean())
                        best = max(best, (share * (1 - share) * gap**2, -level))
                pixels = int((levels > -best[1]).sum())
                positive += 1
            assert rows.loc[(image_id, name), "predicted"] == pixels
    assert positive > 5


@pytest.mark.parametrize(
    ("init", "freeze", "frozen"),
    [("chexpert", "auto", True), ("chexpert", False, False), ("imagenet", "auto", True)],
)
def test_pretrained_backbones_are_frozen_by_default(
    results, inputs, tmp_path, init, freeze, frozen
):
    encoder = results.paths["pretrain"]
    config = IRNetConfig(**SMALL, init=init, freeze_backbone=freeze, learning_rate=1e-3)
    irnet.train(config, {**inputs, "encoder": encoder}, tmp_path, CONTEXT)
    trained = load_file(tmp_path / IRNET_WEIGHTS)
    moved = {
        name
        for name, value in load_file(encoder / ENCODER_WEIGHTS).items()
        if not torch.equal(value, trained[f"encoder.{name}"])
    }
    assert ("conv1.weight" in moved) is not frozen
    assert bool(moved) is not frozen
    assert encoders.describe(tmp_path / IRNET_WEIGHTS)["init"] == init


@pytest.mark.parametrize("normalisation", [None, "imagenet"])
def test_pixels_are_normalised_as_the_backbone_has_learned(
    results, inputs, tmp_path, monkeypatch, normalisation
):
    """An encoder says how, unless it is as its init says."""
    encoder = tmp_path / "encoder"
    shutil.copytree(results.paths["pretrain"], encoder)
    note = encoder / ENCODER_WEIGHTS.replace(".safetensors", ".json")
    if normalisation:
        note.write_text(json.dumps(json.loads(note.read_text()) | {"normalisation": normalisation}))
    used, prepare = set(), encoders.prepare

    def watched(pixels, init):
        used.add(init)
        return prepare(pixels, init)

    monkeypatch.setattr(encoders, "prepare", watched)
    config = IRNetConfig(**SMALL, init="chexpert")
    (tmp_path / "out").mkdir()
    irnet.run(config, {**inputs, "encoder": encoder}, tmp_path / "out", CONTEXT)
    assert used == {normalisation or "chexpert"}


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 1.5)])
def test_no_seed_lies_outside_the_central_crop_that_the_classifier_has_seen(
    inputs, tmp_path, examples, monkeypatch, scales, crf
):
    """A constant map is foreground in the crop. Outside it is 0 because nothing was seen there."""
    ids = radiographs.ids(inputs["saliency"] / "train")
    table = radiographs.index(inputs["train"]).set_index("image_id").loc[ids]
    shapes = list(zip(table["height"], table["width"], strict=True))
    placed = centre_crop.in_padded_square(torch.ones(len(ids), 10, 2, 2), shapes, SIZE)
    for path in shards.files(inputs["saliency"] / "train"):
        rows = shards.read(path, ["image_id"])["image_id"].to_pylist()
        scores = placed[[ids.index(image_id) for image_id in rows]].half().numpy()
        cropped = shards.table({"image_id": rows}, {"scores": scores}, geometry="crop")
        (tmp_path / "cams" / "train").mkdir(parents=True, exist_ok=True)
        shards.complete(tmp_path / "cams" / "train" / path.rpartition("/")[2], iter([cropped]))
    config = IRNetConfig(
        **{**SMALL, "images": len(ids), "batch_size": len(ids)},
        smallest_scale=scales[0],
        largest_scale=scales[1],
        seed_classes="all",
        crf=crf,
    )
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.full(size, 0.5))  # no change
    (tmp_path / "out").mkdir()
    irnet.train(config, {**inputs, "saliency": tmp_path / "cams"}, tmp_path / "out", CONTEXT)
    ((_, seeds, _),) = examples
    expected = set()
    for height, width in shapes:
        top, left, high, wide = Strip(height, width, SIZE).centre_in_frame()
        grid = torch.full((SIZE // 4, SIZE // 4), 255, dtype=torch.uint8)
        for y in range(SIZE // 4):
            for x in range(SIZE // 4):
                whole = 1 if crf else 0  # the CRF sees whole pixels, so this one must end inside
                if (
                    top <= 4 * y + 2 <= top + high - whole
                    and left <= 4 * x + 2 <= left + wide - whole
                ):
                    grid[y, x] = 1
        expected.add(grid.expand(10, -1, -1).numpy().tobytes())
    assert {one.numpy().tobytes() for one in seeds} == expected
    assert (seeds == 255).any()
