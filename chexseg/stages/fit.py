"""Fit: train a segmenter on expert and weak masks mixed with probability p, or as a student.

The paper's section 4.1 and appendix B.2; a student learns from a teacher's soft masks. Writes
``segmenter.safetensors`` and a JSON with its architecture and thresholds. The epoch and the output
thresholds are chosen by `training.segmenter_selection`. No test image is read.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from chexseg.data import radiographs
from chexseg.models import distributed, encoders, losses, segmenter
from chexseg.saliency.thresholds import TargetHistogram
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs
from chexseg.stages.training import (
    checkpoint,
    compiler,
    precision,
    ray_train,
    segmenter_data,
    segmenter_selection,
    workers,
)
from chexseg.stages.training.loop import Loop, StepLosses

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
    workers.check("fit", config, build, distributed.workers(), context.device != "cpu")
    context.prepare()
    precision.use(config.precision)
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

    epoch_steps = max(1, data.samples // config.batch_size)
    total, steps = config.epochs * data.samples, config.epochs * epoch_steps
    progress = Progress.resumed(checkpoint.load(out, model, optimizer), epoch_steps)
    first = len(progress.history)
    for epoch in range(first):
        data.skip(epoch)
    epoch_losses: list[float] = []
    histogram = None
    if config.thresholds == "training-batches":
        histogram = TargetHistogram.empty(len(config.pathologies), context.device)

    def batches() -> Iterator[dict[str, Tensor]]:
        for epoch in range(first, config.epochs):
            flips = torch.Generator().manual_seed(derive(config.seed, "flips", epoch))
            for batch in data.batches(epoch):
                if config.flips:
                    batch["flipped"] = torch.rand(config.batch_size, generator=flips) < 0.5
                yield batch

    def batch_losses(batch: Mapping[str, Tensor]) -> StepLosses:
        logits, targets = forward(config, network, batch)
        loss = loss_on(config, logits, targets)
        if histogram is not None:
            histogram.add_(logits.detach().float().sigmoid(), targets)
        return StepLosses(loss, {"loss": loss})

    def seed(step: int) -> int | None:
        epoch, done = divmod(step - 1, epoch_steps)
        return None if done else derive(config.seed, "dropout", epoch)

    def report(step: int, timing: dict[str, float]) -> None:
        epoch, number = (step - 1) // epoch_steps, (step - 1) % epoch_steps + 1
        done = epoch * data.samples + min(number * config.batch_size, data.samples)
        context.progress(done, total, "samples", {"epoch": epoch + 1, **timing})

    loop = Loop(
        out,
        context,
        model,
        optimizer,
        batch_losses,
        seed=seed,
        record=lambda figures: epoch_losses.append(figures["loss"]),
        report=report,
        steps=steps,
        state=vars(progress),
        rate=(lambda step: rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2)
        if config.schedule == "cosine"
        else None,
        clip_norm=config.clip_norm,
        ids=data.ids,
    )
    model.train()
    for step in loop.run(batches(), save_every=epoch_steps):
        if step % epoch_steps:
            continue
        loop.flush()
        mean_loss = sum(epoch_losses) / len(epoch_losses)
        score = segmenter_selection.selection_score(config, model, data.select)
        of_batches = None
        if histogram is not None:
            of_batches = segmenter_selection.batch_thresholds(config, histogram)
            histogram.sums_2KB.zero_()
        best = config.checkpoint != "last"
        progress.finish_epoch(model, mean_loss, score, best, of_batches)
        note = {"epoch": step // epoch_steps, "loss": mean_loss, "selection mIoU": score}
        context.progress(step // epoch_steps * data.samples, total, "samples", note)
        epoch_losses.clear()
        model.train()
    facts = {"learning_rate": rate, "samples": total}
    return facts | _finish(config, model, data, progress, out)


def _finish(
    config: configs.FitConfig,
    model: smp.DeepLabV3Plus,
    data: segmenter_data.TrainingSet,
    progress: Progress,
    out: Path,
) -> dict[str, Any]:
    """Choose the thresholds of the kept epoch, write the stage's files, and return its facts."""
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
        "images": len(data.ids),
        **data.facts(),
    }
    if distributed.rank() == 0:
        (out / artifacts.HISTORY).write_text(json.dumps(progress.history, indent=1))
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


def build(config: configs.FitConfig) -> smp.DeepLabV3Plus:
    """Return the untrained network. Raises `UserError` for an unusable architecture."""
    return segmenter.build(config.architecture, len(config.pathologies))


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
    with precision.autocast(config.precision, images_NCHW.device):
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
    step: int = 0

    @classmethod
    def resumed(cls, saved: Mapping[str, Any] | None, epoch_steps: int) -> Progress:
        """Return the saved progress, or that of a new fit. epoch_steps: steps of an epoch."""
        progress = cls(**(saved or {}))
        progress.step = len(progress.history) * epoch_steps  # earlier versions didn't save it
        return progress

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
