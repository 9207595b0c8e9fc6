"""Classify: train a classifier of CheXpert's 14 observations (the paper, appendix B.1).

Writes ``classifier.safetensors``: the checkpoint with the best mean AUROC of CheXpert's five
competition tasks on `valid`, over its images or its studies; ``roc.json`` with its ROC curves, and
``history.json`` with loss and mean AUROC of all checkpoints. A set too large for memory is streamed
by Ray Data (`data.sampling.radiograph_samplers`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from chexseg.data import chexpert, radiographs
from chexseg.data.sampling import radiograph_samplers
from chexseg.models import classifier, distributed, encoders, losses
from chexseg.pathologies import COMPETITION, OBSERVATIONS
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs
from chexseg.stages.training import (
    checkpoint,
    classifier_data,
    precision,
    ray_train,
    workers,
)
from chexseg.stages.training.loop import Loop, StepLosses, running_mean


def run(
    config: configs.ClassifyConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train`` and ``valid``, both ingested in the config's geometry.

    Also ``encoder``, unless the init is random.
    """
    return ray_train.train_once(train, config, inputs, out, context)


def build(config: configs.ClassifyConfig) -> classifier.Classifier:
    """Return the untrained network. Raises `UserError` for an unknown architecture."""
    return classifier.build(config.architecture)


def train(
    config: configs.ClassifyConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Train, or resume an interrupted training; on a CPU with bit-identical weights."""
    stage = "pretrain" if isinstance(config, configs.PretrainConfig) else "classify"
    workers.check(stage, config, build, distributed.workers(), context.device != "cpu")
    context.prepare()
    precision.use(config.precision)
    torch.manual_seed(derive(config.seed, "classifier"))
    model = build(config)
    if config.init != "random":
        classifier.load_encoder(model, inputs["encoder"] / artifacts.ENCODER_WEIGHTS)
    # torch's stubs lack this overload.
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    table = radiographs.index(inputs["train"])
    targets_NL = chexpert.targets(radiographs.labels(table), config.uncertainty)
    if config.prior_bias:
        prevalence_L = torch.from_numpy(np.nanmean(targets_NL, axis=0)).clamp(1e-3, 1 - 1e-3)
        model.head.bias.data.copy_(prevalence_L.logit())
    source = radiograph_samplers.source(
        inputs["train"],
        table["image_id"].tolist(),
        {
            "targets": torch.from_numpy(targets_NL),
            **classifier_data.columns(config, inputs["train"], table),
        },
        derive(config.seed, "classification samples"),
        context.device,
        context.resident_budget(),
    )
    valid = radiographs.index(inputs["valid"])
    valid_pixels_NHW = classifier_data.evaluation_images(config, inputs["valid"], valid)
    valid_labels_NL = radiographs.labels(valid)

    network = distributed.parallel(model, context.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    steps = max(1, config.epochs * len(table) // config.batch_size)
    progress = checkpoint.load(out, model, optimizer) or {
        "step": 0,
        "loss": None,
        "best": {"mean_auroc": -1.0},
        "weights": {},
    }
    progress.setdefault("history", [])  # earlier versions didn't save it
    done = progress["step"]
    source.skip(done * config.batch_size)

    def batches() -> Iterator[dict[str, Tensor]]:
        for step in range(done + 1, steps + 1):
            seed = derive(config.seed, "classifier crops", step)
            yield source.take(config.batch_size) | classifier_data.draws(config, seed)

    def batch_losses(batch: Mapping[str, Tensor]) -> StepLosses:
        images_NHW = classifier_data.training_images(batch)
        with precision.autocast(config.precision, context.device):
            logits_NL = network(encoders.prepare(images_NHW, config.normalisation))
        loss = losses.classification(logits_NL, batch["targets"])
        return StepLosses(loss, {"loss": loss})

    def record(figures: Mapping[str, float]) -> None:
        progress["loss"] = running_mean(progress["loss"], figures["loss"])

    loop = Loop(
        out,
        context,
        model,
        optimizer,
        batch_losses,
        seed=partial(derive, config.seed, "classifier"),
        record=record,
        report=lambda step, timing: context.progress(
            step * config.batch_size,
            steps * config.batch_size,
            "images",
            {"loss": progress["loss"], **timing},
        ),
        steps=steps,
        state=progress,
    )
    model.train()
    for step in loop.run(batches()):
        if is_checkpoint(config, step, len(table)) or step == steps:
            loop.flush()
            predicted_NL = probabilities(config, model, valid_pixels_NHW, context.device)
            predictions = predicted_NL, valid_labels_NL
            if config.auroc_over == "studies":
                predictions = by_study(valid["image_id"].tolist(), *predictions)
            scores = auroc(*predictions)
            competition = [score for name in COMPETITION if (score := scores[name]) is not None]
            mean = float(np.mean(competition)) if competition else 0.0
            entry = {"step": step, "loss": progress["loss"], "mean_auroc": mean}
            progress["history"].append(entry)
            if mean >= progress["best"]["mean_auroc"]:  # of equal ones keep the latest
                progress["best"] = {
                    "mean_auroc": mean,
                    "auroc": scores,
                    "step": step,
                    "loss": progress["loss"],
                }
                progress["weights"] = copy.deepcopy(model.state_dict())
                progress["roc"] = roc(*predictions)
            model.train()
            loop.save()
    if "step" not in progress["best"]:
        raise RuntimeError("no checkpoint has finite outputs; hint: lower the learning rate")
    model.load_state_dict(progress["weights"])
    # As in keys, values that reproduce earlier results are left out.
    inputs_differ = {
        name: value
        for name in ("geometry", "normalisation")
        if (value := getattr(config, name)) != config.ADDED[name]
    }
    if distributed.rank() == 0:
        (out / artifacts.HISTORY).write_text(json.dumps(progress["history"], indent=1))
        if "roc" in progress:  # not of a best checkpoint that an earlier version saved
            (out / artifacts.ROC).write_text(json.dumps(progress["roc"]))
        encoders.save(
            model,
            out / artifacts.CLASSIFIER_WEIGHTS,
            architecture=config.architecture,
            observations=OBSERVATIONS,
            **inputs_differ,
        )
    return {**progress["best"], "steps": steps, "images": len(table)}


def is_checkpoint(config: configs.ClassifyConfig, step: int, images: int) -> bool:
    """Return whether the weights after a step, counted from 1, are a checkpoint.

    images: number of training images. With `checkpoints_per_epoch` a checkpoint is the first step
    that reaches the next equal part of a pass over them.
    """
    parts = config.checkpoints_per_epoch
    if parts is None:
        return step % config.checkpoint_every == 0
    before, now = (parts * n * config.batch_size // images for n in (step - 1, step))
    return now > before


def probabilities(
    config: configs.ClassifyConfig, model: classifier.Classifier, pixels_NHW: Tensor, device: str
) -> np.ndarray:
    """Return float32 probabilities_NL of the observations."""
    model.eval()
    with torch.inference_mode(), precision.autocast(config.precision, device):
        parts = [
            model(encoders.prepare(part.to(device), config.normalisation))
            for part in pixels_NHW.split(32)
        ]
    return torch.cat(parts).float().sigmoid().cpu().numpy()


def by_study(
    image_ids: Sequence[str], scores_NL: np.ndarray, labels_NL: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores_SL, labels_SL) of S studies: the maximum over the views of each.

    CheXpert labels studies, so views have equal labels; if not, blanks (NaN) are ignored.
    """
    rows: dict[str, list[int]] = {}
    for row, image_id in enumerate(image_ids):
        rows.setdefault(chexpert.study(image_id), []).append(row)
    scores_SL = np.stack([scores_NL[views].max(axis=0) for views in rows.values()])
    labels_SL = np.stack([np.fmax.reduce(labels_NL[views]) for views in rows.values()])
    return scores_SL, labels_SL


def auroc(scores_NL: np.ndarray, labels_NL: np.ndarray) -> dict[str, float | None]:
    """Return observation -> area under the ROC curve: Mann-Whitney's U per pair.

    None if only one class occurs. Uncertain and blank labels are ignored.
    """
    out: dict[str, float | None] = {}
    for column, name in enumerate(OBSERVATIONS):
        positives, negatives = (
            scores_NL[labels_NL[:, column] == label, column].astype(np.float64) for label in (1, 0)
        )
        out[name] = None
        if len(positives) and len(negatives):
            u = mannwhitneyu(positives, negatives, method="asymptotic").statistic
            out[name] = float(u / (len(positives) * len(negatives)))
    return out


def roc(scores_NL: np.ndarray, labels_NL: np.ndarray) -> dict[str, tuple[list[float], list[float]]]:
    """Return observation -> false and true positive rates of all thresholds, from (0, 0) to (1, 1).

    Points on a straight line between two others are left out. Observations of which only one class
    occurs have no curve. Uncertain and blank labels are ignored.
    """
    curves = {}
    for column, name in enumerate(OBSERVATIONS):
        labelled_N = np.isin(labels_NL[:, column], (0, 1))
        scores_n, positive_n = scores_NL[labelled_N, column], labels_NL[labelled_N, column] == 1
        if positive_n.all() or not positive_n.any():
            continue
        order_n = np.argsort(-scores_n, kind="stable")
        last_n = np.append(np.diff(scores_n[order_n]) != 0, True)  # equal scores have one threshold
        counts_2P = np.cumsum([~positive_n[order_n], positive_n[order_n]], axis=1)[:, last_n]
        counts_2P = np.pad(counts_2P, ((0, 0), (1, 0)))
        steps_2P = np.diff(counts_2P)
        turns_P = steps_2P[0, :-1] * steps_2P[1, 1:] != steps_2P[1, :-1] * steps_2P[0, 1:]
        kept_2P = counts_2P[:, np.concatenate([[True], turns_P, [True]])]
        curves[name] = (
            (kept_2P[0] / counts_2P[0, -1]).tolist(),
            (kept_2P[1] / counts_2P[1, -1]).tolist(),
        )
    return curves
