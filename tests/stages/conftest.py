"""Every stage once, small, on the phantom: what later stages' tests build on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chexseg.stages import classify, fit, ingest, irnet, pretrain, saliency
from chexseg.stages.api import StageContext
from chexseg.stages.configs import (
    ClassifyConfig,
    FitConfig,
    IngestConfig,
    IRNetConfig,
    PretrainConfig,
    SaliencyConfig,
    StageConfig,
)

SIZE = 64
CONTEXT = StageContext(threads=1, map_workers=1)  # all in this process: no Ray
EXPERT = {"expert_train": 8, "expert_select": 4}

#: A test that is run on sets that are resident, and on sets that Ray Data streams.
RESIDENT_AND_STREAMED = pytest.mark.parametrize(
    "resident_bytes",
    [pytest.param(2**30, id="resident"), pytest.param(0, id="streamed", marks=pytest.mark.heavy)],
    indirect=True,
)


@pytest.fixture
def resident_bytes(request) -> int:
    if not request.param:
        request.getfixturevalue("ray_session")
    return request.param


@dataclass
class Results:
    """Directories and facts of stages by name."""

    root: Path
    paths: dict[str, Path]
    facts: dict[str, dict[str, Any]]

    def run(self, name: str, stage: Any, config: StageConfig, inputs: dict[str, Path]) -> None:
        out = self.root / name
        out.mkdir(exist_ok=True)
        self.paths[name], self.facts[name] = out, stage.run(config, inputs, out, CONTEXT)


@pytest.fixture(scope="session")
def results(phantom_root, tmp_path_factory) -> Results:
    done = Results(tmp_path_factory.mktemp("stages"), {}, {})
    for split in ("train", "valid", "test"):
        done.run(split, ingest, IngestConfig(split=split, size=SIZE), {"data": phantom_root})
    both = {name: done.paths[name] for name in ("train", "valid")}
    small = {"epochs": 1, "learning_rate": 1e-3}
    done.run("classify", classify, ClassifyConfig(architecture="densenet121", **small), both)
    done.run("pretrain", pretrain, PretrainConfig(**small), both)
    maps = SaliencyConfig(images=32, **EXPERT)
    done.run("saliency", saliency, maps, {**both, "classifier": done.paths["classify"]})
    walks = IRNetConfig(architecture="resnet18", epochs=1, images=16, radius=4, batch_size=8)
    done.run("irnet", irnet, walks, {**both, "saliency": done.paths["saliency"]})
    full = FitConfig(**EXPERT, epochs=2, samples_per_epoch=16)
    done.run("fit", fit, full, {"valid": done.paths["valid"], "encoder": done.paths["pretrain"]})
    return done
