"""Distil: a teacher's soft masks for a fraction of the training images (the paper, section 4.2 and appendix B.4).

Writes ``train/part-*.parquet``: the teacher's logits at stride 4 as float16. Fractions nest: the 1% lie within the 10%.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from chexseg.data import draws, shards
from chexseg.stages.base import Execution, StageConfig

VERSION = 1


class Config(StageConfig):
    #: Share of the frontal images of `train`. The paper: 0.01 and 0.1.
    fraction: float = Field(default=0.01, gt=0, le=1)
    seed: int = 0


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``train``, ingested, and ``teacher``, a fitted segmenter."""
    from chexseg.data import labelled, streams

    table = labelled.index(inputs["train"])
    frontal = table["image_id"][table["frontal"]].tolist()
    wanted = draws.sample(frontal, max(1, math.floor(config.fraction * len(frontal))), config.seed, "student images")
    (out / "train").mkdir(parents=True, exist_ok=True)
    answers = streams.map_files(
        shards.files(inputs["train"] / "images"),
        _Teacher,
        {"teacher": str(inputs["teacher"]), "wanted": wanted, "out": str(out / "train"), "execution": execution.for_actor()},
        workers=execution.map_workers,
        num_gpus=execution.map_gpus,
        progress=lambda files, total: execution.progress(len(wanted) * files // total, len(wanted), "images"),
    )
    return {"images": sum(answer["images"] for answer in answers), "of": len(frontal)}


class _Teacher:
    """Writes the logits of the wanted images of one file; a file that's there already is kept."""

    def __init__(self, teacher: str, wanted: Sequence[str], out: str, execution: Execution):
        from chexseg.stages.score import load_segmenter

        execution.prepare()
        self.device, self.wanted, self.out = execution.device, set(wanted), Path(out)
        self.model, self.about = load_segmenter(Path(teacher), self.device)

    def __call__(self, path: str) -> dict[str, Any]:
        return {"images": shards.complete(self.out / Path(path).name, self.logits(path))}

    def logits(self, path: str) -> Iterator[Any]:
        """Tables of logits of the wanted images of a file, a batch at a time."""
        import torch

        from chexseg.data import labelled
        from chexseg.models import encoders, segmenter

        names = self.about["pathologies"]
        for ids, pixels_NHW in labelled.shard_pixels(path, self.wanted, 16):
            images_NCHW = encoders.prepare(pixels_NHW.to(self.device), self.about["init"])
            with torch.inference_mode():
                logits_NKhw = segmenter.stride4_logits(self.model, images_NCHW).half().cpu()
            yield shards.table({"image_id": ids}, {"logits": logits_NKhw.numpy()}, kind="teacher", pathologies=names)
