"""Fit: train a segmenter on expert and weak masks mixed with probability p, or as a student on a teacher's soft masks.

The paper's section 4.1 and appendix B.2. Writes ``segmenter.safetensors`` and a JSON that tells how to use it: the epoch
is chosen on expert images held back for it, the output thresholds on training images. No test image is ever read here.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from chexseg.pathologies import COMMON, PATHOLOGIES
from chexseg.randomness import derive
from chexseg.stages import resume
from chexseg.stages.base import Execution, StageConfig

VERSION = 1
WEIGHTS = "segmenter.safetensors"
#: From this many training images on, the learning rate is the paper's for "a large amount of data".
LARGE = 2000


class Config(StageConfig):
    pathologies: tuple[str, ...] = PATHOLOGIES
    #: Any encoder of segmentation-models-pytorch. The paper: resnet18.
    architecture: str = "resnet18"
    #: Where the weights of the input ``encoder`` come from; random: there is none.
    init: Literal["random", "imagenet", "chexpert", "moco"] = "chexpert"
    #: "masks": expert and weak masks mixed. "teacher": a teacher's soft masks (section 4.2).
    supervision: Literal["masks", "teacher"] = "masks"
    #: Probability that a sample is an expert one, and the rule it is drawn by (data.mixture).
    p: float = Field(default=1.0, ge=0, le=1)
    mixing: Literal["exact", "official"] = "exact"
    #: Weak label kind and number of weakly labelled images; null and 0 where p leaves none. The paper: 100 for Table 1.
    weak: str | None = None
    weak_images: int = Field(default=0, ge=0)
    #: Draw images with a positive label of a studied pathology first.
    prefer_positives: bool = False
    negatives_empty: bool = True
    #: Expert images to train on and to choose the epoch on. The paper: 147 and 40.
    expert_train: int = Field(default=147, ge=0)
    expert_select: int = Field(default=40, ge=0)
    split_seed: int = 0
    #: The paper: 20 epochs of as many samples as there are images, batches of 8, Adam at 1e-3 or, from 2,000 images on, 1e-4.
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=8, ge=2)
    learning_rate: float | None = Field(default=None, gt=0)
    #: Samples an epoch; null for as many as there are images.
    samples_per_epoch: int | None = Field(default=None, ge=2)
    #: Sigmoid temperature of a student's loss. The paper: 10.
    temperature: float = Field(default=10.0, gt=0)
    seed: int = 0


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``valid``; ``encoder`` unless the init is random; ``train`` and ``weak`` if p leaves room for weak
    labels; ``train`` and ``teacher`` for a student."""
    import torch

    from chexseg.models import encoders
    from chexseg.stages import training_sets

    execution.prepare()
    assemble = training_sets.student if config.supervision == "teacher" else training_sets.mixed
    data = assemble(config, inputs, execution)
    torch.manual_seed(derive(config.seed, "segmenter"))
    model = build(config)
    if config.init != "random":
        from chexseg.stages.pretrain import WEIGHTS as ENCODER

        encoders.load(model.encoder, inputs["encoder"] / ENCODER)
    model.to(execution.device)
    large = config.supervision == "masks" and data.images >= LARGE  # students: 1e-3 in all experiments (appendix B.4)
    rate = config.learning_rate or (1e-4 if large else 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)

    progress = Progress.load(out, model, optimizer)
    for epoch in range(progress.epochs):
        data.skip(epoch)
    total = config.epochs * data.samples
    saved = time.monotonic()
    for epoch in range(progress.epochs, config.epochs):
        torch.manual_seed(derive(config.seed, "dropout", epoch))
        model.train()
        losses = []
        for batch in data.batches(epoch):
            loss = batch_loss(config, model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            done = epoch * data.samples + min(len(losses) * config.batch_size, data.samples)
            execution.progress(done, total, "samples", {"epoch": epoch + 1})
        score = selection_score(config, model, data.select)
        progress.finish_epoch(model, float(torch.stack(losses).mean()), score)
        execution.progress((epoch + 1) * data.samples, total, "samples", {"selection mIoU": score})
        if time.monotonic() - saved > execution.checkpoint_seconds and epoch + 1 < config.epochs:
            resume.save(out, model, optimizer, **vars(progress))
            saved = time.monotonic()
    model.load_state_dict(progress.best_state)
    thresholds, training_iou = choose_thresholds(config, model, data.thresholds)
    size = data.select[0].shape[-1]
    encoders.save(
        model,
        out / WEIGHTS,
        architecture=config.architecture,
        init=config.init,
        size=size,
        pathologies=config.pathologies,
        thresholds=thresholds,
    )
    (out / "history.json").write_text(json.dumps(progress.history, indent=1))
    (out / resume.STATE).unlink(missing_ok=True)
    return {
        "selection_miou": progress.best_score,
        "best_epoch": progress.best_epoch,
        "thresholds": dict(zip(config.pathologies, thresholds, strict=True)),
        "training_iou": dict(zip(config.pathologies, training_iou, strict=True)),
        "learning_rate": rate,
        "images": data.images,
        "samples": total,
        **data.facts(),
    }


def build(config: Config) -> Any:
    """The untrained network. Raises `UserError` for one that can't be."""
    from chexseg.models import segmenter

    return segmenter.build(config.architecture, len(config.pathologies))


def batch_loss(config: Config, model: Any, batch: Mapping[str, Any]) -> Any:
    """Class-average Dice on masks, or the student's cross-entropy against its teacher's soft masks."""
    from chexseg.data import labelled
    from chexseg.models import encoders, losses, segmenter

    logits_NKHW = model(encoders.prepare(batch["images"], config.init))
    if config.supervision == "teacher":
        return losses.distillation(logits_NKHW, segmenter.upsample(batch["teacher"].float()), config.temperature)
    return losses.class_average_dice(logits_NKHW, labelled.unpack_bits(batch["masks"], logits_NKHW.shape[1:]))


@dataclass
class Progress:
    """Where a fit stands after an epoch: enough to go on from there to the same final weights."""

    history: list[dict[str, Any]]
    best_score: float | None
    best_epoch: int
    best_state: dict[str, Any]

    def __init__(self) -> None:
        self.history, self.best_score, self.best_epoch, self.best_state = [], None, 0, {}

    @property
    def epochs(self) -> int:
        return len(self.history)

    def finish_epoch(self, model: Any, loss: float, score: float | None) -> None:
        """Keep the weights if this epoch is at least as good as any before: of equals, the one trained for longest."""
        self.history.append({"epoch": self.epochs + 1, "loss": loss, "selection_miou": score})
        if score is None or self.best_score is None or score >= self.best_score:
            self.best_score, self.best_epoch = score, self.epochs
            self.best_state = copy.deepcopy(model.state_dict())

    @classmethod
    def load(cls, out: Path, model: Any, optimizer: Any) -> Progress:
        """The progress saved by an interrupted run, put into model and optimizer; of none, where there is none."""
        progress = cls()
        vars(progress).update(resume.load(out, model, optimizer) or {})
        return progress


def probabilities(config: Config, model: Any, images_NHW: Any) -> Iterator[Any]:
    """Batches of probabilities_NKHW in the order of the images."""
    import torch

    from chexseg.models import encoders

    model.eval()
    with torch.inference_mode():
        for part in images_NHW.split(16):
            yield model(encoders.prepare(part, config.init)).sigmoid()


def selection_score(config: Config, model: Any, select: tuple[Any, Any]) -> float | None:
    """Mean pooled IoU at 0.5 of the four common pathologies with true pixels among the held-back images.

    Where none of the four is studied or there, of all that are; None where no pathology is.
    """
    import torch

    from chexseg.data import labelled

    images, masks = select
    if not len(images):
        return None
    counts_3K = torch.zeros(3, len(config.pathologies), dtype=torch.int64, device=images.device)
    for predicted, packed in zip(probabilities(config, model, images), masks.split(16), strict=True):
        true = labelled.unpack_bits(packed, predicted.shape[1:])
        predicted = predicted > 0.5
        counts_3K += torch.stack([part.sum(dim=(0, 2, 3)) for part in (predicted & true, predicted, true)])
    intersection_K, predicted_K, true_K = counts_3K.cpu().double()
    iou_K = intersection_K / (predicted_K + true_K - intersection_K)
    there = [bool(value) for value in true_K > 0]
    chosen = [k for k, name in enumerate(config.pathologies) if there[k] and name in COMMON]
    chosen = chosen or [k for k in range(len(there)) if there[k]]
    return float(iou_K[chosen].mean()) if chosen else None


def choose_thresholds(config: Config, model: Any, training: tuple[Any, Any]) -> tuple[list[float], list[float | None]]:
    """Per pathology the output threshold with the best pooled IoU on training images, and that IoU."""
    from chexseg.data import labelled
    from chexseg.saliency.thresholds import Histogram

    images, masks = training
    histogram = Histogram.empty(len(config.pathologies), images.device)
    for predicted, packed in zip(probabilities(config, model, images), masks.split(16), strict=True):
        histogram = histogram + Histogram.of(predicted, labelled.unpack_bits(packed, predicted.shape[1:]))
    thresholds, iou = histogram.best()
    return np.round(thresholds.tolist(), 2).tolist(), [None if value != value else value for value in iou.tolist()]
