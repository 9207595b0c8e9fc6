"""What Ray's metrics tell while a study runs: its cells by state; how fast each stage under way is, and how far."""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.util.metrics import Gauge

from chexseg.run.cluster import on_node, this_node

#: Cells by state. Ray's exporter puts ``ray_`` before this and every other name.
CELLS = "chexseg_cells"
#: Figure of a stage -> its metric, and what that tells.
FIGURES = {
    "images/s": (
        "chexseg_images_per_second",
        "Images that a stage takes in, over the last ten seconds",
    ),
    "step s": (
        "chexseg_step_seconds",
        "A training step, with its wait for samples; a running mean",
    ),
    "data wait s": (
        "chexseg_data_wait_seconds",
        "What a training step waits for its samples; a running mean",
    ),
    "epoch": ("chexseg_epoch", "Epoch in training, from 1"),
    "loss": ("chexseg_loss", "Training loss"),
    "selection mIoU": (
        "chexseg_selection_miou",
        "Mean IoU on the expert images held back, after the last epoch",
    ),
}
#: Seconds over which a rate is taken: as often Ray exports.
WINDOW = 10.0
#: Stages after which their gauges move to another process.
STAGES_A_PROCESS = 1000


class Metrics:
    """A run's gauges. Tags: study, and state or cell and stage; what cells share has the short key of its result for a cell.

    Ray exports a gauge for as long as the process lives that has set it, unless its value is NaN, and then keeps it still. So
    those of stages are set in a process of their own, become NaN when their stage ends, and go with the process, which is
    replaced now and then: however many cells a study has, few are exported and few are kept. Nothing is set where there is
    no exporter, which is of ``ray[default]``.
    """

    def __init__(self, study: str):
        self.study, self.exported = study, importlib.util.find_spec("opentelemetry") is not None
        self.cells = Gauge(CELLS, "Cells of a study by state", ("study", "state")).set_default_tags(
            {"study": study}
        )
        self.gauges = self._process() if self.exported else None
        self.ended = 0

    def _process(self) -> Any:
        """On this process's node: another one's might be kept from going away when it's idle."""
        return Gauges.options(scheduling_strategy=on_node(this_node())).remote(self.study)

    def set_cells(self, states: Mapping[str, int]) -> None:
        for state, count in states.items():
            self.cells.set(count, {"state": state})

    def set_stages(self, stages: Iterable[tuple[Mapping[str, str], Mapping[str, float]]]) -> None:
        """Of each its tags, cell and stage, and its figures."""
        told = list(stages)
        if self.gauges is not None and told:
            self.gauges.set.remote(told)

    def end_stage(self, tags: Mapping[str, str], figures: Iterable[str]) -> None:
        self.set_stages([(tags, dict.fromkeys(figures, math.nan))])
        self.ended += 1
        if self.exported and self.ended % STAGES_A_PROCESS == 0:
            self.gauges = self._process()


@ray.remote(num_cpus=0, max_restarts=-1, enable_task_events=False)
class Gauges:
    """The process that has the gauges of stages."""

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
    """How fast a count grows, per second."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        if self.points and count < self.points[-1][1]:
            self.points.clear()  # begun again after its worker died
        self.points.append((now, count))
        while len(self.points) > 2 and now - self.points[0][0] > WINDOW:
            self.points.popleft()

    def value(self) -> float | None:
        """None until there are two counts."""
        if len(self.points) < 2 or self.points[-1][0] == self.points[0][0]:
            return None
        (begun, first), (now, last) = self.points[0], self.points[-1]
        return (last - first) / (now - begun)
