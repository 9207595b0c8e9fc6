"""Check that processes import only what they need: PyTorch takes seconds in each worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chexseg.plan import preflight
from chexseg.plan.graph import node_of
from chexseg.stages.registry import STAGES

pytestmark = pytest.mark.heavy  # each in a separate process

TORCH = ("torch", "torchvision", "timm", "segmentation_models_pytorch")
NETWORKS = TORCH[1:]
INGEST = """
import sys
from pathlib import Path
from chexseg.stages import ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import IngestConfig
config = IngestConfig(split="test", size=64)
ingest.run(config, {"data": Path(sys.argv[1])}, Path(sys.argv[2]), StageContext())
"""


def imported(code: str, *arguments: object) -> set[str]:
    """Return the top-level packages, and ``ray.X``, that a new process running `code` imports."""
    code += (
        "\nimport sys\nprint(*{'.'.join(name.split('.')[: 1 + name.startswith('ray.')]) for name "
        "in sys.modules})"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return set(
        subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (
            "import chexseg.launch, chexseg.run.scheduler",
            (*TORCH, "ray.data", "ray.tune", "ray.train", "optuna"),
        ),
        (
            "import chexseg.run.progress.actor",
            (*TORCH, "pandas", "ray.data", "ray.tune", "ray.train"),
        ),
        ("import chexseg.report.write, chexseg.analysis.load", (*TORCH, "ray", "optuna")),
        ("from chexseg.models import classifier; classifier.build('densenet121')", NETWORKS[1:]),
        (
            "import chexseg.data.radiographs, chexseg.models.encoders, chexseg.models.losses",
            (*NETWORKS, "ray"),
        ),
        (
            "import chexseg.run.worker, chexseg.stages.training.segmenter_data, "
            "chexseg.models.segmenter",
            ("ray.tune", "ray.train", "ray.data", "optuna"),
        ),
    ],
    ids=[
        "driver",
        "progress actor",
        "report",
        "DenseNet121",
        "weights and pixels",
        "a cell's stages",
    ],
)
def test_no_process_imports_what_it_does_not_need(code, unneeded):
    assert not imported(code).intersection(unneeded)


def test_ingest_runs_without_pytorch_and_for_one_worker_without_ray(phantom_root, tmp_path):
    seen = imported(INGEST, phantom_root, tmp_path)
    assert "pyarrow" in seen and not seen.intersection({*TORCH, "ray"})


def test_networks_that_are_not_checked_before_a_run_can_be_built():
    nodes = [
        node_of(stage, STAGES[stage].config(architecture=name), {})
        for stage, name in sorted(preflight.KNOWN_TO_BUILD)
    ]
    assert preflight.to_check(nodes, preflight.Workers()) == []
    preflight.check(nodes, preflight.Workers())
    other = node_of("fit", STAGES["fit"].config(architecture="vgg11"), {})
    assert preflight.to_check([*nodes, other, other], preflight.Workers()) == [other]
    assert {node.stage for node in preflight.to_check(nodes, preflight.Workers(cells=2))} == {
        "fit"
    }, "these are shared"
