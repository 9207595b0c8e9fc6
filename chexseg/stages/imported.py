"""Imported: a published encoder in the store (the paper, section 4.3).

`chexseg encoder import` writes its ``encoder.safetensors``; no study can compute it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.errors import UserError
from chexseg.stages import api, configs


def run(
    config: configs.ImportedConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Raise `UserError`: an imported encoder that is missing can only be imported again."""
    raise UserError(
        f"the {config.kind} encoder of {config.architecture} (weights {config.sha256[:12]})"
        " is damaged in the store or missing from it;"
        f" hint: import it again: {configs.import_command(config.kind, config.architecture)}"
    )
