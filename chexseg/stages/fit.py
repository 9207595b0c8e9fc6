"""Fit: train a segmenter on expert and weak masks mixed with probability p, or as a student.

The paper's section 4.1 and appendix B.2; a student learns from a teacher's soft masks. Writes
``segmenter.safetensors`` and a JSON with its architecture and thresholds. The epoch and the output
thresholds are chosen by `training.segmenter_selection`. No test image is read.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from chexseg.data import radiographs
from chexseg.errors import UserError
from chexseg.models import distributed, encoders, losses, segmenter
from chexseg.saliency.thresholds import TargetHistogram
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs
from chexseg.stages.training import (
    checkpoint,
    compiler,
    ray_train,
    segmenter_data,
    segmenter_selection,
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
        batch_histogram = (
            TargetHistogram.empty(len(config.pathologies), context.device)
            if config.thresholds == "training-batches"
            else None
        )
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
            logits, targets = forward(config, network, distributed.shard_batch(batch))
            loss = loss_on(config, logits, targets)
            if batch_histogram is not None:
                probabilities = logits.detach().float().sigmoid()
                batch_histogram = batch_histogram + TargetHistogram.of(probabilities, targets)
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
        score = segmenter_selection.selection_score(config, model, data.select)
        progress.finish_epoch(
            model,
            mean_loss,
            score,
            best=config.checkpoint != "last",
            thresholds=None
            if batch_histogram is None
            else segmenter_selection.batch_thresholds(config, batch_histogram),
        )
        note = {"epoch": epoch + 1, "loss": mean_loss, "selection mIoU": score}
        context.progress((epoch + 1) * data.samples, total, "samples", note)
        if (
            distributed.rank() == 0
            and time.monotonic() - saved_at > context.checkpoint_seconds
            and epoch + 1 < config.epochs
        ):
            checkpoint.save(out, model, optimizer, **vars(progress))
            saved_at = time.monotonic()
    if config.epochs:
        model.load_state_dict(progress.best_state)
    else:
        progress.best_score = segmenter_selection.selection_score(config, model, data.select)
    thresholds, training_iou = progress.best_thresholds or segmenter_selection.choose_thresholds(
        config,
        model,
        segmenter_data.in_batches(data.select)
        if config.thresholds == "selection"
        else data.thresholds(),
    )
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


def loss_on(config: configs.FitConfig, logits_NKHW: Tensor, targets_NKHW: Tensor) -> Tensor:
    """Return the loss on masks, or a student's cross-entropy against its teacher's soft masks."""
    if config.supervision == "teacher":
        return losses.distillation(logits_NKHW, targets_NKHW, config.temperature)
    return losses.SEGMENTATION[config.loss](logits_NKHW, targets_NKHW)


def forward(
    config: configs.FitConfig, model: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return (logits_NKHW, targets_NKHW): masks, or the teacher's logits for a student.

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
        return logits_NKHW, segmenter.upsample(mirrored(batch["teacher"]).float())
    return logits_NKHW, mirrored(radiographs.unpack_bits(batch["masks"], logits_NKHW.shape[1:]))


@dataclass
class Progress:
    """State of a fit after an epoch, sufficient to resume to the same final weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float | None = None
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    #: Thresholds and IoUs of the best epoch's own batches, if the config wants them.
    best_thresholds: segmenter_selection.Thresholds | None = None

    def finish_epoch(
        self,
        model: nn.Module,
        loss: float,
        score: float | None,
        best: bool = True,
        thresholds: segmenter_selection.Thresholds | None = None,
    ) -> None:
        """Record an epoch, and keep its weights if no earlier epoch has a higher score.

        Without `best` keep them in any case. The epoch's thresholds are kept with its weights.
        """
        epoch = len(self.history) + 1
        self.history.append({"epoch": epoch, "loss": loss, "selection_miou": score})
        if not best or score is None or self.best_score is None or score >= self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self.best_state = copy.deepcopy(model.state_dict())
            self.best_thresholds = thresholds
