"""Classify: a network that tells CheXpert's 14 observations from image-level labels (the paper, appendix B.1).

A set too large to be kept in memory is streamed by Ray Data (`data.sampling.radiograph_samplers`). Writes ``classifier.safetensors``:
the checkpoint with the best mean AUROC of CheXpert's five competition tasks on `valid`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from chexseg.data import chexpert, radiographs
from chexseg.data.sampling import radiograph_samplers
from chexseg.models import classifier, encoders, losses
from chexseg.pathologies import COMPETITION, OBSERVATIONS
from chexseg.seeds import derive
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS
from chexseg.stages.configs import ClassifyConfig
from chexseg.stages.training import checkpoint, ray_train
from chexseg.stages.training.step_timer import Pace


def run(
    config: ClassifyConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """`inputs`: ``train`` and ``valid``, both ingested."""
    return ray_train.once(train, config, inputs, out, CLASSIFIER_WEIGHTS, context)


def build(config: ClassifyConfig) -> Any:
    """The untrained network. Raises `UserError` for one that can't be."""
    return classifier.build(config.architecture)


def train(
    config: ClassifyConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """Train, or go on from what an interrupted training has saved, to the same weights; bit for bit on a CPU."""
    context.prepare()
    torch.manual_seed(derive(config.seed, "classifier"))
    model = build(config).to(context.device, memory_format=torch.channels_last)
    table = radiographs.index(inputs["train"])
    targets_NL = chexpert.targets(radiographs.labels(table), config.uncertainty)
    if config.prior_bias:
        prevalence_L = torch.from_numpy(np.nanmean(targets_NL, axis=0)).clamp(1e-3, 1 - 1e-3)
        model.head.bias.data.copy_(prevalence_L.logit())
    source = radiograph_samplers.source(
        inputs["train"],
        table["image_id"].tolist(),
        {"targets": torch.from_numpy(targets_NL)},
        derive(config.seed, "classification samples"),
        context.device,
        context.resident_budget(),
    )
    valid = radiographs.index(inputs["valid"])
    valid_pixels_NHW = radiographs.pixels(inputs["valid"], valid["image_id"].tolist())
    valid_labels_NL = radiographs.labels(valid)

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    steps = max(1, config.epochs * len(table) // config.batch_size)
    progress = checkpoint.load(out, model, optimizer) or {
        "step": 0,
        "loss": None,
        "best": {"mean_auroc": -1.0},
        "weights": {},
    }
    source.skip(progress["step"] * config.batch_size)
    saved, pace = time.monotonic(), Pace()
    while progress["step"] < steps:
        progress["step"] += 1
        step = progress["step"]
        # Some encoders draw random numbers as they train: of each step its own, so that a resumed run draws the same.
        torch.manual_seed(derive(config.seed, "classifier", step))
        model.train()
        batch = pace.wait(lambda: source.take(config.batch_size))
        with autocast(config.precision, context.device):
            logits_NL = model(encoders.prepare(batch["images"], "chexpert"))
        loss = losses.classification(logits_NL, batch["targets"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()
        progress["loss"] = (
            value if progress["loss"] is None else 0.95 * progress["loss"] + 0.05 * value
        )
        note = {"loss": progress["loss"], **pace.step()}
        context.progress(step * config.batch_size, steps * config.batch_size, "images", note)
        at_checkpoint = step % config.checkpoint_every == 0 or step == steps
        if at_checkpoint:
            scores = auroc(
                probabilities(config, model, valid_pixels_NHW, context.device), valid_labels_NL
            )
            competition = [scores[name] for name in COMPETITION if scores[name] is not None]
            mean = float(np.mean(competition)) if competition else 0.0
            if mean >= progress["best"]["mean_auroc"]:  # of equals, the one trained for longest
                progress["best"] = {
                    "mean_auroc": mean,
                    "auroc": scores,
                    "step": step,
                    "loss": progress["loss"],
                }
                progress["weights"] = copy.deepcopy(model.state_dict())
        if at_checkpoint or time.monotonic() - saved > context.checkpoint_seconds:
            checkpoint.save(out, model, optimizer, **progress)
            saved = time.monotonic()
    if "step" not in progress["best"]:
        raise RuntimeError("no checkpoint has finite outputs: lower the learning rate")
    model.load_state_dict(progress["weights"])
    encoders.save(
        model, out / CLASSIFIER_WEIGHTS, architecture=config.architecture, observations=OBSERVATIONS
    )
    return {**progress["best"], "steps": steps, "images": len(table)}


def autocast(precision: str, device: str) -> Any:
    """The context of a forward pass in a config's precision: float32 or bfloat16."""
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"
    )


def probabilities(config: ClassifyConfig, model: Any, pixels_NHW: Any, device: str) -> np.ndarray:
    """probabilities_NL of the observations, float32."""
    model.eval()
    with torch.inference_mode(), autocast(config.precision, device):
        parts = [
            model(encoders.prepare(part.to(device), "chexpert")) for part in pixels_NHW.split(32)
        ]
    return torch.cat(parts).float().sigmoid().cpu().numpy()


def auroc(scores_NL: np.ndarray, labels_NL: np.ndarray) -> dict[str, float | None]:
    """Area under the ROC curve per observation, by ranks (Mann-Whitney); None where only one class is labelled.

    Uncertain and blank labels don't count.
    """
    out: dict[str, float | None] = {}
    for column, name in enumerate(OBSERVATIONS):
        known = np.isin(labels_NL[:, column], (0, 1))
        positive = labels_NL[known, column] == 1
        positives, negatives = int(positive.sum()), int((~positive).sum())
        out[name] = None
        if positives and negatives:
            ranks = rankdata(scores_NL[known, column])
            out[name] = float(
                (ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)
            )
    return out
