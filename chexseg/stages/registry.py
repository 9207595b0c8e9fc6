"""All stages by name, in pipeline order. Keys depend on these names, not on module paths."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from chexseg.stages import configs
from chexseg.stages.api import StageModule
from chexseg.stages.configs import StageConfig


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    version: raised when the stage's results change; part of every key.
    module: import path of the stage's code (`stages.api.StageModule`).
    has_network: the module has a function `build`.
    """

    config: type[StageConfig]
    version: int
    module: str
    has_network: bool = False

    def load(self) -> StageModule:
        """Import the stage's module. Most import PyTorch, so planning doesn't call this."""
        with _collector_paused(), _no_trackers():
            return cast(StageModule, importlib.import_module(self.module))

    def parse(self, config: Mapping[str, Any]) -> StageConfig:
        """Return the config object for the JSON in a node or a manifest."""
        return self.config.model_validate(dict(config))


STAGES = {
    "ingest": Stage(configs.IngestConfig, 1, "chexseg.stages.ingest"),
    "classify": Stage(configs.ClassifyConfig, 2, "chexseg.stages.classify", has_network=True),
    "pretrain": Stage(configs.PretrainConfig, 2, "chexseg.stages.pretrain", has_network=True),
    "moco": Stage(configs.MoCoConfig, 1, "chexseg.stages.moco", has_network=True),
    "imported": Stage(configs.ImportedConfig, 1, "chexseg.stages.imported"),
    "saliency": Stage(configs.SaliencyConfig, 2, "chexseg.stages.saliency"),
    "irnet": Stage(configs.IRNetConfig, 2, "chexseg.stages.irnet", has_network=True),
    "fit": Stage(configs.FitConfig, 2, "chexseg.stages.fit", has_network=True),
    "distil": Stage(configs.DistilConfig, 2, "chexseg.stages.distil"),
    "score": Stage(configs.ScoreConfig, 2, "chexseg.stages.score"),
}


@contextmanager
def _no_trackers() -> Iterator[None]:
    """Let timm not import W&B, which it would do if that is installed, for a log of its own."""
    if "wandb" in sys.modules:
        yield
        return
    sys.modules["wandb"] = cast(Any, None)  # importing it now fails
    try:
        yield
    finally:
        sys.modules.pop("wandb", None)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Stop Python's search for cycles of unused objects in the body.

    The imports of a stage make 770,000 objects, and all stay in use. Without the search they take
    a quarter less time.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
