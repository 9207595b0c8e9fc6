"""Build the networks to train, which would fail only after hours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chexseg.errors import UserError
from chexseg.plan.checks.mistakes import Mistake
from chexseg.plan.graph import Node
from chexseg.stages.registry import STAGES

#: (stage, architecture) of common networks. A test builds each, so that a run need not.
KNOWN_TO_BUILD = frozenset(
    (stage, architecture)
    for stage, architectures in {
        "classify": ("densenet121", "resnet18"),
        "pretrain": ("resnet18",),
        "moco": ("resnet18",),
        "irnet": ("resnet50", "resnet18"),
        "fit": ("resnet18", "mobilenet_v2"),
    }.items()
    for architecture in architectures
)


#: Stages before the cells whose training several workers can share (`resources.stage_workers`).
SHARED = ("classify", "pretrain", "moco", "irnet")


@dataclass(frozen=True)
class Workers:
    """Numbers of workers that share a training, and whether these have GPUs.

    cells: of each fit. stages: of each stage in `SHARED`.
    """

    cells: int = 1
    stages: int = 1
    cells_on_gpu: bool = False
    stages_on_gpu: bool = False

    def of(self, stage: str) -> int:
        """Return the number of workers of a stage."""
        return self.cells if stage == "fit" else self.stages if stage in SHARED else 1

    def on_gpu(self, stage: str) -> bool:
        return self.cells_on_gpu if stage == "fit" else self.stages_on_gpu


def to_check(nodes: Iterable[Node], workers: Workers) -> list[Node]:
    """Return the nodes that `check` must build before a run, one for each different network.

    If there are none, the run needn't import PyTorch.
    """
    networks = {}
    for node in nodes:
        kind = node.stage, node.config.get("architecture")
        shared = workers.of(node.stage) > 1
        if STAGES[node.stage].has_network and (shared or kind not in KNOWN_TO_BUILD):
            networks[kind, node.config.get("batch_size")] = node
    return list(networks.values())


def check(nodes: Iterable[Node], workers: Workers) -> None:
    """Build each network that the nodes will train, on the meta device, without its memory.

    Raises `UserError` for a network that can't be built or shared, before hours are spent on the
    stages before it.
    """

    from chexseg.stages.training import workers as sharing

    nodes = list(nodes)
    for node in nodes:
        if (count := workers.of(node.stage)) > 1:
            stage = STAGES[node.stage]
            config, on_gpu = stage.parse(node.config), workers.on_gpu(node.stage)
            sharing.check(node.stage, config, stage.load().build, count, on_gpu)

    for mistake in mistakes(nodes):
        raise UserError(f"{mistake.setting}: {mistake.text}")


def mistakes(nodes: Iterable[Node]) -> list[Mistake]:
    """Return the networks of these nodes that can't be built. Each is built once, as by `check`."""
    import torch

    refused = []
    with torch.device("meta"):
        for node in {
            (node.stage, node.config.get("architecture")): node for node in nodes
        }.values():
            stage = STAGES[node.stage]
            try:
                if stage.has_network:
                    stage.load().build(stage.parse(node.config))
            except UserError as error:
                refused.append(Mistake.of(error, node.key))
    return refused
