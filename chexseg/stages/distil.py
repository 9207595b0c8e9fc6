"""Distil: a teacher's soft masks for a fraction of the training images (the paper, section 4.2 and appendix B.4).

Writes ``train/part-*.parquet``: the teacher's logits at stride 4 as float16, and each image's rank, its place in the seeded
order that fractions are cut from. So a 10% result holds every smaller one, and all students of a teacher share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling import splits
from chexseg.errors import DamagedArtifactError
from chexseg.models import encoders, segmenter
from chexseg.stages.api import StageContext
from chexseg.stages.configs import DistilConfig
from chexseg.stages.score import load_segmenter


def run(
    config: DistilConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """`inputs`: ``train``, ingested, and ``teacher``, a fitted segmenter."""
    table = radiographs.index(inputs["train"])
    frontal = table["image_id"][table["frontal"]].tolist()
    order = splits.order(frontal, config.seed, "student images")[
        : splits.fraction_count(config.fraction, len(frontal))
    ]
    (out / "train").mkdir(parents=True, exist_ok=True)
    answers = ray_data.map_files(
        shards.files(inputs["train"] / "images"),
        _Teacher,
        {
            "teacher": str(inputs["teacher"]),
            "ranks": {image_id: rank for rank, image_id in enumerate(order)},
            "of": len(frontal),
            "out": str(out / "train"),
            "context": context.for_worker(),
        },
        workers=context.map_workers,
        num_gpus=context.map_gpus,
        single_node=context.single_node,
        progress=lambda files, total: context.progress(
            len(order) * files // total, len(order), "images"
        ),
    )
    return {"images": sum(answer["images"] for answer in answers), "of": len(frontal)}


def images(artifact: Path, fraction: float | None) -> list[str]:
    """The ids of a student's images in a result of this stage, sorted: those that a result of `fraction` would hold.

    All for None. Raises `DamagedArtifactError` where the result holds fewer.
    """
    rows = shards.read_all(artifact / "train", ["image_id", "rank"]).to_pydict()
    ids = dict(zip(rows["rank"], rows["image_id"], strict=True))
    wanted = (
        len(ids)
        if fraction is None
        else splits.fraction_count(
            fraction, shards.metadata(shards.files(artifact / "train")[0])["of"]
        )
    )
    try:
        return sorted(ids[rank] for rank in range(wanted))
    except KeyError:
        raise DamagedArtifactError(
            f"{artifact / 'train'}: found {len(ids)} images; {wanted} are needed"
        ) from None


class _Teacher:
    """Writes the logits of a file's images that have a rank, of `of` images in all; a file that's there already is kept."""

    def __init__(
        self, teacher: str, ranks: Mapping[str, int], of: int, out: str, context: StageContext
    ):
        context.prepare()
        self.device, self.ranks, self.of, self.out = context.device, dict(ranks), of, Path(out)
        self.model, self.about = load_segmenter(Path(teacher), self.device)

    def __call__(self, path: str) -> dict[str, Any]:
        # Packing 128 KB an image takes a GPU's time for it: the network goes on meanwhile.
        return {
            "images": shards.complete(
                self.out / Path(path).name, radiographs.prefetch(self.logits(path))
            )
        }

    def logits(self, path: str) -> Iterator[Any]:
        """Tables of logits and ranks of a file's images, a batch at a time."""
        about = {"kind": "teacher", "pathologies": self.about["pathologies"], "of": self.of}
        for ids, pixels_NHW in radiographs.shard_pixels(path, self.ranks.keys(), 16):
            images_NCHW = encoders.prepare(pixels_NHW.to(self.device), self.about["init"])
            with torch.inference_mode():
                logits_NKhw = segmenter.stride4_logits(self.model, images_NCHW).half().cpu()
            scalars = {"image_id": ids, "rank": [self.ranks[image_id] for image_id in ids]}
            yield shards.table(scalars, {"logits": logits_NKhw.numpy()}, **about)
