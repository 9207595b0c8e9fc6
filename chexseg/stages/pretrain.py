"""Pretrain: train the segmenter's encoder on image-level labels (the paper, section 4.3).

The encoder is that of a classifier of the 14 observations, trained as in `classify`, but with the
segmenter's architecture. Writes ``encoder.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.models import encoders
from chexseg.stages import api, artifacts, classify, configs

build = classify.build


def run(
    config: configs.PretrainConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: as in `classify`."""
    facts = classify.run(config, inputs, out, context)
    model = build(config)
    encoders.load(model, out / artifacts.CLASSIFIER_WEIGHTS)
    encoders.save(
        model.body,
        out / artifacts.ENCODER_WEIGHTS,
        architecture=config.architecture,
        init="chexpert",
    )
    return facts
