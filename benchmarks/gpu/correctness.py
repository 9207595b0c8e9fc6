"""Part: captured steps against the eager loop, and what graphs draw.

The distance of two trainings is |a - b| / |a - start| over all weights and statistics after some
steps with the same seeds. It is small only against the distance of two eager runs, which differ
too where a kernel adds in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from chexseg.models import augmentation
from gpu.capturable import Constants, drawing
from gpu.cells import Cell, FusedCells
from gpu.graphs import CapturedStep, wait
from gpu.precisions import BFLOAT16, CONTIGUOUS, FLOAT32, TF32, Precision
from gpu.rows import Row, Task
from gpu.training import Training
from gpu.trainings import Boundaries, Classification, Contrast
from gpu.worker import Context

SEED = 5


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""

    def compare(name: str, build: Callable[..., Training], precision: Precision, steps: int):
        run = partial(against_eager, context, name, build, precision, steps)
        return Task(f"captured = eager: {name}, {precision.name}", run, 4)

    return [
        Task("draws: the default generator", partial(default_draws, context), 1),
        Task("draws: a registered generator", partial(registered_draws, context), 1),
        compare("cell", Cell, FLOAT32, 20),
        compare("cell", Cell, TF32, 20),
        compare("cell", Cell, BFLOAT16, 20),
        Task("a rate that changes", partial(schedule, context), 4),
        Task("four cells on streams = alone", partial(concurrent, context), 5),
        Task("fused cells = alone", partial(fused, context), 5),
        compare("MoCo", lambda *where: Contrast(*where, 16), FLOAT32, 20),
        compare("IRNet", lambda *where: Boundaries(*where, 8), FLOAT32, 5),
        compare("DenseNet121", dense_net, FLOAT32, 10),
    ]


def dense_net(context: Context, precision: Precision) -> Classification:
    """Return a DenseNet121 classifier of batch 8."""
    return Classification(context, precision, "densenet121", 8)


def trained(training: Training, step: Callable[[], None], steps: int) -> tuple[Tensor, Tensor]:
    """Return the weights and the losses after so many steps from a fixed seed."""
    torch.manual_seed(SEED)
    for _ in range(steps):
        step()
    wait(training.device)
    return training.weights(), training.losses_S[:steps].clone()


def distance(left: Tensor, right: Tensor, start: Tensor) -> float:
    """Return |left - right| over |left - start|."""
    return ((left - right).norm() / (left - start).norm()).item()


def verdict(far: float, noise: float, precision: Precision) -> str:
    """Say whether a distance is within that of two eager runs, or of the precision."""
    tolerance = {"float32": 1e-3, "TF32": 1e-2, "bfloat16": 5e-2}[precision.name]
    if far == 0:
        return "the same bits"
    limit = max(2 * noise, tolerance)
    return f"{'within' if far <= limit else 'BEYOND'} {limit:.1e}"


def against_eager(
    context: Context, name: str, build: Callable[..., Training], precision: Precision, steps: int
) -> Iterator[Row]:
    """Compare a captured training with an eager one, and that with itself run again."""
    precision.set(benchmark=False)
    steps = 2 if context.dry else steps
    training = build(context, precision)
    state, start = training.state(), training.weights()
    eager, losses = trained(training, training.step, steps)
    training.restore(state)
    again, losses_again = trained(training, training.step, steps)
    training.restore(state)
    captured_step = CapturedStep(training.step, context.device)
    training.restore(state)
    captured, losses_captured = trained(training, captured_step.replay, steps)
    far, noise = distance(eager, captured, start), distance(eager, again, start)
    first = (losses[0] - losses_captured[0]).abs().item()
    most = (losses - losses_captured).abs().max().item()
    most_again = (losses - losses_again).abs().max().item()
    more = f"{verdict(far, noise, precision)}; distance {far:.1e}, of two eager runs {noise:.1e}"
    more += f"; loss differs by {first:.1e} at first, at most {most:.1e} (eager {most_again:.1e})"
    yield Row(f"captured = eager: {name}", f"{precision.name}, {steps} steps", more=more)


def default_draws(context: Context) -> Iterator[Row]:
    """Compare dropout in a graph with eager dropout after the same `torch.manual_seed`."""
    ones, kept = torch.ones(4096, device=context.device), torch.zeros(4096, device=context.device)

    def step() -> None:
        kept.copy_(torch.nn.functional.dropout(ones, 0.5))

    yield drawn_row("dropout, default generator", context, step, kept, torch.manual_seed, ())


def registered_draws(context: Context) -> Iterator[Row]:
    """Compare views in a graph, drawn from a registered generator, with eager ones."""
    generator = torch.Generator(context.device)
    shape = (context.batch(8), context.size, context.size)
    images_NHW = torch.randint(0, 256, shape, dtype=torch.uint8).to(context.device)
    seen, constants = torch.zeros_like(images_NHW), Constants()
    strength = augmentation.Augmentation(0.5, 10, 0.5, 0.2, 0.2)

    def step() -> None:
        with constants.substituted(drawing(generator, context.device)):
            seen.copy_(augmentation.views(images_NHW, strength, None))

    what = "augmentation, registered generator"
    yield drawn_row(what, context, step, seen, generator.manual_seed, (generator,))


def drawn_row(
    what: str,
    context: Context,
    step: Callable[[], None],
    result: Tensor,
    seed: Callable[[int], object],
    generators: tuple[torch.Generator, ...],
) -> Row:
    """Return the row that compares three eager steps with three replays after the same seed."""

    def three(run: Callable[[], None]) -> list[Tensor]:
        seed(SEED)
        weights = []
        for _ in range(3):
            run()
            weights.append(result.clone())
        return weights

    eager = three(step)
    captured_step = CapturedStep(step, context.device, generators=generators)
    first, second = three(captured_step.replay), three(captured_step.replay)
    texts = []
    for text, passed in (
        ("differ from step to step", not torch.equal(first[0], first[1])),
        ("the same as eager's", all(map(torch.equal, eager, first))),
        ("repeat after the seed", all(map(torch.equal, first, second))),
    ):
        texts.append(f"{text}: {'yes' if passed else 'NO'}")
    return Row(what, "three steps", more=", ".join(texts))


def schedule(context: Context) -> Iterator[Row]:
    """Compare a rate set before every step: a number in eager steps, a tensor in the graph."""
    TF32.set(benchmark=False)
    steps = 2 if context.dry else 10
    rates = [1e-3 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    plain = Cell(context, TF32)
    start = plain.weights()
    torch.manual_seed(SEED)
    for rate in rates:
        plain.optimizer.param_groups[0]["lr"] = rate
        plain.step()
    tensor = torch.tensor(1e-3, device=context.device)
    cell = Cell(context, TF32, rate=tensor)
    state = cell.state()
    captured = CapturedStep(cell.step, context.device)
    cell.restore(state)
    torch.manual_seed(SEED)
    for rate in rates:
        tensor.fill_(rate)
        captured.replay()
    far = distance(plain.weights(), cell.weights(), start)
    more = f"{verdict(far, 0, TF32)}; distance {far:.1e}"
    yield Row("cosine rate, a tensor in the graph", f"TF32, {steps} steps", more=more)


def concurrent(context: Context) -> Iterator[Row]:
    """Compare cells replayed at the same time, each on its stream, with each one alone."""
    from gpu.streams import Group

    TF32.set(benchmark=False)
    steps, count = (2, 2) if context.dry else (20, 4)
    group = Group(context, TF32, count, dropout=False)
    start = [cell.weights() for cell in group.cells]
    states = [cell.state() for cell in group.cells]
    alone = []
    for cell, captured in zip(group.cells, group.captured, strict=True):
        weights, _ = trained(cell, captured.replay, steps)
        alone.append(weights)
    for cell, state in zip(group.cells, states, strict=True):
        cell.restore(state)
    wait(context.device)
    for _ in range(steps):
        group.round()
    wait(context.device)
    pairs = zip(alone, group.cells, start, strict=True)
    far = max(distance(weights, cell.weights(), begin) for weights, cell, begin in pairs)
    more = f"{verdict(far, 0, TF32)}; largest distance {far:.1e}"
    yield Row(f"{count} cells on streams = each alone", f"TF32, {steps} steps", more=more)


def fused(context: Context) -> Iterator[Row]:
    """Compare the losses and gradients of fused cells with those of each model alone."""
    from chexseg.models import losses

    precision = CONTIGUOUS[2]
    precision.set(benchmark=False)
    cells = FusedCells(context, precision, 2, dropout=False)
    images_EBCHW, masks_EBKHW = cells.batch_of(cells.order_SB[0])
    losses_E = cells.cell_losses(images_EBCHW, masks_EBKHW)
    losses_E.sum().backward()
    far_loss = far_gradient = 0.0
    for index, model in enumerate(cells.models):
        loss = losses.class_average_dice(model(images_EBCHW[index]), masks_EBKHW[index])
        loss.backward()
        far_loss = max(far_loss, (loss - losses_E[index]).abs().item())
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.grad.norm() > 1e-5:
                difference = (parameter.grad - cells.parameters[name].grad[index]).norm()
                far_gradient = max(far_gradient, (difference / parameter.grad.norm()).item())
    more = f"losses differ by at most {far_loss:.1e}, gradients by {far_gradient:.1e} of theirs"
    yield Row("2 fused cells = each alone", "float32, one step", more=more)
