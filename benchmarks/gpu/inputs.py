"""Part: a phantom and what the stages need of it; each is made once a run, by whoever needs it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from chexseg import parallel
from chexseg.models import encoders
from chexseg.pathologies import OBSERVATIONS
from chexseg.phantom import dataset
from chexseg.stages import artifacts, classify, fit, ingest, saliency
from chexseg.stages.configs import ClassifyConfig, FitConfig, IngestConfig, SaliencyConfig
from gpu.rows import Row, Task
from gpu.timing import stage_context
from gpu.worker import Context


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    seconds = {"phantom": 12, "saliency": 8}
    return [Task(name, partial(made, context, name), seconds.get(name, 4)) for name in MAKERS]


def images(context: Context) -> dict[str, int]:
    """Return the images of each split."""
    counts = (12, 24, 4) if context.dry else (1536, 260, 160)
    return dict(zip(("train", "valid", "test"), counts, strict=True))


def expert(context: Context) -> dict[str, int]:
    """Return the settings of expert images: the paper's."""
    return {"expert_train": 8, "expert_select": 4} if context.dry else {}


def directory(context: Context, name: str) -> Path:
    """Return the directory of an input, a key of `MAKERS`; it is made unless it is there."""
    path, finished = context.work / name, context.work / f"{name}.made"
    if not finished.exists():
        shutil.rmtree(path, ignore_errors=True)  # a process may have been ended
        path.mkdir()
        MAKERS[name](context, path)
        finished.touch()
    return path


def directories(context: Context, *names: str) -> dict[str, Path]:
    """Return the directories of inputs by their names."""
    return {name: directory(context, name) for name in names}


def made(context: Context, name: str) -> Iterator[Row]:
    """Make an input whose own inputs are there; measure what has a rate to measure."""
    started = time.perf_counter()
    directory(context, name)
    seconds = time.perf_counter() - started
    if name not in RATES:
        return
    what, count, goal = RATES[name](context)
    setting, more = f"{context.size} px", f"{seconds:.1f} s with start-up"
    yield Row(what, setting, None, count / seconds, "images/s", more, goal)


def phantom(context: Context, out: Path) -> None:
    """Draw the data set on all cores."""
    dataset.write(out, dataset.Config(**images(context), size=max(64, context.size)))


def split(name: str, context: Context, out: Path) -> None:
    """Ingest a split in this process."""
    config = IngestConfig(split=name, size=context.size)
    ingest.run(config, {"data": directory(context, "phantom")}, out, stage_context(context))


def classifier(context: Context, out: Path) -> None:
    """Write a classifier with random weights."""
    config = ClassifyConfig()
    encoders.save(
        classify.build(config),
        out / artifacts.CLASSIFIER_WEIGHTS,
        architecture=config.architecture,
        observations=OBSERVATIONS,
    )


def cams(context: Context, out: Path) -> None:
    """Compute the CAMs of all frontal images."""
    inputs = directories(context, "train", "valid", "classifier")
    saliency.run(SaliencyConfig(**expert(context)), inputs, out, stage_context(context))


def segmenter(context: Context, out: Path) -> None:
    """Write an untrained segmenter with thresholds."""
    config = FitConfig(init="random", epochs=0, **expert(context))
    fit.run(config, directories(context, "valid"), out, stage_context(context))


#: Name -> what makes it.
MAKERS: dict[str, Callable[[Context, Path], None]] = {
    "phantom": phantom,
    "train": partial(split, "train"),
    "valid": partial(split, "valid"),
    "test": partial(split, "test"),
    "classifier": classifier,
    "saliency": cams,
    "segmenter": segmenter,
}
#: Name -> a function that returns (what was measured, images, goal).
RATES: dict[str, Callable[[Context], tuple[str, int, str]]] = {
    "phantom": lambda context: (
        f"data phantom, {parallel.cores()} cores",
        sum(images(context).values()),
        "400 on 16 cores",
    ),
    "train": lambda context: ("ingest, one process", images(context)["train"], ""),
}
