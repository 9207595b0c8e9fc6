"""Test the rules for epoch and thresholds of a fit against loops over thresholds and pixels."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from chexseg.data import radiographs
from chexseg.errors import UserError
from chexseg.models import segmenter
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency.thresholds import GRID
from chexseg.stages import distil, fit, score
from chexseg.stages.configs import DistilConfig, FitConfig
from chexseg.stages.training import segmenter_data, segmenter_selection

from .conftest import CONTEXT, EXPERT
from .test_fit import MIXED, SMALL, inputs, run, same

pytestmark = pytest.mark.heavy

FOUR = ("Enlarged Cardiomediastinum", "Support Devices", "Cardiomegaly", "Atelectasis")


def naive_best(pairs: list[tuple[Tensor, Tensor]], k: int) -> tuple[float, float | None]:
    """Return (threshold, IoU) of a pathology over batches of (probabilities, targets)_NKHW."""
    best, chosen = None, 0.5
    if not any((targets[:, k] != 0).any() for _, targets in pairs):
        return chosen, best
    for threshold in GRID:
        intersection = predicted = true = 0.0
        for probabilities, targets in pairs:
            for positive, target in zip(
                probabilities[:, k] > threshold, targets[:, k].double(), strict=True
            ):
                intersection += target[positive].sum().item()
                predicted += positive.sum().item()
                true += target.sum().item()
        value = intersection / (predicted + true - intersection)
        if best is None or value > best:
            best, chosen = value, threshold
    return chosen, best


def select_pairs(config: FitConfig, results, model) -> list[tuple[Tensor, Tensor]]:
    """Return (probabilities, masks) of the held-back expert images, one image at a time."""
    valid = results.paths["valid"]
    _, ids = segmenter_data.expert_ids(config, valid)
    images, packed = segmenter_data.expert_set(config, valid, ids, "cpu")
    return [
        (
            next(segmenter_selection.probabilities(config, model, images[n : n + 1])),
            radiographs.unpack_bits(packed[n : n + 1], (len(PATHOLOGIES), *images.shape[1:])),
        )
        for n in range(len(ids))
    ]


@pytest.fixture
def watched(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """Return a list to which each training step adds its (probabilities, targets)."""
    batches = []
    forward = fit.forward

    def watch(config, network, batch):
        assert network.training
        logits, targets = forward(config, network, batch)
        batches.append((logits.detach().sigmoid(), targets.clone()))
        return logits, targets

    monkeypatch.setattr(fit, "forward", watch)
    return batches


def test_published_thresholds_are_the_best_on_the_kept_epochs_batches(results, tmp_path, watched):
    """In train mode, before each step, expert and weak together."""
    config = FitConfig(
        **{**SMALL, "epochs": 3},
        **MIXED,
        thresholds="training-batches",
        checkpoint="best-threshold",
    )
    facts = run(config, inputs(results, "train", "valid", "weak"), tmp_path / "fit")
    curve = facts["selection_curve"]
    kept = max(epoch for epoch, value in enumerate(curve) if value == max(curve))
    assert facts["best_epoch"] == kept + 1
    assert len(watched) == 6
    for k, name in enumerate(PATHOLOGIES):
        threshold, iou = naive_best(watched[2 * kept : 2 * kept + 2], k)
        assert facts["thresholds"][name] == pytest.approx(threshold)
        assert facts["training_iou"][name] == (iou if iou is None else pytest.approx(iou))


def test_a_students_published_thresholds_compare_with_raw_logits(results, tmp_path, watched):
    (tmp_path / "logits").mkdir()
    sources = {"train": results.paths["train"], "teacher": results.paths["fit"]}
    distil.run(DistilConfig(fraction=0.5), sources, tmp_path / "logits", CONTEXT)
    student = FitConfig(
        **SMALL,
        supervision="teacher",
        init="random",
        thresholds="training-batches",
        checkpoint="last",
    )
    given = {**inputs(results, "train", "valid"), "teacher": tmp_path / "logits"}
    facts = run(student, given, tmp_path / "student")
    assert any((targets < 0).any() for _, targets in watched)  # logits, not probabilities
    for k, name in enumerate(PATHOLOGIES):
        assert facts["thresholds"][name] == pytest.approx(naive_best(watched[2:], k)[0])
    assert set(facts["training_iou"].values()) == {None}


def test_a_killed_fit_keeps_the_thresholds_of_its_best_epoch(results, tmp_path):
    given = inputs(results, "train", "valid", "weak")
    config = FitConfig(
        **{**SMALL, "epochs": 2},
        **{**MIXED, "p": 0.9},
        mixing="published",
        thresholds="training-batches",
        checkpoint="best-threshold-all",
    )
    quiet = run(config, given, tmp_path / "quiet")

    def kill(done, total, unit, note=None):
        if (note or {}).get("epoch") == 2:
            raise KeyboardInterrupt

    eager = replace(CONTEXT, checkpoint_seconds=0, progress=kill)
    with pytest.raises(KeyboardInterrupt):
        run(config, given, tmp_path / "killed", eager)
    assert run(config, given, tmp_path / "killed") == quiet
    assert same(tmp_path / "quiet", tmp_path / "killed")


def test_weak_arms_choose_epoch_and_thresholds_on_expert_masks(results, tmp_path):
    config = FitConfig(
        **SMALL,
        **{**MIXED, "p": 0.0},
        checkpoint="best-threshold-all",
        thresholds="selection",
    )
    facts = run(config, inputs(results, "train", "valid", "weak"), tmp_path / "fit")
    model, described = score.load_segmenter(tmp_path / "fit", "cpu")
    pairs = select_pairs(config, results, model)
    best = [naive_best(pairs, k) for k in range(len(PATHOLOGIES))]
    assert described["thresholds"] == pytest.approx([threshold for threshold, _ in best])
    occurring = [iou for _, iou in best if iou is not None]
    assert facts["selection_miou"] == pytest.approx(sum(occurring) / len(occurring))


@pytest.mark.parametrize("rule", ["best-threshold", "best-threshold-all", "selection"])
def test_the_score_of_an_epoch_is_the_rules(results, rule):
    config = FitConfig(**SMALL, init="random", checkpoint=rule)
    torch.manual_seed(1)
    model = segmenter.build("resnet18", len(PATHOLOGIES)).eval()
    pairs = select_pairs(config, results, model)
    chosen = []
    for k, name in enumerate(PATHOLOGIES):
        _, iou = naive_best(pairs, k)
        if iou is not None and (name in FOUR or rule == "best-threshold-all"):
            if rule == "selection":
                predicted = torch.cat([probabilities[:, k] > 0.5 for probabilities, _ in pairs])
                true = torch.cat([masks[:, k] for _, masks in pairs])
                iou = ((predicted & true).sum() / (predicted | true).sum()).item()
            chosen.append(iou)
    assert 1 < len(chosen) <= (10 if rule == "best-threshold-all" else 4)
    valid = results.paths["valid"]
    _, ids = segmenter_data.expert_ids(config, valid)
    select = segmenter_data.expert_set(config, valid, ids, "cpu")
    expected = sum(chosen) / len(chosen)
    assert segmenter_selection.selection_score(config, model, select) == pytest.approx(expected)


def test_thresholds_from_quantiles_of_logits_are_at_least_as_good_as_the_grids(results, tmp_path):
    given = inputs(results, "valid")
    config = FitConfig(**SMALL, init="random", checkpoint="last")
    grid = run(config, given, tmp_path / "grid")
    quantiles = run(
        config.model_copy(update={"thresholds": "logit-quantiles"}), given, tmp_path / "quantiles"
    )
    assert same(tmp_path / "grid", tmp_path / "quantiles")
    pairs = list(
        zip(grid["training_iou"].values(), quantiles["training_iou"].values(), strict=True)
    )
    assert sum(b for _, b in pairs if b) > sum(a for a, _ in pairs if a)
    # The recorded IoU is the one that predictions have.
    model, described = score.load_segmenter(tmp_path / "quantiles", "cpu")
    train, _ = segmenter_data.expert_ids(config, given["valid"])
    images, packed = segmenter_data.expert_set(config, given["valid"], train, "cpu")
    (probabilities,) = segmenter_selection.probabilities(config, model, images)
    masks = radiographs.unpack_bits(packed, probabilities.shape[1:])
    for k, name in enumerate(PATHOLOGIES):
        predicted = probabilities[:, k] > torch.tensor(described["thresholds"][k])
        if (iou := quantiles["training_iou"][name]) is not None:
            by_hand = (predicted & masks[:, k]).sum() / (predicted | masks[:, k]).sum()
            assert by_hand.item() == pytest.approx(iou, rel=1e-3)


def test_an_epoch_of_table_1_counts_the_unused_expert_images(results):
    given = inputs(results, "train", "valid", "weak")
    weak = FitConfig(**EXPERT, **{**MIXED, "p": 0.0})
    assert segmenter_data.mixed(weak, given, CONTEXT).samples == 12
    table_1 = weak.model_copy(update={"epoch_size": "expert-and-weak"})
    assert segmenter_data.mixed(table_1, given, CONTEXT).samples == 20
    for p in (0.5, 1.0):
        config = FitConfig(**EXPERT, **{**MIXED, "p": p}, epoch_size="expert-and-weak")
        assert segmenter_data.mixed(config, given, CONTEXT).samples == (20 if p < 1 else 8)


def test_published_mixing_draws_images_by_their_index(results):
    given = inputs(results, "train", "valid", "weak")
    config = FitConfig(**EXPERT, **{**MIXED, "p": 0.0}, mixing="published", batch_size=2)
    data = segmenter_data.mixed(
        config.model_copy(update={"epoch_size": "expert-and-weak"}), given, CONTEXT
    )
    rows = [row for batch in data.batches(0) for row in batch["rows"].tolist()]
    # Indices 0 .. 19 modulo 12 weak images.
    assert sorted(rows) == sorted(index % 12 for index in range(20))
    assert data.facts()["effective_p"] == 0


def test_published_mixing_of_a_set_too_large_for_memory_is_refused(results):
    given = inputs(results, "train", "valid", "weak")
    config = FitConfig(**EXPERT, **MIXED, mixing="published")
    with pytest.raises(UserError, match="labels.mixing: found published with 12 images"):
        segmenter_data.mixed(config, given, replace(CONTEXT, resident_bytes=0))


def test_without_held_back_images_there_is_no_score_and_the_thresholds_are_the_default(
    results, tmp_path
):
    config = FitConfig(
        expert_train=8,
        expert_select=0,
        epochs=1,
        samples_per_epoch=8,
        init="random",
        checkpoint="best-threshold",
        thresholds="selection",
    )
    facts = run(config, inputs(results, "valid"), tmp_path / "fit")
    assert set(facts["thresholds"].values()) == {0.5}
    assert set(facts["training_iou"].values()) == {None}
    history = json.loads((tmp_path / "fit" / "history.json").read_text())
    assert history[0]["selection_miou"] is None and math.isfinite(history[0]["loss"])
