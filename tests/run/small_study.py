"""A study of one cell that runs in seconds, and its nodes one by one."""

from __future__ import annotations

from pathlib import Path

from chexseg.plan.graph import Node, Plan
from chexseg.run.execute import execute
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

CONTEXT = StageContext(threads=1)
STUDY = """
name: small
settings:
  size: 64
  pathologies: [Edema, Atelectasis]
  encoder: {init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 1, samples_per_epoch: 8}
  score: {resolution: own}
"""


def node_of(planned: Plan, stage: str, split: str | None = None) -> Node:
    nodes = [node for node in planned.nodes.values() if node.stage == stage]
    return next(node for node in nodes if split is None or node.config["split"] == split)


def run(planned: Plan, store: Store, root: Path, stage: str, split: str | None = None) -> dict:
    for node in planned.nodes.values():
        if node.stage == stage and split in (None, node.config.get("split")):
            artifact, _ = execute(node, planned.nodes, store, root, CONTEXT)
    return dict(artifact.facts)
