"""Compare the free space of a store's disk with the least that a plan will write there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from rich.filesize import decimal

from chexseg.data.sampling.splits import fraction_count
from chexseg.errors import counted
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan.checks.counts import Facts, images_with_maps
from chexseg.plan.checks.mistakes import Mistake
from chexseg.plan.graph import Node, Plan
from chexseg.store.local_backend import LocalBackend
from chexseg.store.store import Store

#: Bytes in a shard for each pixel of an image, after compression: 0.81 of phantoms at 320 px
#: (docs/explanation/scale.md), 0.82 of 1,101 radiographs at 128 px.
PIXEL = 0.7
#: Bytes in a shard for each byte of maps at stride 4, before compression. Measured: 0.3 of CAMs of
#: crops, 0.55 of IRNet's, 0.8 of a teacher's logits.
CROPPED, SPREAD, TAUGHT = 0.25, 0.5, 0.7
#: Bytes of the weights of a segmenter (DeepLabV3+), and of an encoder or classifier. Others count
#: as the smallest.
SEGMENTERS = {"resnet18": 49e6, "resnet34": 89e6, "resnet50": 106e6, "mobilenet_v2": 17e6}
ENCODERS = {"resnet18": 44e6, "resnet34": 85e6, "resnet50": 94e6, "densenet121": 28e6}
SMALLEST = 8e6


def mistakes(nodes: Sequence[Node], plan: Plan, facts: Facts, store: Store) -> Iterator[Mistake]:
    """Yield a mistake if a store in a directory clearly hasn't the space for these nodes."""
    if not isinstance(store.backend, LocalBackend):
        return
    place = store.backend.root.absolute()
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    expected = sum(expected_bytes(node, plan, facts) for node in nodes)
    if free < expected:
        text = (
            f"--store {store}: found {decimal(free)} free; expected at least"
            f" {decimal(int(expected))}, for {counted(len(nodes), 'stage')} to compute"
        )
        yield Mistake("", text)


def expected_bytes(node: Node, plan: Plan, facts: Facts) -> float:
    """Return about the least bytes that a stage run writes; 0 for what is small or unknown."""
    config, stage = node.config, node.stage
    if stage == "ingest":
        split = facts[config["split"]]
        images = len(split.masks) if split.split == "test" else split.images
        return float(images * config["size"] ** 2 * PIXEL)
    if stage in ("classify", "pretrain", "moco"):
        return ENCODERS.get(config["architecture"], SMALLEST)
    if stage == "fit":
        return SEGMENTERS.get(config["architecture"], SMALLEST)
    if stage == "distil":
        images = fraction_count(config["fraction"], facts["train"].frontal)
        return images * _maps(node, plan) * TAUGHT
    if stage == "saliency" and "train_strips" in node.inputs:
        return images_with_maps(node, facts["train"]) * _maps(node, plan) * CROPPED
    if stage == "irnet":
        saliency = plan.nodes[node.inputs["saliency"]]
        return images_with_maps(saliency, facts["train"]) * _maps(node, plan) * SPREAD
    return 0.0


def _maps(node: Node, plan: Plan) -> int:
    """Return the bytes of an image's maps in float16 at stride 4, before compression."""
    pathologies = len(PATHOLOGIES)
    if "teacher" in node.inputs:
        pathologies = len(plan.nodes[node.inputs["teacher"]].config["pathologies"])
    side: int = plan.nodes[node.inputs["train"]].config["size"] // 4
    return 2 * pathologies * side**2
