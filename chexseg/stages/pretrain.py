"""Pretrain: train the segmenter's encoder on image-level labels (the paper, section 4.3).

The encoder is that of a classifier of the 14 observations, trained as in `classify`, but with the
segmenter's architecture. Writes ``encoder.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.models import encoders
from chexseg.stages import classify
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS, ENCODER_WEIGHTS
from chexseg.stages.configs import PretrainConfig

build = classify.build


def run(
    config: PretrainConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train`` and ``valid``, both ingested."""
    facts = classify.run(config, inputs, out, context)
    model = build(config)
    encoders.load(model, out / CLASSIFIER_WEIGHTS)
    encoders.save(
        model.body, out / ENCODER_WEIGHTS, architecture=config.architecture, init="chexpert"
    )
    return facts
