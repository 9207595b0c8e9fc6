"""Benchmark propagation of ten classes against a dense matrix and a loop over neighbours.

    python benchmarks/propagation.py [--full]

All three compute the same numbers, up to the difference in the table's last column. The dense
matrix is of (h w) x (h w). On the 80 x 80 map of a 320-pixel image it is 6400 x 6400 and squared
three times for each class, which takes minutes. So by default only the loop runs on 80 x 80, and
the dense matrix on a 32 x 32 map; --full runs it on 80 x 80 too.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from chexseg.models.irnet_pairs import half_disc, line
from chexseg.saliency.random_walk import propagate

CLASSES, RADIUS, POWER, STEPS_LOG2 = 10, 3, 5, 3


def neighbour_affinity(boundary_hw: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels, their neighbours at (dy, dx), and their affinity ** power.

    Pixels and neighbours are flat indices; pairs that leave the map are omitted.
    """
    height, width = boundary_hw.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
    y, x = y[inside], x[inside]
    largest = torch.stack([boundary_hw[y + py, x + px] for py, px in line(dy, dx)]).amax(0)
    return y * width + x, (y + dy) * width + x + dx, (1 - largest) ** POWER


def both_ways() -> list[tuple[int, int]]:
    return [(sign * dy, sign * dx) for dy, dx in half_disc(RADIUS) for sign in (1, -1)]


def dense_per_class(maps_Khw: Tensor, boundary_hw: Tensor) -> Tensor:
    """Propagate with a transition matrix, built, squared three times and applied per class."""
    pixels = boundary_hw.numel()
    out = []
    for map_hw in maps_Khw:
        matrix = torch.eye(pixels)
        for dy, dx in both_ways():
            pixels_here, neighbours, affinity = neighbour_affinity(boundary_hw, dy, dx)
            matrix[neighbours, pixels_here] = affinity
        matrix /= matrix.sum(0, keepdim=True)
        for _ in range(STEPS_LOG2):
            matrix = matrix @ matrix
        out.append(((map_hw * (1 - boundary_hw)).flatten() @ matrix).view_as(map_hw))
    return torch.stack(out)


def neighbour_loop(maps_Khw: Tensor, boundary_hw: Tensor) -> Tensor:
    """Propagate without a matrix: by class and step, in a loop over the neighbours."""
    out = []
    for map_hw in maps_Khw:
        edges = [neighbour_affinity(boundary_hw, dy, dx) for dy, dx in both_ways()]
        column_sums = torch.ones(boundary_hw.numel())
        for pixels, _, affinity in edges:
            column_sums[pixels] += affinity
        values = (map_hw * (1 - boundary_hw)).flatten()
        for _ in range(2**STEPS_LOG2):
            gathered = values.clone()
            for pixels, neighbours, affinity in edges:
                gathered[pixels] += affinity * values[neighbours]
            values = gathered / column_sums
        out.append(values.view_as(map_hw))
    return torch.stack(out)


def ours(maps_Khw: Tensor, boundary_hw: Tensor) -> Tensor:
    return propagate(maps_Khw[None], boundary_hw[None], RADIUS, POWER, 2**STEPS_LOG2)[0]


def timed(
    function: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor, budget_s: float = 1.0
) -> tuple[float, Tensor]:
    """Return the best time of the runs that fit the budget, at least one, and the result."""
    best, start = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - start < budget_s:
        before = time.perf_counter()
        result = function(*inputs)
        best = min(best, time.perf_counter() - before)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full", action="store_true", help="the dense matrix on the 80 x 80 map too (minutes)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of PyTorch, for all three (default: 1)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    generator = torch.Generator().manual_seed(0)
    header = (
        f"{'map':>7}  {'method':<24}{'s an image':>12}{'ours faster':>12}{'largest difference':>20}"
    )
    print(
        f"{CLASSES} classes, radius {RADIUS}, power {POWER}, {2**STEPS_LOG2} steps, "
        f"{arguments.threads} CPU thread(s)"
    )
    print(header)
    for size in (32, 80):
        maps_Khw = torch.rand(CLASSES, size, size, generator=generator)
        boundary_hw = torch.rand(size, size, generator=generator) ** 3
        timed(ours, maps_Khw, boundary_hw, budget_s=0.2)  # warm up
        seconds, result = timed(ours, maps_Khw, boundary_hw)
        print(f"{size:>3} x {size}  {'ours (propagate)':<24}{seconds:>12.5f}")
        methods = {
            "loop over neighbours": neighbour_loop,
            "dense matrix per class": dense_per_class,
        }
        for name, method in methods.items():
            if method is dense_per_class and size == 80 and not arguments.full:
                print(
                    f"{size:>3} x {size}  {name:<24}{'not run':>12}{'':>12}{'--full runs it':>20}"
                )
                continue
            theirs, expected = timed(method, maps_Khw, boundary_hw)
            difference = (result - expected).abs().max().item()
            print(
                f"{size:>3} x {size}  "
                f"{name:<24}{theirs:>12.5f}{theirs / seconds:>11.0f}x{difference:>20.1e}"
            )


if __name__ == "__main__":
    main()
