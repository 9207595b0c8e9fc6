"""What a fit can be told beside the paper's values, and that it learns, streams, and stops where it must."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chexseg.config import settings
from chexseg.data import radiographs, shards
from chexseg.data.sampling import radiograph_samplers, samplers
from chexseg.errors import DamagedArtifactError
from chexseg.models import losses, segmenter
from chexseg.pathologies import PATHOLOGIES
from chexseg.stages import distil, fit
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.configs import DistilConfig, FitConfig
from chexseg.stages.training import segmenter_data, segmenter_selection

from .conftest import CONTEXT
from .test_fit import MIXED, SMALL, inputs, run, same

STREAMED = replace(CONTEXT, resident_bytes=0)


def test_the_papers_values_are_the_defaults():
    config = FitConfig()
    assert (config.epochs, config.batch_size, config.loss, config.schedule) == (
        20,
        8,
        "class-average-dice",
        "constant",
    )
    assert (config.clip_norm, config.flips, config.precision, config.compile) == (
        None,
        False,
        "float32",
        False,
    )
    assert (config.checkpoint, config.thresholds, config.temperature) == (
        "selection",
        "training",
        10,
    )
    assert settings.Fit.model_validate({}).model_dump().items() <= config.model_dump().items()


@pytest.mark.parametrize("value", [0.33, 1.0, -0.05, "best", True])
def test_a_threshold_off_the_grid_is_refused(value):
    with pytest.raises(
        ValueError,
        match="expected training, training-batches, selection, logit-quantiles, or one of 0, 0.05",
    ):
        FitConfig(thresholds=value)


def test_a_nan_names_step_rate_and_images(results, tmp_path):
    config = FitConfig(**{**SMALL, "epochs": 1}, **MIXED, learning_rate=1e30)
    given = inputs(results, "train", "valid", "weak")
    with pytest.raises(FloatingPointError) as caught:
        run(config, given, tmp_path / "fit")
    text = str(caught.value)
    assert text.startswith("the loss is nan in step 2, learning rate 1e+30; images patient")
    named = text.rpartition("images ")[2].partition("; hint")[0].split(", ")
    assert len(named) == config.batch_size
    train, _ = segmenter_data.expert_ids(config, given["valid"])
    assert set(named) <= set(train) | set(radiographs.ids(given["weak"] / "train"))
    assert set(named) & set(train)


def test_every_setting_changes_what_it_says_and_can_be_resumed(results, tmp_path, monkeypatch):
    """All at once, so that one killed and resumed fit proves it for each."""
    given = inputs(results, "train", "valid", "weak")
    rates, norms = [], []
    step = torch.optim.Adam.step

    def watched(self, *arguments, **keywords):
        rates.append(self.param_groups[0]["lr"])
        norms.append(
            math.sqrt(
                sum(
                    p.grad.square().sum().item()
                    for group in self.param_groups
                    for p in group["params"]
                )
            )
        )
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    told = {
        "schedule": "cosine",
        "clip_norm": 0.01,
        "flips": True,
        "precision": "bfloat16",
        "channels_last": False,
    }
    told |= {"loss": "cross-entropy", "checkpoint": "last", "thresholds": 0.35}
    config = FitConfig(**SMALL, **MIXED, **told)
    facts = run(config, given, tmp_path / "quiet")
    assert rates == pytest.approx(
        [1e-3, 1e-3 * (1 + math.cos(math.pi / 4)) / 2, 5e-4, 1e-3 * (1 - math.cos(math.pi / 4)) / 2]
    )
    assert max(norms) < 0.0101
    assert set(facts["thresholds"].values()) == {0.35}
    assert facts["best_epoch"] == 2

    def kill(done, total, unit, note=None):
        if (note or {}).get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            config,
            given,
            tmp_path / "killed",
            replace(CONTEXT, checkpoint_seconds=0, progress=kill),
        )
    rates.clear()
    assert run(config, given, tmp_path / "killed") == facts
    assert len(rates) == 2
    assert same(tmp_path / "quiet", tmp_path / "killed")


def test_compiled_training_is_called_with_the_batches(results, tmp_path, monkeypatch):
    """The compiler itself is PyTorch's, and takes minutes here: the network that it's given is what trains."""
    seen = []

    def compiled(network):
        def forward(images):
            seen.append(tuple(images.shape))
            return network(images)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"):  # restored after this test
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = inputs(results, "valid")
    config = FitConfig(**{**SMALL, "epochs": 1}, init="random", compile=True)
    run(config, given, tmp_path / "compiled")
    assert seen == [(8, 3, 64, 64)] * 2
    run(config.model_copy(update={"compile": False}), given, tmp_path / "plain")
    assert same(tmp_path / "compiled", tmp_path / "plain")


def test_flips_mirror_images_and_masks_together():
    config = FitConfig(init="random")
    images = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    masks = torch.rand(2, len(PATHOLOGIES), 64, 64) < 0.3
    model = segmenter.build("resnet18", len(PATHOLOGIES)).eval()
    batch = {
        "images": images,
        "masks": radiographs.pack_bits(masks),
        "flipped": torch.tensor([True, False]),
    }
    by_hand = {
        "images": torch.stack([images[0].flip(-1), images[1]]),
        "masks": radiographs.pack_bits(torch.stack([masks[0].flip(-1), masks[1]])),
    }

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return fit.loss_on(config, *fit.forward(config, model, batch))

    assert loss(batch) == loss(by_hand)
    assert loss(batch) != loss({**by_hand, "images": images})


def test_a_streamed_pass_has_the_resident_samples(ray_session, results):
    config = FitConfig(**SMALL, **MIXED)
    given = inputs(results, "train", "valid", "weak")
    resident, ids = segmenter_data.weak_source(config, given, CONTEXT, 8)
    streamed, ids_too = segmenter_data.weak_source(config, given, STREAMED, 8)
    assert ids == ids_too
    assert (type(resident), type(streamed)) == (samplers.Resident, samplers.Streamed)
    for batches in (
        (resident.take(12), streamed.take(12)),
        (next(resident.once(64)), next(streamed.once(64))),
    ):
        orders = [batch["rows"].argsort() for batch in batches]
        for name in ("images", "masks", "rows"):
            first, second = (
                batch[name][order] for batch, order in zip(batches, orders, strict=True)
            )
            assert torch.equal(first, second), name
    assert batches[0]["rows"].sort().values.tolist() == list(range(8, 20))


def test_streamed_cells_and_students_train_and_go_on(ray_session, results, tmp_path):
    given = inputs(results, "train", "valid", "weak")
    weak = FitConfig(**SMALL, **{**MIXED, "p": 0.0})
    facts = run(weak, given, tmp_path / "weak", STREAMED)
    resident = run(weak.model_copy(update={"epochs": 1}), given, tmp_path / "resident")
    assert facts["images"] == resident["images"]
    (tmp_path / "logits").mkdir()
    distil.run(
        DistilConfig(fraction=0.5),
        {"train": given["train"], "teacher": results.paths["fit"]},
        tmp_path / "logits",
        CONTEXT,
    )
    student = FitConfig(**SMALL, supervision="teacher", init="random")
    given = {**inputs(results, "train", "valid"), "teacher": tmp_path / "logits"}
    quiet = run(student, given, tmp_path / "student", STREAMED)

    def kill(done, total, unit, note=None):
        if (note or {}).get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            student,
            given,
            tmp_path / "killed",
            replace(STREAMED, checkpoint_seconds=0, progress=kill),
        )
    assert run(student, given, tmp_path / "killed", STREAMED) == quiet
    assert same(tmp_path / "student", tmp_path / "killed")


def test_images_that_lack_their_masks_are_damage(ray_session, results, tmp_path):
    """If weak labels of some images are gone, the stream must not pair others' masks with them."""
    config = FitConfig(**SMALL, **MIXED)
    given = inputs(results, "train", "valid", "weak")
    ids = radiographs.ids(given["train"] / "images")
    directory = tmp_path / "train"
    directory.mkdir()
    for path in shards.files(given["weak"] / "train"):
        table = shards.read(path)
        shards.write(directory / Path(path).name, table.slice(len(table) // 2))
    stored = radiograph_samplers.Stored(directory, "scores", 2000)
    source = radiograph_samplers.source(given["train"], ids, {}, 0, "cpu", 0, {"scores": stored})
    with pytest.raises(DamagedArtifactError, match="its images are not those of"):
        source.take(config.batch_size)


@pytest.mark.slow
def test_eight_images_can_be_learnt_by_heart(results, tmp_path):
    """The loop can learn: a Dice above 0.9 on the images it trains on."""
    config = FitConfig(
        pathologies=("Cardiomegaly", "Enlarged Cardiomediastinum"), expert_train=8, expert_select=4, init="random",
        epochs=35, samples_per_epoch=16, learning_rate=1e-3, checkpoint="last",
    )  # fmt: skip
    given = inputs(results, "valid")
    run(config, given, tmp_path / "fit")
    model = fit.build(config)
    model.load_state_dict(load_file(tmp_path / "fit" / SEGMENTER_WEIGHTS))
    train, _ = segmenter_data.expert_ids(config, given["valid"])
    images, packed = segmenter_data.expert_set(config, given["valid"], train, "cpu")
    (predicted,) = segmenter_selection.probabilities(config, model, images)
    masks = radiographs.unpack_bits(packed, predicted.shape[1:])
    assert masks.any(dim=(0, 2, 3)).all()
    overlap = (
        2
        * ((predicted > 0.5) & masks).sum((0, 2, 3))
        / ((predicted > 0.5).sum((0, 2, 3)) + masks.sum((0, 2, 3)))
    )
    assert overlap.min() > 0.9
    history = json.loads((tmp_path / "fit" / "history.json").read_text())
    assert history[-1]["loss"] < 0.1


def test_black_images_and_batches_without_a_positive_pixel_train():
    """An image that is all padding, and no mask: the loss falls, and every gradient is finite."""
    for name in losses.SEGMENTATION:
        config = FitConfig(init="random", loss=name)
        torch.manual_seed(0)
        model = segmenter.build("resnet18", len(PATHOLOGIES))
        images = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8)
        images[:2] = 0
        masks = radiographs.pack_bits(torch.zeros(4, len(PATHOLOGIES), 64, 64, dtype=torch.bool))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        values = []
        for _ in range(3):
            outputs = fit.forward(config, model, {"images": images, "masks": masks})
            loss = fit.loss_on(config, *outputs)
            optimizer.zero_grad()
            loss.backward()
            assert all(p.grad.isfinite().all() for p in model.parameters())
            optimizer.step()
            values.append(loss.item())
        assert values[-1] < values[0]
        (probabilities,) = segmenter_selection.probabilities(config, model, images)
        assert probabilities.isfinite().all()


def test_a_pathology_that_never_occurs_is_left_out_and_gets_the_default(results):
    config = FitConfig(**SMALL, init="random")
    model = segmenter.build("resnet18", len(PATHOLOGIES)).eval()
    masks = torch.zeros(3, len(PATHOLOGIES), 64, 64, dtype=torch.bool)
    there = PATHOLOGIES.index("Cardiomegaly")
    masks[:, there, 10:40, 20:50] = True
    batch = {
        "images": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8),
        "masks": radiographs.pack_bits(masks),
    }
    thresholds, iou = segmenter_selection.choose_thresholds(config, model, iter([batch]))
    assert [value is None for value in iou] == [k != there for k in range(len(PATHOLOGIES))]
    assert {threshold for k, threshold in enumerate(thresholds) if k != there} == {0.5}
    (probabilities,) = segmenter_selection.probabilities(config, model, batch["images"])
    predicted, true = probabilities[:, there] > 0.5, masks[:, there]
    by_hand = ((predicted & true).sum() / (predicted | true).sum()).item()
    assert segmenter_selection.selection_score(
        config, model, (batch["images"], batch["masks"])
    ) == pytest.approx(by_hand)
    nothing = radiographs.pack_bits(torch.zeros_like(masks))
    assert segmenter_selection.selection_score(config, model, (batch["images"], nothing)) is None
