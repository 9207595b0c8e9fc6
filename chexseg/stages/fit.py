"""Fit: train a segmenter on expert and weak masks mixed with probability p, or as a student.

The paper's section 4.1 and appendix B.2; a student learns from a teacher's soft masks. Writes
``segmenter.safetensors`` and a JSON with its architecture and thresholds. The epoch is chosen on
held-back expert images, the output thresholds on training images. No test image is read.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from chexseg.data import radiographs
from chexseg.errors import UserError
from chexseg.models import distributed, encoders, losses, segmenter
from chexseg.pathologies import COMMON
from chexseg.saliency.thresholds import GRID, Histogram
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs
from chexseg.stages.scoring.mask_counts import MaskCounter
from chexseg.stages.training import (
    checkpoint,
    compiler,
    ray_train,
    segmenter_data,
    step_timer,
)

#: Number of training images from which on the paper's learning rate for "a large amount of data"
#: is used.
LARGE = 2000


def run(
    config: configs.FitConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``valid``, and ``encoder`` unless the init is random.

    Also ``train`` and ``weak`` if p allows weak labels; ``train`` and ``teacher`` for a student.
    """
    return ray_train.train_once(train, config, inputs, out, context)


def train(
    config: configs.FitConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Train, or resume an interrupted training; on a CPU with bit-identical weights.

    In a process group each worker takes its share of every batch, which changes the last bits.
    Raises FloatingPointError at the first loss that is not finite.
    """
    check_workers(config, distributed.workers(), context.device != "cpu")
    context.prepare()
    assemble = segmenter_data.student if config.supervision == "teacher" else segmenter_data.mixed
    data = assemble(config, inputs, context)
    torch.manual_seed(derive(config.seed, "segmenter"))
    model = build(config)
    if config.init != "random":
        encoders.load(model.encoder, inputs["encoder"] / artifacts.ENCODER_WEIGHTS)
    return optimise(config, model, data, out, context)


def optimise(
    config: configs.FitConfig,
    model: smp.DeepLabV3Plus,
    data: segmenter_data.TrainingSet,
    out: Path,
    context: api.StageContext,
) -> dict[str, Any]:
    """Train a model on data, as `train` does, and return the facts of the stage."""
    model.to(
        context.device,
        memory_format=torch.channels_last if config.channels_last else torch.contiguous_format,
    )
    network: Callable[[Tensor], Tensor] = distributed.parallel(model, context.device)
    if config.compile:
        network = compiler.compiled(network)
    # Students train at 1e-3 in all experiments (appendix B.4).
    large = config.supervision == "masks" and len(data.ids) >= LARGE
    rate = config.learning_rate or (1e-4 if large else 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)

    progress = Progress(**(checkpoint.load(out, model, optimizer) or {}))
    first = len(progress.history)
    for epoch in range(first):
        data.skip(epoch)
    total, steps = (
        config.epochs * data.samples,
        config.epochs * max(1, data.samples // config.batch_size),
    )
    saved_at, timer = time.monotonic(), step_timer.StepTimer()
    for epoch in range(first, config.epochs):
        torch.manual_seed(derive(config.seed, "dropout", epoch))
        flips = torch.Generator().manual_seed(derive(config.seed, "flips", epoch))
        model.train()
        monitor = losses.LossMonitor()
        for number, batch in enumerate(timer.over(data.batches(epoch)), start=1):
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
            describe = partial(
                _describe_step, step, optimizer.param_groups[0]["lr"], data.ids, batch["rows"]
            )
            monitor.add(distributed.mean(loss), describe)
            done = epoch * data.samples + min(number * config.batch_size, data.samples)
            context.progress(done, total, "samples", {"epoch": epoch + 1, **timer.finish_step()})
        mean_loss = monitor.mean()
        score = selection_score(config, model, data.select)
        progress.finish_epoch(model, mean_loss, score, best=config.checkpoint == "selection")
        note = {"epoch": epoch + 1, "loss": mean_loss, "selection mIoU": score}
        context.progress((epoch + 1) * data.samples, total, "samples", note)
        if (
            distributed.rank() == 0
            and time.monotonic() - saved_at > context.checkpoint_seconds
            and epoch + 1 < config.epochs
        ):
            checkpoint.save(out, model, optimizer, **vars(progress))
            saved_at = time.monotonic()
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
        encoders.save(
            model,
            out / artifacts.SEGMENTER_WEIGHTS,
            size=data.select[0].shape[-1],
            thresholds=thresholds,
            architecture=config.architecture,
            init=config.init,
            pathologies=config.pathologies,
            # Left out where it is the default, so that these descriptions keep their bytes.
            **({} if data.image_resize == "antialiased" else {"image_resize": data.image_resize}),
        )
    return facts


def _describe_step(step: int, rate: float, ids: Sequence[str], rows_N: Tensor) -> str:
    """Return the step, its learning rate and its images, for an error message."""
    images = ", ".join(ids[row] for row in rows_N.tolist())
    return f"in step {step}, learning rate {rate:g}; images {images}"


def build(config: configs.FitConfig) -> smp.DeepLabV3Plus:
    """Return the untrained network. Raises `UserError` for an unusable architecture."""
    return segmenter.build(config.architecture, len(config.pathologies))


def check_workers(config: configs.FitConfig, workers: int, on_gpu: bool) -> None:
    """Raise `UserError` if this number of workers can't share the fit."""
    if config.batch_size % workers:
        raise UserError(
            f"fit.batch_size: found {config.batch_size};"
            f" expected a multiple of {workers}, the number of workers"
        )
    if workers > 1:
        with torch.device("meta"):
            fault = distributed.unsupported_reason(build(config), on_gpu)
        if fault:
            raise UserError(
                f"encoder.architecture: found {config.architecture!r} for {workers} workers;"
                f" expected one worker ({fault})"
            )


def batch_loss(
    config: configs.FitConfig, model: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor]
) -> Tensor:
    """Return the loss on masks, or a student's cross-entropy against its teacher's soft masks.

    ``flipped`` in the batch, if present, marks the rows to flip horizontally.
    """

    def mirrored(values: Tensor) -> Tensor:
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
    """State of a fit after an epoch, sufficient to resume to the same final weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float | None = None
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def finish_epoch(
        self, model: nn.Module, loss: float, score: float | None, best: bool = True
    ) -> None:
        """Record an epoch, and keep its weights if no earlier epoch has a higher score.

        Without `best` keep them in any case.
        """
        epoch = len(self.history) + 1
        self.history.append({"epoch": epoch, "loss": loss, "selection_miou": score})
        if not best or score is None or self.best_score is None or score >= self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self.best_state = copy.deepcopy(model.state_dict())


def probabilities(
    config: configs.FitConfig, model: nn.Module, images_NHW: Tensor
) -> Iterator[Tensor]:
    """Yield batches of probabilities_NKHW in the order of the images."""
    model.eval()
    with torch.inference_mode():
        for part in images_NHW.split(16):
            yield model(encoders.prepare(part, config.init)).sigmoid()


def selection_score(
    config: configs.FitConfig, model: nn.Module, select: segmenter_data.MaskedImages
) -> float | None:
    """Return the mean over pathologies of the IoU at threshold 0.5, pooled over held-back images.

    Averages the four common pathologies that are studied and have true pixels; without any of
    these, all pathologies with true pixels; None without any.
    """
    images, masks = select
    if not len(images):
        return None
    counter = MaskCounter((), config.pathologies, images.shape[-1])
    for predicted, packed in zip(
        probabilities(config, model, images), masks.split(16), strict=True
    ):
        counter.count(predicted > 0.5, radiographs.unpack_bits(packed, predicted.shape[1:]))
    counts_K3 = torch.from_numpy(counter.counts_IK3().sum(axis=0)).double()
    intersection_K, predicted_K, true_K = counts_K3.T
    iou_K = intersection_K / (predicted_K + true_K - intersection_K)
    occurring = [k for k, true in enumerate(true_K.tolist()) if true > 0]
    chosen = [k for k in occurring if config.pathologies[k] in COMMON] or occurring
    return float(iou_K[chosen].mean()) if chosen else None


def choose_thresholds(
    config: configs.FitConfig, model: nn.Module, batches: Iterator[Mapping[str, Tensor]]
) -> tuple[list[float], list[float | None]]:
    """Return each pathology's output threshold, and its pooled IoU on the training images.

    The IoU is None for a pathology without a true pixel. batches: ``images`` (N, H, W) and packed
    ``masks`` (N, bytes) of all training images.
    """
    histogram = Histogram.empty(len(config.pathologies))
    for batch in batches:
        (predicted,) = probabilities(config, model, batch["images"])
        histogram = histogram + Histogram.of(
            predicted, radiographs.unpack_bits(batch["masks"], predicted.shape[1:])
        )
    if isinstance(config.thresholds, str):  # "training"
        thresholds, iou = (values.tolist() for values in histogram.best())
    else:
        thresholds = [config.thresholds] * len(config.pathologies)
        iou = histogram.iou_KT()[:, round(config.thresholds * len(GRID))].tolist()
    return np.round(thresholds, 2).tolist(), [None if value != value else value for value in iou]
