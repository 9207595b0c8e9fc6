"""Pretrain: the segmenter's encoder, before it sees a mask (the paper, section 4.3).

``chexpert``: the encoder of a classifier of the 14 observations, trained like `classify` on the segmenter's own architecture.
Writes ``encoder.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.stages import classify
from chexseg.stages.base import Execution

VERSION = 2
WEIGHTS = "encoder.safetensors"


build = classify.build


class Config(classify.Config):
    architecture: str = "resnet18"


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``train`` and ``valid``, both ingested."""
    from chexseg.models import encoders

    facts = classify.run(config, inputs, out, execution)
    model = build(config)
    encoders.load(model, out / classify.WEIGHTS)
    encoders.save(model.body, out / WEIGHTS, architecture=config.architecture, init="chexpert")
    return facts
