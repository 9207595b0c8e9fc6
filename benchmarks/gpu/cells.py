"""Part: several processes share the device, each with whole cells from their start to their scores.

This is how a study runs them (`resources.gpu`). In each phase so many processes begin a cell at
once. Before, each process has run a short one, because workers are kept from cell to cell.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chexseg.stages import fit, score
from chexseg.stages.configs import ScoreConfig
from gpu import inputs
from gpu.graphs import use_fake
from gpu.rows import Row, Task
from gpu.steps import cell_inputs, config_of
from gpu.timing import memory, stage_context
from gpu.worker import Context

#: (cells at once, captured). The first phases decide on `chexseg.plan.gpu_share.CELLS`.
PHASES = ((2, True), (1, True), (4, False), (3, True), (4, True), (2, False))
PRECISION = "bfloat16"
Phase = tuple[int, bool]


def tasks(context: Context) -> list[Task]:
    """Return the part's task."""
    phases = ((1, True), (2, False)) if context.dry else PHASES
    run = partial(shared, context, "cells that share the GPU", phases)
    return [Task("cells", run, 60, 125)]


def shared(context: Context, what: str, phases: Sequence[Phase]) -> Iterator[Row]:
    """Measure the phases. This process leaves the device alone: it would be one more client."""
    inputs_of_cell = cell_inputs(context) | inputs.directories(context, "test")
    spawn = multiprocessing.get_context("spawn")
    most = max(count for count, _ in phases)
    barrier, answers = spawn.Barrier(most + 1), spawn.Queue()
    arguments = (context, inputs_of_cell, phases, barrier, answers)
    processes = [
        spawn.Process(target=_work, args=(number, *arguments), daemon=True)
        for number in range(most)
    ]
    for process in processes:
        process.start()
    try:
        for _ in range(most):
            _reply(answers, context)
        for count, graphs in phases:
            barrier.wait(60)
            started = time.perf_counter()
            with Utilisation(context) as utilisation:
                replies = [_reply(answers, context) for _ in range(count)]
            seconds = (time.perf_counter() - started) / count
            barrier.wait(60)
            for line in {line for said, _ in replies for line in said if graphs}:
                yield Row("failed: cells fell back to eager", more=line)
            more = "; ".join(
                text
                for text in (
                    f"{seconds:.2f} s a cell, 45 cells in {45 * seconds:.0f} s",
                    utilisation.text(),
                    replies[0][1],
                )
                if text
            )
            setting = f"{PRECISION}, {count} at once, {'captured' if graphs else 'eager'}"
            goal = "90 s for 45, 90% busy"
            yield Row(what, setting, 1e3 * seconds, 3600 / seconds, "cells/h", more, goal)
    finally:
        for process in processes:
            process.join(3)
            if process.is_alive():
                process.terminate()


def _reply(answers: Any, context: Context) -> tuple[list[str], str]:
    """Return what a process answers; raises RuntimeError with its error if it has failed."""
    reply = answers.get(timeout=900 if context.dry else 60)
    if isinstance(reply, str):
        raise RuntimeError(reply)
    return reply


class Utilisation:
    """Asks nvidia-smi five times a second, in the meantime, how busy the device is."""

    def __init__(self, context: Context):
        self.watches = not context.dry and shutil.which("nvidia-smi") is not None
        self.percentages: list[int] = []

    def __enter__(self) -> Utilisation:
        if self.watches:
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            self.process = subprocess.Popen(
                ["nvidia-smi", *query, "-lms", "200"], stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.watches:
            self.process.terminate()
            output, _ = self.process.communicate()
            words = (line.strip() for line in output.splitlines())
            self.percentages = [int(word) for word in words if word.isdigit()]

    def text(self) -> str:
        """Return the mean as a text; empty if there is none."""
        return f"GPU {statistics.mean(self.percentages):.0f}% busy" if self.percentages else ""


def _work(
    number: int,
    context: Context,
    inputs_of_cell: dict[str, Path],
    phases: Sequence[Phase],
    barrier: Any,
    answers: Any,
) -> None:
    """Run a cell in each phase that this process is in."""
    try:
        if context.dry:
            use_fake()
        for graphs in {graphs for _, graphs in phases}:
            _cell(context, inputs_of_cell, graphs, number, epochs=1)
        answers.put(([], ""))
        for count, graphs in phases:
            barrier.wait(900)
            if number < count:
                epochs = 1 if context.dry else 20
                lines = _cell(context, inputs_of_cell, graphs, number, epochs)
                answers.put((lines, memory(context.device)))
            barrier.wait(900)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")
        barrier.abort()
        raise


def _cell(
    context: Context, inputs_of_cell: dict[str, Path], graphs: bool, seed: int, epochs: int
) -> list[str]:
    """Run a cell as a study does and return what its stages said."""
    said: list[str] = []
    stage = stage_context(context, graphs=graphs, say=said.append, threads=min(4, context.threads))
    config = config_of(context, PRECISION, seed=seed, epochs=epochs)
    with tempfile.TemporaryDirectory() as work:
        segmenter, scores = Path(work, "segmenter"), Path(work, "scores")
        segmenter.mkdir()
        scores.mkdir()
        fit.run(config, inputs_of_cell, segmenter, stage)
        test = {"test": inputs_of_cell["test"], "segmenter": segmenter}
        score.run(ScoreConfig(), test, scores, stage)
    if context.device.type == "cuda":
        torch.cuda.synchronize()
    return said
