"""IRNet: refine CAMs with a learned boundary map (paper, appendices A.2 and B.3).

Trains both branches of IRNet on the confident pixels of the training images' CAMs, then spreads
every CAM by a random walk that boundaries stop. Writes ``irnet.safetensors``, ``history.json`` with
the losses of each hundredth of the steps, and ``train/part-*.parquet`` and
``valid/part-*.parquet``: float16 scores at stride 4, each scaled by its maximum. The thresholds
(0.6 by default) are in the metadata of the training shards and in ``thresholds.json``, those of
single images beside their scores. The shards of `valid` also hold the boundary maps, for
inspection. Pixel counts of the weak masks of `valid` are in ``counts.parquet``
(`stages.scoring.weak_label_scores`).

With `boundaries` false no network is trained, and CAMs spread equally in all directions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling import splits
from chexseg.data.transfer import to_device
from chexseg.errors import UserError
from chexseg.models import distributed, encoders, irnet, irnet_losses
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency import gradcam, instances, otsu, random_walk
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs, saliency
from chexseg.stages.configuration.irnet import REFERENCE_SIDE
from chexseg.stages.scoring import weak_label_masks, weak_label_scores
from chexseg.stages.training import checkpoint, irnet_data, precision, ray_train, workers
from chexseg.stages.training.loop import POINTS, Loop, StepLosses

#: Value of `losses` -> the function.
LOSSES = {
    "pooled": irnet_losses.pair_losses,
    "published": irnet_losses.published_losses,
}


def run(
    config: configs.IRNetConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train`` and ``valid``, both ingested, and ``saliency``.

    Also ``encoder``, unless the init is random or no network is trained.
    """
    facts = {}
    if config.boundaries:
        # Only several workers need Ray Train: the walk runs in this process in any case.
        failures = context.train_failures if context.train_workers > 1 else None
        in_train = replace(context, train_failures=failures)
        facts = ray_train.train_once(train, config, inputs, out, in_train)
    chosen: dict[str, Any] = {}
    if config.threshold != "training":
        fixed = None if config.threshold == "otsu" else config.threshold
        chosen["thresholds"] = dict.fromkeys(PATHOLOGIES, fixed)
    rule = {"negatives_empty": config.negatives_empty}
    metadata = {"kind": "irnet", "pathologies": PATHOLOGIES, **chosen, **rule}
    for split in ("train", "valid"):
        (out / split).mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {"config": config, "context": context}
    # Spread the few expert images first: they may give the thresholds.
    walk_expert = _WalkWriter(
        **arguments,
        metadata=metadata,
        images=str(inputs["valid"] / "images"),
        out=str(out / "valid"),
        keep_boundary=config.boundaries,
    )
    walked = sum(walk_expert(path)["images"] for path in shards.files(inputs["saliency"] / "valid"))
    cams = shards.read(inputs["saliency"] / artifacts.COUNTS, ["image_id", "chosen_on"]).to_pandas()
    chosen_on = cams["image_id"][cams["chosen_on"]].unique().tolist()
    if not chosen:
        chosen = saliency.choose_thresholds(config, inputs["valid"], out / "valid", chosen_on)
    answers = ray_data.map_files(
        shards.files(inputs["saliency"] / "train"),
        _WalkWriter,
        {
            **arguments,
            "metadata": {**metadata, "thresholds": chosen["thresholds"], **rule},
            "context": context.for_worker(),
            "images": str(inputs["train"] / "images"),
            "out": str(out / "train"),
        },
        workers=context.map_workers,
        num_gpus=context.map_gpus,
        single_node=context.single_node,
        progress=lambda files, total: context.progress(files, total, "files"),
    )
    context.prepare()  # a single worker runs in this process and has set one thread
    (out / artifacts.THRESHOLDS).write_text(json.dumps(chosen["thresholds"], indent=1))
    return {
        **facts,
        "images": sum(answer["images"] for answer in answers),
        "expert_images": walked,
        **chosen,
        "valid_iou": weak_label_scores.write(
            inputs["valid"], out, chosen["thresholds"], chosen_on, config.negatives_empty
        ),
    }


def build(config: configs.IRNetConfig, encoder: Path | None = None) -> irnet.IRNet:
    """Return the untrained network, with the backbone of an encoder if one is given.

    encoder: directory of the encoder. Raises `UserError` for an unusable architecture.
    """
    encoders.check(config.architecture, "irnet.architecture")
    try:
        model = irnet.IRNet(config.architecture, config.freezes())
    except ValueError as error:
        raise UserError(
            f"irnet.architecture: found {config.architecture!r};"
            f" expected an encoder that can be dilated ({error})"
        ) from None
    if encoder is not None:
        encoders.load(model.encoder, encoder / artifacts.ENCODER_WEIGHTS)
    return model


def train(
    config: configs.IRNetConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Train both branches by SGD, or resume a training."""
    context.prepare()
    precision.use(config.precision)
    torch.manual_seed(derive(config.seed, "irnet"))
    ids = splits.sample(
        radiographs.ids(inputs["saliency"] / "train"), config.images, config.seed, "irnet images"
    )
    batch_size = min(config.batch_size, len(ids))
    shared = config.model_copy(update={"batch_size": batch_size})
    workers.check("irnet", shared, build, distributed.workers(), context.device != "cpu")
    source = irnet_data.source(config, inputs, ids, context)
    normalisation = irnet_data.normalisation(config, inputs)
    model = build(config, None if config.init == "random" else inputs["encoder"])
    # torch's stubs lack this overload.
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameter_groups(config.learning_rate),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        # Only this one can read its learning rate from the GPU, as a captured step needs.
        fused=context.device != "cpu",
    )
    steps = max(1, config.epochs * len(ids) // batch_size)
    power = 0.9 if config.schedule == "polynomial" else 0  # constant
    decay = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=power)
    progress = checkpoint.load(out, model, optimizer) or {
        "step": 0,
        "history": [],
        "decay": decay.state_dict(),
    }
    decay.load_state_dict(progress["decay"])
    done = progress["step"]
    source.skip(done * batch_size)
    network = distributed.parallel(model, context.device)

    def batches() -> Iterator[dict[str, Tensor]]:
        for step in range(done + 1, steps + 1):
            yield irnet_data.prepared(config, source.take(batch_size), step)

    def losses(batch: Mapping[str, Tensor]) -> StepLosses:
        images_NHW, seeds_NKhw = irnet_data.example(config, batch)
        images_NCHW = encoders.prepare(images_NHW, normalisation)
        with precision.autocast(config.precision, context.device):
            boundary_Nhw, displacement_N2hw = network(images_NCHW)
        radius = config.pair_radius(boundary_Nhw.shape[-1])
        parts = LOSSES[config.losses](boundary_Nhw, displacement_N2hw, seeds_NKhw, radius)
        return StepLosses(parts["total"], parts)

    def report(step: int, timing: dict[str, float]) -> None:
        # On a GPU the first step's figures come with the second one.
        loss = progress["history"][-1]["total"] if progress["history"] else None
        note = {"loss": loss, **timing}
        context.progress(step * batch_size, steps * batch_size, "images", note)

    loop = Loop(
        out,
        context,
        model,
        optimizer,
        losses,
        seed=partial(derive, config.seed, "irnet"),
        record=progress["history"].append,
        report=report,
        steps=steps,
        state=progress,
    )
    model.train()
    for _ in loop.run(batches()):
        decay.step()
        progress["decay"] = decay.state_dict()
    source.skip(-source.taken % len(ids))  # start a new pass, to take each image once
    parts = (source.take(min(16, len(ids) - start))["images"] for start in range(0, len(ids), 16))
    model.calibrate(encoders.prepare(images, normalisation) for images in parts)
    if distributed.rank() == 0:
        (out / artifacts.HISTORY).write_text(json.dumps(mean_losses(progress["history"]), indent=1))
        encoders.save(
            model,
            out / artifacts.IRNET_WEIGHTS,
            architecture=config.architecture,
            init=config.init,
            normalisation=normalisation,
        )
    last = progress["history"][-max(1, steps // 10) :]
    return {
        "training_images": len(ids),
        "steps": steps,
        "losses": {name: float(np.mean([values[name] for values in last])) for name in last[0]},
    }


def mean_losses(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return step, `loss` and its parts, as means over at most `POINTS` equal parts of the steps.

    history: name -> loss of each step. The last part may be shorter.
    """
    size, means = math.ceil(len(history) / POINTS), []
    for start in range(0, len(history), size):
        part = history[start : start + size]
        mean = {name: float(np.mean([losses[name] for losses in part])) for name in part[0]}
        means.append({"step": start + len(part), "loss": mean.pop("total"), **mean})
    return means


class _WalkWriter:
    """Writes the spread CAMs of one shard, unless the file exists.

    images: directory of the images. keep_boundary: write boundary maps too.
    """

    def __init__(
        self,
        config: configs.IRNetConfig,
        images: str,
        out: str,
        metadata: dict[str, Any],
        context: api.StageContext,
        keep_boundary: bool = False,
    ):
        context.prepare()
        self.config, self.device = config, context.device
        self.batch_size = context.inference_batch(16)
        self.images, self.out, self.metadata = Path(images), Path(out), metadata
        self.keep_boundary = keep_boundary
        self.model = None
        if config.boundaries:
            self.model = build(config)
            weights = self.out.parent / artifacts.IRNET_WEIGHTS
            encoders.load(self.model, weights)
            self.normalisation = encoders.describe(weights).get("normalisation", config.init)
            self.model.to(self.device).eval()

    def __call__(self, path: str) -> dict[str, Any]:
        # Reading, the network and writing run in parallel.
        tables = radiographs.prefetch(self.walks(path))
        return {"images": shards.complete(self.out / Path(path).name, tables)}

    def walks(self, path: str) -> Iterator[pa.Table]:
        """Yield tables of spread CAMs, one batch of a shard's images at a time."""
        for ids, arrays in radiographs.to_host(self._batches(path)):
            yield shards.table({"image_id": ids}, arrays, **self.metadata)

    def _batches(self, path: str) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        cams = shards.read(path, ["image_id", "scores"])
        maps_NKhw = torch.from_numpy(shards.array(cams, "scores").copy())
        batches = radiographs.shard_pixels(
            self.images / Path(path).name,
            set(cams["image_id"].to_pylist()),
            self.batch_size,
            self.device,
        )
        for (ids, pixels_NHW), maps in zip(batches, maps_NKhw.split(self.batch_size), strict=True):
            spread_NKhw, boundary_Nhw = self.spread(
                to_device(pixels_NHW, self.device),
                to_device(maps, self.device).float(),
            )
            if self.config.normalise == "map":
                spread_NKhw = gradcam.normalise(spread_NKhw)
            else:
                spread_NKhw = random_walk.scaled_by_upsampled_maximum(
                    spread_NKhw, pixels_NHW.shape[-1]
                )
            scores_NKhw = spread_NKhw.half()
            arrays = {"scores": scores_NKhw}
            if self.config.threshold == "otsu":
                ones_NK = torch.ones_like(scores_NKhw[..., 0, 0], dtype=torch.float32)
                thresholds_NK = otsu.thresholds(scores_NKhw, ones_NK, pixels_NHW.shape[-1])
                arrays[weak_label_masks.IMAGE_THRESHOLDS] = thresholds_NK
            if self.keep_boundary:
                arrays["boundary"] = (255 * boundary_Nhw).round().byte()
            yield ids, arrays

    def spread(self, pixels_NHW: Tensor, maps_NKhw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the CAMs after their random walk, and boundary_Nhw, both at stride 4."""
        side = -(-pixels_NHW.shape[-1] // irnet.STRIDE)
        maps_NKhw = interpolate(maps_NKhw, size=(side, side), mode="bilinear", align_corners=False)
        radius, steps = self.config.walk_radius, 2**self.config.walk_steps_log2
        if self.config.lengths == "relative":
            radius, steps = random_walk.relative_walk(side / REFERENCE_SIDE, radius, steps)
        walk = (radius, self.config.walk_power, steps)
        if self.model is None:
            boundary_Nhw = torch.zeros_like(maps_NKhw[:, 0])
            return random_walk.propagate(maps_NKhw, boundary_Nhw, *walk), boundary_Nhw
        boundary_Nhw, displacement_N2hw = self.model.predict(
            encoders.prepare(pixels_NHW, self.normalisation)
        )
        if not self.config.instances:
            return random_walk.propagate(maps_NKhw, boundary_Nhw, *walk), boundary_Nhw
        numbers_Nhw = instances.instance_map(displacement_N2hw)
        return (
            instances.instance_wise_cams(
                maps_NKhw, boundary_Nhw, numbers_Nhw, self.config.foreground, *walk
            ),
            boundary_Nhw,
        )
