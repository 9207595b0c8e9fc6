"""Distil: compute a teacher's soft masks (the paper, section 4.2 and appendix B.4).

Writes ``train/part-*.parquet``: the teacher's logits at stride 4 as float16, and each image's rank,
its position in a seeded order. A fraction of the images is a prefix of this order, so one result
serves all students of a teacher with the same or a smaller fraction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling import splits
from chexseg.data.transfer import to_device
from chexseg.errors import DamagedArtifactError
from chexseg.models import encoders, segmenter
from chexseg.stages import api, configs, score


def run(
    config: configs.DistilConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train``, ingested, and ``teacher``, a fitted segmenter."""
    table = radiographs.index(inputs["train"])
    frontal = table["image_id"][table["frontal"]].tolist()
    order = splits.order(frontal, config.seed, "student images")[
        : splits.fraction_count(config.fraction, len(frontal))
    ]
    (out / "train").mkdir(parents=True, exist_ok=True)
    answers = ray_data.map_files(
        shards.files(inputs["train"] / "images"),
        _LogitsWriter,
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
    """Return the sorted ids of a student's images in a result of this stage.

    These are the images of `fraction`, or all for None. Raises `DamagedArtifactError` if the result
    has fewer.
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
            f"{artifact / 'train'}: found {len(ids)} images; expected {wanted}"
        ) from None


class _LogitsWriter:
    """Writes the teacher's logits for the ranked images of one shard, unless the file exists.

    of: number of frontal images in the whole split; stored in the metadata.
    """

    def __init__(
        self, teacher: str, ranks: Mapping[str, int], of: int, out: str, context: api.StageContext
    ):
        context.prepare()
        self.device, self.batch_size = context.device, context.inference_batch(16)
        self.ranks, self.of, self.out = dict(ranks), of, Path(out)
        self.model, self.description = score.load_segmenter(Path(teacher), self.device)

    def __call__(self, path: str) -> dict[str, Any]:
        # Compressing 128 KB takes as long as the GPU's work on an image, so both run in parallel.
        return {
            "images": shards.complete(
                self.out / Path(path).name, radiographs.prefetch(self.logits(path))
            )
        }

    def logits(self, path: str) -> Iterator[pa.Table]:
        """Yield tables of logits and ranks, one batch of a shard's images at a time."""
        for ids, arrays in radiographs.to_host(self._batches(path)):
            yield shards.table(
                {"image_id": ids, "rank": [self.ranks[image_id] for image_id in ids]},
                arrays,
                kind="teacher",
                pathologies=self.description["pathologies"],
                of=self.of,
            )

    def _batches(self, path: str) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        for ids, pixels_NHW in radiographs.shard_pixels(
            path, self.ranks.keys(), self.batch_size, self.device
        ):
            with torch.inference_mode():
                images_NCHW = encoders.prepare(
                    to_device(pixels_NHW, self.device), self.description["init"]
                )
                logits_NKhw = segmenter.stride4_logits(self.model, images_NCHW).half()
            yield ids, {"logits": logits_NKhw}
