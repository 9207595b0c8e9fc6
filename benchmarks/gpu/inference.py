"""Part: the stages that only run networks, in one process, with their own batch sizes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chexseg.stages import distil, irnet, saliency, score
from chexseg.stages.configs import DistilConfig, IRNetConfig, SaliencyConfig, ScoreConfig
from gpu import inputs
from gpu.rows import Row, Task
from gpu.timing import stage_context
from gpu.worker import Context


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    small = {"radius": 4, "architecture": "resnet18"} if context.dry else {}
    batch = context.batch(16)
    walk = IRNetConfig(epochs=1, images=4 * batch, batch_size=batch, **small)
    both = ("train", "valid")
    kinds: list[tuple[str, Any, Any, dict[str, str], str, str]] = [
        (
            "saliency, DenseNet121",
            saliency,
            SaliencyConfig(**inputs.expert(context)),
            {name: name for name in (*both, "classifier")},
            "images",
            "3,000",
        ),
        (
            "distil",
            distil,
            DistilConfig(fraction=1),
            {"train": "train", "teacher": "segmenter"},
            "images",
            "",
        ),
        (
            "IRNet's prediction and walk",
            irnet,
            walk,
            {name: name for name in (*both, "saliency")},
            "files",
            "",
        ),
    ]
    return [
        *(Task(kind[0], partial(measure, context, *kind), 9) for kind in kinds),
        Task("score", partial(scored, context), 5),
    ]


@dataclass
class FileClock:
    """The progress of a stage that maps over files: times those after the first one.

    unit: of the reports that count; a training before has another one.
    """

    unit: str
    reports: list[tuple[float, int, int]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def __call__(self, done: int, total: int, unit: str, *_: object) -> None:
        """Take note of a file."""
        if unit == self.unit:
            self.reports.append((time.perf_counter(), done, total))

    def rate(self, images: int) -> float:
        """Return images per second; a single file is timed from the start of the stage."""
        first, last = self.reports[0], self.reports[-1]
        if len(self.reports) == 1:
            first = (self.started, 0, last[2])
        return images * (last[1] - first[1]) / last[2] / (last[0] - first[0])


def measure(
    context: Context,
    what: str,
    stage: Any,
    config: Any,
    roles: dict[str, str],
    unit: str,
    goal: str,
) -> Iterator[Row]:
    """Measure how fast a stage maps over the files of the training images."""
    files = {role: inputs.directory(context, name) for role, name in roles.items()}
    clock = FileClock(unit)
    with tempfile.TemporaryDirectory() as out:
        facts = stage.run(config, files, Path(out), stage_context(context, progress=clock))
    seconds = time.perf_counter() - clock.started
    rate = clock.rate(facts["images"])
    more = f"{facts['images']} images; the whole stage took {seconds:.1f} s"
    yield Row(what, f"{context.size} px", 1e3 / rate, rate, "images/s", more, goal)


def scored(context: Context) -> Iterator[Row]:
    """Measure the second of two runs of `score`."""
    files = inputs.directories(context, "test", "segmenter")
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            score.run(ScoreConfig(), files, Path(out), stage_context(context))
        seconds = time.perf_counter() - started
    count = inputs.images(context)["test"]
    more = f"{count} images; reading and writing included: {seconds:.2f} s"
    setting, ms = f"{context.size} px", 1e3 * seconds / count
    yield Row("score, DeepLabV3+", setting, ms, count / seconds, "images/s", more)
