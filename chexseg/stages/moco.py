"""MoCo: pretrain the segmenter's encoder on images without labels (the paper, section 4.3).

MoCo v2 (models.moco) with augmentations suited to radiographs, as in Sowrirajan et al. 2021,
"MoCo-CXR". Writes ``encoder.safetensors``, and ``history.json`` with loss and accuracy of each
hundredth of the steps.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chexseg.data import radiographs
from chexseg.data.sampling import radiograph_samplers
from chexseg.data.transfer import to_device
from chexseg.errors import UserError
from chexseg.models import augmentation, distributed, encoders, moco
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs
from chexseg.stages.training import checkpoint, precision, ray_train, workers
from chexseg.stages.training.loop import POINTS, Loop, StepLosses, running_mean

#: Largest default queue, in keys; the value of MoCo-CXR's code.
LARGEST_QUEUE = 24576


def run(
    config: configs.MoCoConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train``, ingested, and ``encoder``, unless the init is random.

    Raises `UserError` if the batch or the queue is larger than the training set.
    """
    return ray_train.train_once(train, config, inputs, out, context)


def build(config: configs.MoCoConfig) -> moco.Embedding:
    """Return the untrained query network. Raises `UserError` for an unknown architecture."""
    return moco.build(config.architecture)


def queue_length(config: configs.MoCoConfig, images: int) -> int:
    """Return the number of keys in the queue. Raises `UserError` for too few training images."""
    for field in ("batch_size", "queue"):
        if (getattr(config, field) or 0) > images:
            raise UserError(
                f"moco.{field}: found {getattr(config, field)};"
                f" expected at most {images}, the number of training images"
            )
    return config.queue or max(1, min(LARGEST_QUEUE, images // 4))


def train(
    config: configs.MoCoConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Train, or resume an interrupted training; on a CPU with bit-identical weights.

    The facts include running means of the loss and of `models.moco.accuracy`.
    """
    workers.check("moco", config, build, distributed.workers(), context.device != "cpu")
    context.prepare()
    precision.use(config.precision)
    image_ids = radiographs.index(inputs["train"])["image_id"].tolist()
    queue = queue_length(config, len(image_ids))
    torch.manual_seed(derive(config.seed, "moco"))
    query = build(config)
    if config.init != "random":
        encoders.load(query.body, inputs["encoder"] / artifacts.ENCODER_WEIGHTS)
    model = moco.MoCo(query, queue, config.momentum, config.temperature)
    # torch's stubs lack this overload.
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = radiograph_samplers.source(
        inputs["train"],
        image_ids,
        {},
        derive(config.seed, "moco samples"),
        context.device,
        context.resident_budget(),
    )
    strength = augmentation.Augmentation(
        config.crop, config.rotation, config.flip, config.brightness, config.contrast
    )
    optimizer = torch.optim.Adam(
        model.query.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    steps = max(1, config.epochs * len(image_ids) // config.batch_size)
    progress = checkpoint.load(out, model, optimizer) or {"step": 0, "loss": None, "accuracy": None}
    progress.setdefault("history", [])  # earlier versions didn't save it
    done = progress["step"]
    recorded = itertools.count(done + 1)
    source.skip(done * config.batch_size)

    def view(batch: Mapping[str, Tensor], number: int) -> Tensor:
        views_NHW = augmentation.views(batch["images"], strength, batch[f"draws {number}"])
        return encoders.prepare(views_NHW, "moco")

    def batches() -> Iterator[dict[str, Tensor]]:
        for step in range(done + 1, steps + 1):
            generator = torch.Generator().manual_seed(derive(config.seed, "moco views", step))
            batch = {"images": source.take(config.batch_size)["images"]}
            for number in range(2):
                draws_N7 = augmentation.view_draws(config.batch_size, generator)
                batch[f"draws {number}"] = to_device(draws_N7, context.device)
            yield batch

    step_seed, stream = partial(derive, config.seed, "moco"), batches()
    if done == 0:
        # Before the workers share the network: each has the whole batch here.
        torch.manual_seed(step_seed(1))
        first = next(stream)
        stream = itertools.chain([first], stream)
        images_NCHW = view(first, 0)
        with precision.autocast(config.precision, context.device):
            model.calibrate(images_NCHW)
    network = distributed.parallel(query, context.device)

    def losses(batch: Mapping[str, Tensor]) -> StepLosses:
        pair = view(batch, 0), view(batch, 1)  # the views' coordinates are always float32
        with precision.autocast(config.precision, context.device):
            queries_ND, keys_ND = model(*pair, network)
        logits = model.logits(queries_ND, keys_ND)
        loss = moco.info_nce(logits)
        return StepLosses(
            loss,
            {"loss": loss, "accuracy": moco.accuracy(logits.detach())},
            after=partial(model.update, keys_ND),
        )

    def record(figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            progress[name] = running_mean(progress[name], value)
        step = next(recorded)  # on a GPU the step before the current one
        if step % math.ceil(steps / POINTS) == 0 or step == steps:
            entry = {"step": step, **{name: progress[name] for name in figures}}
            progress["history"].append(entry)

    loop = Loop(
        out,
        context,
        model,
        optimizer,
        losses,
        # The first step's random numbers follow those of the calibration.
        seed=lambda step: None if done == 0 and step == 1 else step_seed(step),
        record=record,
        report=lambda step, timing: context.progress(
            step * config.batch_size,
            steps * config.batch_size,
            "images",
            {name: progress[name] for name in ("loss", "accuracy")} | timing,
        ),
        steps=steps,
        state=progress,
        rate=partial(learning_rate, config, steps=steps),
    )
    for _ in loop.run(stream):
        pass
    if distributed.rank() == 0:
        (out / artifacts.HISTORY).write_text(json.dumps(progress["history"], indent=1))
        encoders.save(
            model.query.body,
            out / artifacts.ENCODER_WEIGHTS,
            architecture=config.architecture,
            init="moco",
        )
    return {
        "loss": progress["loss"],
        "accuracy": progress["accuracy"],
        "queue": queue,
        "steps": steps,
        "images": len(image_ids),
    }


def learning_rate(config: configs.MoCoConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 1.

    It falls along half a cosine, from the config's rate in the first step to nearly 0 in the last.
    """
    return config.learning_rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
