"""Imported: an encoder that `chexseg encoder import` has put into the store (the paper, section 4.3).

No study computes one: the command writes ``encoder.safetensors``, as `pretrain` does, and studies find it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.errors import UserError
from chexseg.stages.api import StageContext
from chexseg.stages.configs import ImportedConfig, import_command


def run(
    config: ImportedConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """Raises `UserError`: what is gone from the store can't be made again from nothing."""
    raise UserError(
        f"the {config.kind} encoder of {config.architecture} (weights {config.sha256[:12]}) in the store is damaged or gone;"
        f" allowed: import it again: {import_command(config.kind, config.architecture)}"
    )
