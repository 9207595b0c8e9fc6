"""Benchmark IRNet's training losses, forward and backward, against gathering all pairs at once.

    python benchmarks/irnet_losses.py [--batch 16] [--size 320]

The reference follows the published code: an index of the pixels on each pair's path, one gather of
the boundary map for all offsets of a path length, and its maximum. Affinities of (images x offsets
x pixels) and displacements are in the graph. Here it has all pathologies, and pairs at the border
too, so both compute the same numbers.

Each side runs in separate processes, in turns. Time is the best run of all. With one thread it is
CPU time, because the wall clock of a shared machine includes other work. Memory is the growth of
the largest resident size during a process's first full run, after a small run has loaded what a run
needs. It is getrusage's ru_maxrss, reset before the run; Linux only. The last line compares losses
and gradients.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# A process's ru_maxrss is never below its parent's size, so the parent must stay small: PyTorch is
# imported by the sides only.
if TYPE_CHECKING:
    from torch import Tensor

    Losses = Callable[[Tensor, Tensor, Tensor, float], dict[str, Tensor]]

PATHOLOGIES, RADIUS = 10, 10


def all_pairs_at_once(
    boundary_Nhw: Tensor, displacement_N2hw: Tensor, seeds_NKhw: Tensor, radius: float
) -> dict[str, Tensor]:
    """Compute equations (3) to (7) with one axis for all offsets."""
    import torch
    import torch.nn.functional as F

    from chexseg.models.irnet_losses import BACKGROUND, FOREGROUND, IGNORE
    from chexseg.models.irnet_pairs import half_disc, line

    height, width = boundary_Nhw.shape[-2:]
    reach = int(radius)
    padding = (reach, reach, 0, reach)
    across = width + 2 * reach
    by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for offset in half_disc(radius):
        by_length[len(line(*offset))].append(offset)
    offsets = [offset for group in by_length.values() for offset in group]
    here_P = (torch.arange(height)[:, None] * across + torch.arange(width) + reach).flatten()
    there_OP = torch.stack([here_P + dy * across + dx for dy, dx in offsets])

    flat_NR = F.pad(boundary_Nhw, padding).flatten(1)
    paths = []
    for length, group in by_length.items():
        index_OLP = torch.stack(
            [torch.stack([here_P + y * across + x for y, x in line(*offset)]) for offset in group]
        )
        values_NOLP = flat_NR.index_select(1, index_OLP.flatten()).view(
            len(flat_NR), len(group), length, -1
        )
        paths.append(values_NOLP.amax(2))
    path_NOP = torch.cat(paths, dim=1)

    flat_N2R = F.pad(displacement_N2hw, padding).flatten(2)
    partner_N2OP = flat_N2R.index_select(2, there_OP.flatten()).unflatten(2, there_OP.shape)
    delta_N2OP = flat_N2R.index_select(2, here_P)[:, :, None] - partner_N2OP
    wanted_2O1 = torch.tensor(offsets, dtype=delta_N2OP.dtype).T[:, :, None]

    # All is ignored beyond the border, so a pair that leaves the map is in no set.
    flat_NKR = F.pad(seeds_NKhw, padding, value=IGNORE).flatten(2)
    shown_NK1 = (flat_NKR == FOREGROUND).any(2, keepdim=True)
    flags = flat_NKR == FOREGROUND, (flat_NKR == BACKGROUND) & shown_NK1
    first_flags = [flag.index_select(2, here_P)[:, :, None] for flag in flags]
    second_flags = [
        flag.index_select(2, there_OP.flatten()).unflatten(2, there_OP.shape) for flag in flags
    ]
    count_fg_NOP = (first_flags[0] & second_flags[0]).sum(1, dtype=path_NOP.dtype)
    count_bg_NOP = (first_flags[1] & second_flags[1]).sum(1, dtype=path_NOP.dtype)
    count_negative_NOP = (
        (first_flags[0] & second_flags[1]) | (first_flags[1] & second_flags[0])
    ).sum(1, dtype=path_NOP.dtype)

    def mean(values_NOP: Tensor, count_NOP: Tensor) -> Tensor:
        return (values_NOP * count_NOP).sum() / count_NOP.sum(dtype=torch.float64).clamp(min=1).to(
            values_NOP.dtype
        )

    same_NOP = F.softplus(path_NOP)
    parts = {
        "displacement_foreground": mean((delta_N2OP - wanted_2O1).abs().sum(1), count_fg_NOP),
        "displacement_background": mean(delta_N2OP.abs().sum(1), count_bg_NOP),
        "boundary_foreground": mean(same_NOP, count_fg_NOP),
        "boundary_background": mean(same_NOP, count_bg_NOP),
        "boundary_negative": mean(F.softplus(-path_NOP), count_negative_NOP),
    }
    parts["boundary"] = (parts["boundary_foreground"] + parts["boundary_background"]) / 2 + parts[
        "boundary_negative"
    ]
    parts["total"] = (
        parts["displacement_foreground"] + parts["displacement_background"] + parts["boundary"]
    )
    return parts


def inputs(batch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs as of early training, and one-lesion seeds of every second pathology."""
    import torch

    from chexseg.models.irnet_losses import seeds

    generator = torch.Generator().manual_seed(0)
    boundary_Nhw = torch.randn(batch, side, side, generator=generator).requires_grad_()
    displacement_N2hw = (
        3 * torch.randn(batch, 2, side, side, generator=generator)
    ).requires_grad_()
    centre_NK2 = side * torch.rand(batch, PATHOLOGIES, 2, generator=generator)
    grid_2hw = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    squares_NKhw = (grid_2hw - centre_NK2[..., None, None]).square().sum(2)
    maps_NKhw = torch.exp(-squares_NKhw / (2 * (side / 8) ** 2))
    present_NK = torch.rand(batch, PATHOLOGIES, generator=generator) < 0.5
    return boundary_Nhw, displacement_N2hw, seeds(maps_NKhw, present_NK)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def forget_peak() -> None:
    """Reset ru_maxrss to the present size, without freed memory that the heap has kept.

    A run would fill that memory first.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(side: str, batch: int, maps: int, repeats: int, threads: int, out: Path) -> None:
    """Run one side in this process: write its losses and gradients, print its time and memory."""
    import torch

    from chexseg.models.irnet_losses import pair_losses

    losses: Losses = {"ours": pair_losses, "all pairs at once": all_pairs_at_once}[side]
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter

    def step(
        tensors: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[float, dict[str, float], tuple[Tensor, ...]]:
        before = clock()
        parts = losses(*tensors, RADIUS)
        gradients = torch.autograd.grad(parts["total"], tensors[:2])
        return clock() - before, {name: value.item() for name, value in parts.items()}, gradients

    step(inputs(1, 12))
    tensors = inputs(batch, maps)
    forget_peak()
    before = resident_bytes()
    seconds, parts, gradients = step(tensors)
    grown = peak_bytes() - before
    for _ in range(repeats - 1):
        seconds = min(seconds, step(tensors)[0])
    np.savez(out, boundary=gradients[0].numpy(), displacement=gradients[1].numpy())
    print(json.dumps({"seconds": seconds, "bytes": grown, "losses": parts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="images (default: 16)")
    parser.add_argument(
        "--size",
        type=int,
        default=320,
        help="pixels of an image's side; maps have a quarter (default: 320)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (default: 3)")
    parser.add_argument("--repeats", type=int, default=2, help="runs in a process (default: 2)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of PyTorch, for both (default: 1)"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    maps = -(-arguments.size // 4)
    if arguments.side:
        measure(
            arguments.side,
            arguments.batch,
            maps,
            arguments.repeats,
            arguments.threads,
            arguments.out,
        )
        return

    runs: dict[str, list[dict]] = {"ours": [], "all pairs at once": []}
    with tempfile.TemporaryDirectory() as directory:
        files = {side: Path(directory) / f"{number}.npz" for number, side in enumerate(runs)}
        for _ in range(arguments.rounds):
            for side, results in runs.items():
                command = [
                    sys.executable,
                    __file__,
                    *sys.argv[1:],
                    "--side",
                    side,
                    "--out",
                    str(files[side]),
                ]
                answer = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ
                )
                results.append(json.loads(answer.stdout))
        ours, other = (np.load(path) for path in files.values())
        difference = max(
            np.abs(ours[name] - other[name]).max() / np.abs(ours[name]).max() for name in ours.files
        )

    print(
        f"{arguments.batch} images, {maps} x {maps} maps, {PATHOLOGIES} pathologies, radius "
        f"{RADIUS}, {arguments.threads} CPU thread(s), best of "
        f"{arguments.rounds * arguments.repeats}"
    )
    print(
        f"{'':<20}{'s forward and backward':>24}{'MB beyond the inputs':>22}"
        f"{'times ours':>14}{'memory':>10}"
    )
    seconds = {side: min(result["seconds"] for result in results) for side, results in runs.items()}
    memory = {
        side: max(result["bytes"] for result in results) / 2**20 for side, results in runs.items()
    }
    for side in runs:
        ratios = f"{seconds[side] / seconds['ours']:>13.1f}x{memory[side] / memory['ours']:>9.0f}x"
        print(f"{side:<20}{seconds[side]:>24.3f}{memory[side]:>22.0f}{ratios}")
    losses = [results[0]["losses"] for results in runs.values()]
    relative = max(abs(losses[0][name] - losses[1][name]) / losses[0][name] for name in losses[0])
    print(
        f"largest difference of a loss, relative: {relative:.1e}; of a gradient, to its largest "
        f"value: {difference:.1e}"
    )


if __name__ == "__main__":
    main()
