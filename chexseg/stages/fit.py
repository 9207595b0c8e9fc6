"""Fit: train a segmenter on expert and weak masks mixed with probability p, or as a student on a teacher's soft masks.

The paper's section 4.1 and appendix B.2. Writes ``segmenter.safetensors`` and a JSON that tells how to use it: the epoch
is chosen on expert images held back for it, the output thresholds on training images. No test image is ever read here.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.errors import UserError
from chexseg.models import distributed, encoders, losses, segmenter
from chexseg.pathologies import COMMON
from chexseg.saliency.thresholds import GRID, Histogram
from chexseg.seeds import derive
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import ENCODER_WEIGHTS, SEGMENTER_WEIGHTS
from chexseg.stages.configs import FitConfig
from chexseg.stages.scoring.mask_counts import pixels
from chexseg.stages.training import checkpoint, ray_train, segmenter_data
from chexseg.stages.training.step_timer import Pace

if TYPE_CHECKING:
    from chexseg.stages.training.segmenter_data import TrainingSet

#: From this many training images on, the learning rate is the paper's for "a large amount of data".
LARGE = 2000


def run(
    config: FitConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """`inputs`: ``valid``; ``encoder`` unless the init is random; ``train`` and ``weak`` if p leaves room for weak
    labels; ``train`` and ``teacher`` for a student."""
    return ray_train.once(train, config, inputs, out, SEGMENTER_WEIGHTS, context)


def train(
    config: FitConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """Train, or go on from what an interrupted training has saved, to the same weights; bit for bit on a CPU.

    In a process group each worker takes its share of every batch, to the same weights but for their last bits. Raises
    FloatingPointError at the first loss that isn't finite.
    """
    check_workers(config, distributed.workers(), context.device != "cpu")
    context.prepare()
    assemble = segmenter_data.student if config.supervision == "teacher" else segmenter_data.mixed
    data = assemble(config, inputs, context)
    torch.manual_seed(derive(config.seed, "segmenter"))
    model = build(config)
    if config.init != "random":
        encoders.load(model.encoder, inputs["encoder"] / ENCODER_WEIGHTS)
    return optimise(config, model, data, out, context)


def optimise(
    config: FitConfig, model: Any, data: TrainingSet, out: Path, context: StageContext
) -> dict[str, Any]:
    """`train` from where there is a model and what it is trained on."""
    model.to(
        context.device,
        memory_format=torch.channels_last if config.channels_last else torch.contiguous_format,
    )
    network = distributed.parallel(model, context.device)
    if config.compile:
        network = torch.compile(network)
    large = (
        config.supervision == "masks" and len(data.ids) >= LARGE
    )  # students: 1e-3 in all experiments (appendix B.4)
    rate = config.learning_rate or (1e-4 if large else 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)

    progress = Progress.load(out, model, optimizer)
    for epoch in range(progress.epochs):
        data.skip(epoch)
    total, steps = (
        config.epochs * data.samples,
        config.epochs * max(1, data.samples // config.batch_size),
    )
    saved, pace = time.monotonic(), Pace()
    for epoch in range(progress.epochs, config.epochs):
        torch.manual_seed(derive(config.seed, "dropout", epoch))
        flips = torch.Generator().manual_seed(derive(config.seed, "flips", epoch))
        model.train()
        watch = losses.LossMonitor()
        for number, batch in enumerate(pace.over(data.batches(epoch)), start=1):
            step = epoch * (steps // config.epochs) + number
            if config.schedule == "cosine":
                optimizer.param_groups[0]["lr"] = (
                    rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
                )
            if config.flips:
                batch["flipped"] = (torch.rand(config.batch_size, generator=flips) < 0.5).to(
                    context.device
                )
            loss = batch_loss(config, network, distributed.shard_batch(batch))
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            where = partial(_where, step, optimizer.param_groups[0]["lr"], data.ids, batch["rows"])
            watch.add(distributed.mean(loss), where)
            done = epoch * data.samples + min(number * config.batch_size, data.samples)
            context.progress(done, total, "samples", {"epoch": epoch + 1, **pace.step()})
        mean_loss = watch.mean()
        score = selection_score(config, model, data.select)
        progress.finish_epoch(model, mean_loss, score, best=config.checkpoint == "selection")
        note = {"epoch": epoch + 1, "loss": mean_loss, "selection mIoU": score}
        context.progress((epoch + 1) * data.samples, total, "samples", note)
        if (
            distributed.rank() == 0
            and time.monotonic() - saved > context.checkpoint_seconds
            and epoch + 1 < config.epochs
        ):
            checkpoint.save(out, model, optimizer, **vars(progress))
            saved = time.monotonic()
    model.load_state_dict(progress.best_state)
    thresholds, training_iou = choose_thresholds(config, model, data.thresholds())
    facts = {
        "selection_miou": progress.best_score,
        "best_epoch": progress.best_epoch,
        "selection_curve": [entry["selection_miou"] for entry in progress.history],
        "thresholds": dict(zip(config.pathologies, thresholds, strict=True)),
        "training_iou": dict(zip(config.pathologies, training_iou, strict=True)),
        "learning_rate": rate,
        "images": len(data.ids),
        "samples": total,
        **data.facts(),
    }
    if distributed.rank() == 0:
        (out / "history.json").write_text(json.dumps(progress.history, indent=1))
        about = {
            "architecture": config.architecture,
            "init": config.init,
            "pathologies": config.pathologies,
        }
        size = data.select[0].shape[-1]
        encoders.save(model, out / SEGMENTER_WEIGHTS, size=size, thresholds=thresholds, **about)
    return facts


def _where(step: int, rate: float, ids: Sequence[str], rows_N: Any) -> str:
    """What one must know of a step to look into it."""
    return f"in step {step}, learning rate {rate:g}; images {', '.join(ids[row] for row in rows_N.tolist())}"


def build(config: FitConfig) -> Any:
    """The untrained network. Raises `UserError` for one that can't be."""
    return segmenter.build(config.architecture, len(config.pathologies))


def check_workers(config: FitConfig, workers: int, on_gpu: bool) -> None:
    """Raises `UserError` for a fit that so many workers can't share."""
    if config.batch_size % workers:
        raise UserError(
            f"fit.batch_size: found {config.batch_size} for {workers} workers; allowed: a multiple of them"
        )
    if workers > 1:
        with torch.device("meta"):
            fault = distributed.unsupported_reason(build(config), on_gpu)
        if fault:
            raise UserError(
                f"encoder.architecture: found {config.architecture!r}; allowed: one worker for it ({fault})"
            )


def batch_loss(config: FitConfig, model: Any, batch: Mapping[str, Any]) -> Any:
    """The loss on masks, or the student's cross-entropy against its teacher's soft masks.

    ``flipped``, if the batch has it, tells which rows are mirrored left to right.
    """

    def mirrored(values: Any) -> Any:
        if "flipped" not in batch:
            return values
        return torch.where(
            batch["flipped"].view(-1, *[1] * (values.ndim - 1)), values.flip(-1), values
        )

    images_NCHW = encoders.prepare(mirrored(batch["images"]), config.init)
    if not config.channels_last:
        images_NCHW = images_NCHW.contiguous()
    with torch.autocast(
        images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
    ):
        logits_NKHW = model(images_NCHW)
    if config.supervision == "teacher":
        teacher_NKHW = segmenter.upsample(mirrored(batch["teacher"]).float())
        return losses.distillation(logits_NKHW, teacher_NKHW, config.temperature)
    masks_NKHW = mirrored(radiographs.unpack_bits(batch["masks"], logits_NKHW.shape[1:]))
    return losses.SEGMENTATION[config.loss](logits_NKHW, masks_NKHW)


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

    def finish_epoch(self, model: Any, loss: float, score: float | None, best: bool = True) -> None:
        """Keep the weights if this epoch is at least as good as any before: of equals, the one trained for longest.

        Without `best` keep them anyway.
        """
        self.history.append({"epoch": self.epochs + 1, "loss": loss, "selection_miou": score})
        if not best or score is None or self.best_score is None or score >= self.best_score:
            self.best_score, self.best_epoch = score, self.epochs
            self.best_state = copy.deepcopy(model.state_dict())

    @classmethod
    def load(cls, out: Path, model: Any, optimizer: Any) -> Progress:
        """The progress saved by an interrupted run, put into model and optimizer; of none, where there is none."""
        progress = cls()
        vars(progress).update(checkpoint.load(out, model, optimizer) or {})
        return progress


def probabilities(config: FitConfig, model: Any, images_NHW: Any) -> Iterator[Any]:
    """Batches of probabilities_NKHW in the order of the images."""
    model.eval()
    with torch.inference_mode():
        for part in images_NHW.split(16):
            yield model(encoders.prepare(part, config.init)).sigmoid()


def selection_score(config: FitConfig, model: Any, select: tuple[Any, Any]) -> float | None:
    """Mean pooled IoU at 0.5 of the four common pathologies with true pixels among the held-back images.

    Where none of the four is studied or there, of all that are; None where no pathology is.
    """
    images, masks = select
    if not len(images):
        return None
    counts_3K = torch.zeros(3, len(config.pathologies), dtype=torch.int64, device=images.device)
    for predicted, packed in zip(
        probabilities(config, model, images), masks.split(16), strict=True
    ):
        true = radiographs.unpack_bits(packed, predicted.shape[1:])
        predicted = predicted > 0.5
        counts_3K += torch.stack(
            [pixels(part).sum(0) for part in (predicted & true, predicted, true)]
        )
    intersection_K, predicted_K, true_K = counts_3K.cpu().double()
    iou_K = intersection_K / (predicted_K + true_K - intersection_K)
    there = [bool(value) for value in true_K > 0]
    chosen = [k for k, name in enumerate(config.pathologies) if there[k] and name in COMMON]
    chosen = chosen or [k for k in range(len(there)) if there[k]]
    return float(iou_K[chosen].mean()) if chosen else None


def choose_thresholds(
    config: FitConfig, model: Any, batches: Iterator[Mapping[str, Any]]
) -> tuple[list[float], list[float | None]]:
    """The output threshold per pathology, and its pooled IoU on the training images (None without a true pixel).

    batches: ``images`` (N, H, W) and packed ``masks`` (N, bytes) of all training images.
    """
    histogram = Histogram.empty(len(config.pathologies))
    for batch in batches:
        (predicted,) = probabilities(config, model, batch["images"])
        histogram = histogram + Histogram.of(
            predicted, radiographs.unpack_bits(batch["masks"], predicted.shape[1:])
        )
    if config.thresholds == "training":
        thresholds, iou = (values.tolist() for values in histogram.best())
    else:
        thresholds = [config.thresholds] * len(config.pathologies)
        iou = histogram.iou_KT()[:, round(config.thresholds * len(GRID))].tolist()
    return np.round(thresholds, 2).tolist(), [None if value != value else value for value in iou]
