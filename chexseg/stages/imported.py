"""Imported: an encoder that `chexseg encoder import` has put into the store (the paper, section 4.3).

No study computes one: the command writes ``encoder.safetensors``, as `pretrain` does, and studies find it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from chexseg.errors import UserError, nearest
from chexseg.stages.base import Execution, StageConfig
from chexseg.stages.pretrain import WEIGHTS

__all__ = ["KINDS", "VERSION", "WEIGHTS", "Config", "command", "run"]

VERSION = 1
#: Kind of a published encoder -> the `encoder.init` that starts from it.
KINDS = {"moco-cxr": "moco", "chexpert": "chexpert", "imagenet": "imagenet"}


class Config(StageConfig):
    #: One of `KINDS`.
    kind: str
    #: An encoder of segmentation-models-pytorch.
    architecture: str
    #: Of the weights, not of the file they came in (models.foreign).
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        check(value)
        return value


def check(kind: str) -> None:
    """Raises `UserError` for what is no kind of published encoder."""
    if kind not in KINDS:
        raise UserError(f"--kind: found {kind!r}{nearest(kind, KINDS)}; allowed: {', '.join(KINDS)}")


def command(kind: str, architecture: str) -> str:
    """What a user types to have such an encoder."""
    file = "[FILE]" if kind == "imagenet" else "FILE"
    return f"chexseg encoder import {file} --kind {kind} --architecture {architecture}"


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """Raises `UserError`: what is gone from the store can't be made again from nothing."""
    raise UserError(
        f"the {config.kind} encoder of {config.architecture} (weights {config.sha256[:12]}) in the store is damaged or gone;"
        f" allowed: import it again: {command(config.kind, config.architecture)}"
    )
