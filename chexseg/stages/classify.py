"""Classify: a network that tells CheXpert's 14 observations from image-level labels (the paper, appendix B.1).

A set too large to be kept in memory is streamed by Ray Data (`data.training_source`). Writes ``classifier.safetensors``:
the checkpoint with the best mean AUROC of CheXpert's five competition tasks on `valid`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from chexseg.data import chexpert
from chexseg.errors import nearest
from chexseg.pathologies import COMPETITION, OBSERVATIONS
from chexseg.randomness import derive
from chexseg.stages import ray_train, resume
from chexseg.stages.base import Execution, StageConfig
from chexseg.stages.pace import Pace

VERSION = 2
WEIGHTS = "classifier.safetensors"


def _policies(value: Any) -> Any:
    """One fault in one line; pydantic would tell of each type that the value might have had."""
    for name in value if isinstance(value, Mapping) else ():
        if name not in OBSERVATIONS:
            raise ValueError(f"no such observation: {name}{nearest(name, OBSERVATIONS)}; allowed: {', '.join(OBSERVATIONS)}")
    for policy in value.values() if isinstance(value, Mapping) else [value]:
        if policy not in chexpert.POLICIES:
            allowed = f"{', '.join(chexpert.POLICIES)}, or one of them for each observation"
            raise ValueError(f"no such policy{nearest(policy, chexpert.POLICIES)}; allowed: {allowed}")
    return value


class Config(StageConfig):
    #: densenet121, or any encoder of segmentation-models-pytorch. The paper: densenet121.
    architecture: str = "densenet121"
    #: What becomes of uncertain labels: "ignore" masks them out of the loss. One policy, or a mapping from observation to
    #: policy, with "zeros" for those it doesn't name.
    uncertainty: Annotated[str | dict[str, str], BeforeValidator(_policies)] = "zeros"
    #: Passes over `train`. The paper: 3.
    epochs: int = Field(default=3, ge=1)
    #: The paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: Adam's, with default betas, fixed. The paper: 1e-4.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: Iterations between two checkpoints, of which the best is kept. The paper: 4,800.
    checkpoint_every: int = Field(default=4800, ge=1)
    #: Of the forward pass; weights, their gradients and Adam stay float32. bfloat16 is for GPUs. The paper doesn't say.
    precision: Literal["float32", "bfloat16"] = "float32"
    #: Start the last layer's bias at the observations' log odds instead of near 0. In a short training the weights need not
    #: carry the prevalence then, which would leave few positive ones and empty CAMs. The paper: no.
    prior_bias: bool = False
    seed: int = 0


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``train`` and ``valid``, both ingested."""
    return ray_train.once(train, config, inputs, out, WEIGHTS, execution)


def build(config: Config) -> Any:
    """The untrained network. Raises `UserError` for one that can't be."""
    from chexseg.models import classifier

    return classifier.build(config.architecture)


def train(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """Train, or go on from what an interrupted training has saved, to the same weights; bit for bit on a CPU."""
    import torch

    from chexseg.data import labelled, training_source
    from chexseg.models import encoders, losses

    execution.prepare()
    torch.manual_seed(derive(config.seed, "classifier"))
    model = build(config).to(execution.device, memory_format=torch.channels_last)
    table = labelled.index(inputs["train"])
    targets_NL = chexpert.targets(labelled.labels(table), config.uncertainty)
    if config.prior_bias:
        prevalence_L = torch.from_numpy(np.nanmean(targets_NL, axis=0)).clamp(1e-3, 1 - 1e-3)
        model.head.bias.data.copy_(prevalence_L.logit())
    source = training_source.source(
        inputs["train"],
        table["image_id"].tolist(),
        {"targets": torch.from_numpy(targets_NL)},
        derive(config.seed, "classification samples"),
        execution.device,
        execution.room(),
    )
    valid = labelled.index(inputs["valid"])
    valid_pixels_NHW = labelled.pixels(inputs["valid"], valid["image_id"].tolist())
    valid_labels_NL = labelled.labels(valid)

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    steps = max(1, config.epochs * len(table) // config.batch_size)
    progress = resume.load(out, model, optimizer) or {"step": 0, "loss": None, "best": {"mean_auroc": -1.0}, "weights": {}}
    source.skip(progress["step"] * config.batch_size)
    saved, pace = time.monotonic(), Pace()
    while progress["step"] < steps:
        progress["step"] += 1
        step = progress["step"]
        # Some encoders draw random numbers as they train: of each step its own, so that a resumed run draws the same.
        torch.manual_seed(derive(config.seed, "classifier", step))
        model.train()
        batch = pace.wait(lambda: source.take(config.batch_size))
        with autocast(config.precision, execution.device):
            logits_NL = model(encoders.prepare(batch["images"], "chexpert"))
        loss = losses.classification(logits_NL, batch["targets"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()
        progress["loss"] = value if progress["loss"] is None else 0.95 * progress["loss"] + 0.05 * value
        note = {"loss": progress["loss"], **pace.step()}
        execution.progress(step * config.batch_size, steps * config.batch_size, "images", note)
        checkpoint = step % config.checkpoint_every == 0 or step == steps
        if checkpoint:
            scores = auroc(probabilities(config, model, valid_pixels_NHW, execution.device), valid_labels_NL)
            competition = [scores[name] for name in COMPETITION if scores[name] is not None]
            mean = float(np.mean(competition)) if competition else 0.0
            if mean >= progress["best"]["mean_auroc"]:  # of equals, the one trained for longest
                progress["best"] = {"mean_auroc": mean, "auroc": scores, "step": step, "loss": progress["loss"]}
                progress["weights"] = copy.deepcopy(model.state_dict())
        if checkpoint or time.monotonic() - saved > execution.checkpoint_seconds:
            resume.save(out, model, optimizer, **progress)
            saved = time.monotonic()
    if "step" not in progress["best"]:
        raise RuntimeError("no checkpoint has finite outputs: lower the learning rate")
    model.load_state_dict(progress["weights"])
    encoders.save(model, out / WEIGHTS, architecture=config.architecture, observations=OBSERVATIONS)
    return {**progress["best"], "steps": steps, "images": len(table)}


def autocast(precision: str, device: str) -> Any:
    """The context of a forward pass in a config's precision: float32 or bfloat16."""
    import torch

    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def probabilities(config: Config, model: Any, pixels_NHW: Any, device: str) -> np.ndarray:
    """probabilities_NL of the observations, float32."""
    import torch

    from chexseg.models import encoders

    model.eval()
    with torch.inference_mode(), autocast(config.precision, device):
        parts = [model(encoders.prepare(part.to(device), "chexpert")) for part in pixels_NHW.split(32)]
    return torch.cat(parts).float().sigmoid().cpu().numpy()


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
