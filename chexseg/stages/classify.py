"""Classify: a network that tells CheXpert's 14 observations from image-level labels (the paper, appendix B.1).

Writes ``classifier.safetensors``: the checkpoint with the best mean AUROC of CheXpert's five competition tasks on `valid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from chexseg.data import chexpert
from chexseg.pathologies import COMPETITION, OBSERVATIONS
from chexseg.randomness import derive
from chexseg.stages.base import Execution, StageConfig

VERSION = 1
WEIGHTS = "classifier.safetensors"


class Config(StageConfig):
    #: densenet121, or any encoder of segmentation-models-pytorch. The paper: densenet121.
    architecture: str = "densenet121"
    #: What becomes of uncertain labels: "ignore" masks them out of the loss.
    uncertainty: Literal["ignore", "zeros", "ones"] = "zeros"
    #: Passes over `train`. The paper: 3.
    epochs: int = Field(default=3, ge=1)
    #: The paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: Adam's, with default betas, fixed. The paper: 1e-4.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: Iterations between two checkpoints, of which the best is kept. The paper: 4,800.
    checkpoint_every: int = Field(default=4800, ge=1)
    #: Start the last layer's bias at the observations' log odds instead of near 0. In a short training the weights need not
    #: carry the prevalence then, which would leave few positive ones and empty CAMs. The paper: no.
    prior_bias: bool = False
    seed: int = 0


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``train`` and ``valid``, both ingested."""
    import torch

    from chexseg.data import labelled
    from chexseg.models import classifier, encoders, losses

    execution.prepare()
    torch.manual_seed(derive(config.seed, "classifier"))
    model = classifier.build(config.architecture).to(execution.device, memory_format=torch.channels_last)
    table = labelled.index(inputs["train"])
    targets_NL = chexpert.targets(labelled.labels(table), config.uncertainty)
    if config.prior_bias:
        prevalence_L = torch.from_numpy(np.nanmean(targets_NL, axis=0)).clamp(1e-3, 1 - 1e-3)
        model.head.bias.data.copy_(prevalence_L.logit())
    source = labelled.classification_source(
        inputs["train"],
        table["image_id"].tolist(),
        targets_NL,
        derive(config.seed, "classification samples"),
        execution.device,
        execution.resident_bytes,
    )
    valid = labelled.index(inputs["valid"])
    valid_pixels_NHW = labelled.pixels(inputs["valid"], valid["image_id"].tolist())
    valid_labels_NL = labelled.labels(valid)

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    steps = max(1, config.epochs * len(table) // config.batch_size)
    best: dict[str, Any] = {"mean_auroc": -1.0}
    smoothed = None
    for step in range(1, steps + 1):
        model.train()
        batch = source.take(config.batch_size)
        loss = losses.classification(model(encoders.prepare(batch["images"], "chexpert")), batch["targets"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        smoothed = loss.item() if smoothed is None else 0.95 * smoothed + 0.05 * loss.item()
        execution.progress(step * config.batch_size, steps * config.batch_size, "images", {"loss": smoothed})
        if step % config.checkpoint_every == 0 or step == steps:
            scores = auroc(_probabilities(model, valid_pixels_NHW, execution.device), valid_labels_NL)
            competition = [scores[name] for name in COMPETITION if scores[name] is not None]
            mean = float(np.mean(competition)) if competition else 0.0
            if mean >= best["mean_auroc"]:  # of equals, the one trained for longest
                best = {"mean_auroc": mean, "auroc": scores, "step": step, "loss": smoothed}
                encoders.save(model, out / WEIGHTS, architecture=config.architecture, observations=OBSERVATIONS)
    if "step" not in best:
        raise RuntimeError("no checkpoint has finite outputs: lower the learning rate")
    return {**best, "steps": steps, "images": len(table)}


def _probabilities(model: Any, pixels_NHW: Any, device: str) -> np.ndarray:
    import torch

    from chexseg.models import encoders

    model.eval()
    with torch.inference_mode():
        parts = [model(encoders.prepare(part.to(device), "chexpert")).sigmoid().cpu() for part in pixels_NHW.split(32)]
    return torch.cat(parts).numpy()


def auroc(scores_NL: np.ndarray, labels_NL: np.ndarray) -> dict[str, float | None]:
    """Area under the ROC curve per observation, by ranks (Mann-Whitney); None where only one class is labelled.

    Uncertain and blank labels don't count.
    """
    from scipy.stats import rankdata

    out: dict[str, float | None] = {}
    for column, name in enumerate(OBSERVATIONS):
        known = np.isin(labels_NL[:, column], (0, 1))
        positive = labels_NL[known, column] == 1
        positives, negatives = int(positive.sum()), int((~positive).sum())
        out[name] = None
        if positives and negatives:
            ranks = rankdata(scores_NL[known, column])
            out[name] = float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return out
