"""Check that several workers can share a training: its batches divide, its network can be split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from chexseg.errors import UserError
from chexseg.models import distributed

#: Stage -> setting of its network's architecture.
ARCHITECTURE = {
    "classify": "classify.architecture",
    "pretrain": "encoder.architecture",
    "moco": "encoder.architecture",
    "irnet": "irnet.architecture",
    "fit": "encoder.architecture",
}


def check(
    stage: str, config: Any, build: Callable[[Any], nn.Module], workers: int, on_gpu: bool
) -> None:
    """Raise `UserError` if this number of workers can't share a stage's training.

    build: the stage's function of that name.
    """
    if config.batch_size % workers:
        raise UserError(
            f"{stage}.batch_size: found {config.batch_size};"
            f" expected a multiple of {workers}, the number of workers"
        )
    if workers > 1:
        with torch.device("meta"):
            fault = distributed.unsupported_reason(build(config), on_gpu)
        if fault:
            raise UserError(
                f"{ARCHITECTURE[stage]}: found {config.architecture!r} for {workers} workers;"
                f" expected one worker ({fault})"
            )
