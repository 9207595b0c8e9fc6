"""Export a running study's metrics through Ray: cells by state, and rate and figures per stage."""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from collections.abc import Iterable, Mapping

from ray.util.metrics import Gauge

from chexseg.run.cluster import remote, start_here

#: Metric of the cells by state. Ray's exporter puts ``ray_`` in front of every name.
CELLS = "chexseg_cells"
#: Figure of a stage -> its metric and description.
FIGURES = {
    "images/s": (
        "chexseg_images_per_second",
        "Images that a stage reads, over the last ten seconds",
    ),
    "step s": (
        "chexseg_step_seconds",
        "Duration of a training step with its wait for samples; a running mean",
    ),
    "data wait s": (
        "chexseg_data_wait_seconds",
        "Wait of a training step for its samples; a running mean",
    ),
    "epoch": ("chexseg_epoch", "Epoch in training, from 1"),
    "loss": ("chexseg_loss", "Training loss"),
    "selection mIoU": (
        "chexseg_selection_miou",
        "Mean IoU on the selection images after the last epoch",
    ),
}
#: Seconds over which a rate is computed: Ray's export interval.
WINDOW = 10.0
#: Stages after which a new process holds the gauges.
STAGES_A_PROCESS = 1000


class Metrics:
    """Hold a run's gauges. Tags: `study`, plus either `state` or (`cell`, `stage`).

    Shared stages use the first 12 characters of their key as `cell`.

    Ray exports a gauge as long as its process lives, unless its value is NaN, and never frees it.
    So a separate process holds the gauges of stages and sets them to NaN when their stage ends.
    After `STAGES_A_PROCESS` stages it is replaced, so the number of gauges stays small however
    many cells a study has. Without an exporter, part of ``ray[default]``, no stage gauge is set.
    """

    def __init__(self, study: str) -> None:
        self.study, self.exported = study, importlib.util.find_spec("opentelemetry") is not None
        self.cells = Gauge(CELLS, "Cells of a study by state", ("study", "state")).set_default_tags(
            {"study": study}
        )
        self.gauges = start_here(Gauges, self.study) if self.exported else None
        self.ended = 0

    def set_cells(self, states: Mapping[str, int]) -> None:
        for state, count in states.items():
            self.cells.set(count, {"state": state})

    def set_stages(self, stages: Iterable[tuple[Mapping[str, str], Mapping[str, float]]]) -> None:
        """Set the figures of stages, each given as (tags `cell` and `stage`, figures)."""
        updates = list(stages)
        if self.gauges is not None and updates:
            self.gauges.set.remote(updates)

    def end_stage(self, tags: Mapping[str, str], figures: Iterable[str]) -> None:
        """Stop exporting the figures of a stage that has ended."""
        self.set_stages([(tags, dict.fromkeys(figures, math.nan))])
        self.ended += 1
        if self.exported and self.ended % STAGES_A_PROCESS == 0:
            self.gauges = start_here(Gauges, self.study)


@remote(num_cpus=0, max_restarts=-1, enable_task_events=False)
class Gauges:
    """Hold the gauges of stages, as an actor."""

    def __init__(self, study: str) -> None:
        self.gauges = {
            figure: Gauge(name, description, ("study", "cell", "stage")).set_default_tags(
                {"study": study}
            )
            for figure, (name, description) in FIGURES.items()
        }

    def set(self, stages: list[tuple[Mapping[str, str], Mapping[str, float]]]) -> None:
        for tags, figures in stages:
            for figure, value in figures.items():
                self.gauges[figure].set(value, dict(tags))


class Rate:
    """Measure how fast a count grows, per second."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        if self.points and count < self.points[-1][1]:
            self.points.clear()  # the stage started over after its worker died
        self.points.append((now, count))
        while len(self.points) > 2 and now - self.points[0][0] > WINDOW:
            self.points.popleft()

    def value(self) -> float | None:
        """Return the rate over `WINDOW`; None until there are two counts."""
        if len(self.points) < 2 or self.points[-1][0] == self.points[0][0]:
            return None
        (begun, first), (now, last) = self.points[0], self.points[-1]
        return (last - first) / (now - begun)
