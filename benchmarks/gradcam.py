"""Benchmark Grad-CAM of ten pathologies against a bare forward pass and the grad-cam package.

    python benchmarks/gradcam.py [--batch 16] [--size 320]   # needs pip install '.[test]'

DenseNet121 has random weights, which cost the same as trained ones. The sides take turns, forth and
back, and each one's time is its best of the rounds. With one thread that is CPU time, because the
wall clock of a shared machine includes other work.

The package does one class at a time, as its users do: a forward and a backward pass through the
whole network for each. It gets a part of the batch (--package-batch), and its time is scaled up;
the others do the whole batch.

The last columns are the largest difference to our maps as equation (2) gives them, and after
scaling each by its maximum, before any resizing. Random weights leave a map or two that is the
small difference of large sums, and scaling magnifies its rounding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from chexseg.models import classifier, encoders
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency import gradcam

COLUMNS = observation_indices(PATHOLOGIES)


class Hookable(nn.Module):
    """Expose the classifier's last ReLU as a module, which the package can hook."""

    def __init__(self, model: classifier.Classifier):
        super().__init__()
        self.features, self.head = nn.Sequential(model.body, nn.ReLU()), model.head

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.head(self.features(images_NCHW).mean((2, 3)))


@torch.inference_mode()
def forward_pass(model: classifier.Classifier, images_NCHW: Tensor) -> None:
    """Run the forward pass that any saliency map needs."""
    model(images_NCHW)


@torch.inference_mode()
def ours(model: classifier.Classifier, images_NCHW: Tensor) -> Tensor:
    features_NChw = model.feature_map(images_NCHW)
    return gradcam.closed_form(features_NChw, model.head.weight[COLUMNS])


def autograd(model: classifier.Classifier, images_NCHW: Tensor) -> Tensor:
    """Compute our maps for any head: a forward pass, then a backward pass per pathology."""
    with torch.no_grad():
        features_NCHW = model.feature_map(images_NCHW)
    features_NCHW.requires_grad_()
    logits_NK = model.head(features_NCHW.mean((2, 3)))[:, COLUMNS]
    maps = []
    for k in range(logits_NK.shape[1]):
        (gradient_NCHW,) = torch.autograd.grad(
            logits_NK[:, k].sum(), features_NCHW, retain_graph=True
        )
        alpha_NC11 = gradient_NCHW.mean((2, 3), keepdim=True)
        maps.append((alpha_NC11 * features_NCHW.detach()).sum(1).relu())
    return torch.stack(maps, dim=1)


def timed(
    function: Callable[..., Tensor | None], *arguments: object
) -> tuple[float, Tensor | None]:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    before = clock()
    result = function(*arguments)
    return clock() - before, result


def package(network: Hookable, images_NCHW: Tensor) -> tuple[float, Tensor]:
    """Return the seconds of its users' calls, and its maps before it rescales and resizes them."""
    seconds, maps = 0.0, []
    with GradCAM(network, [network.features]) as cam:
        for column in COLUMNS:
            targets = [ClassifierOutputTarget(column)] * len(images_NCHW)
            seconds += timed(cam, images_NCHW, targets)[0]
            hooked = cam.activations_and_grads
            arguments = (hooked.activations[0].numpy(), hooked.gradients[0].numpy())
            maps.append(
                np.maximum(cam.get_cam_image(images_NCHW, network.features, targets, *arguments), 0)
            )
    return seconds, torch.from_numpy(np.stack(maps, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--size", type=int, default=320, help="pixels of a side (default: 320)")
    parser.add_argument(
        "--package-batch", type=int, default=1, help="images the package gets (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns each side has (default: 5)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of PyTorch, for all sides (default: 1)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not 1 <= arguments.package_batch <= arguments.batch:
        parser.error("--package-batch: allowed: 1 up to --batch")

    torch.manual_seed(0)
    model = classifier.build("densenet121").eval().to(memory_format=torch.channels_last)
    network = Hookable(model)
    pixels_NHW = torch.randint(
        256, (arguments.batch, arguments.size, arguments.size), dtype=torch.uint8
    )
    images_NCHW = encoders.prepare(pixels_NHW, "chexpert")
    with torch.inference_mode():
        features_NChw = model.feature_map(images_NCHW)

    def closed_form_alone(model: classifier.Classifier, _: Tensor) -> Tensor:
        with torch.inference_mode():
            return gradcam.closed_form(features_NChw, model.head.weight[COLUMNS])

    sides = {
        "a bare forward pass": forward_pass,
        "ours: forward and closed form": ours,
        "forward and autograd": autograd,
        "ours: the closed form alone": closed_form_alone,
    }
    scaled = f"grad-cam package ({arguments.package_batch} of {arguments.batch}, scaled)"
    seconds: dict[str, list[float]] = {name: [] for name in (*sides, scaled)}
    maps: dict[str, Tensor | None] = {}
    for turn in range(arguments.rounds):
        for name, side in list(sides.items())[:: (1, -1)[turn % 2]]:
            elapsed, maps[name] = timed(side, model, images_NCHW)
            seconds[name].append(elapsed)
        elapsed, maps[scaled] = package(network, images_NCHW[: arguments.package_batch])
        seconds[scaled].append(elapsed * arguments.batch / arguments.package_batch)

    print(
        f"DenseNet121, {arguments.batch} images of {arguments.size} x {arguments.size}, "
        f"{len(PATHOLOGIES)} pathologies, {arguments.threads} CPU thread(s), best of "
        f"{arguments.rounds}"
    )
    print(
        f"{'':<36}{'s a batch':>11}{'to forward':>12}{'to ours':>10}{'difference':>12}{'scaled':>9}"
    )
    best = {name: min(values) for name, values in seconds.items()}
    forward, ours_fastest = list(best.values())[:2]
    expected = maps["ours: forward and closed form"]
    for name, fastest in best.items():
        difference = ""
        if (maps_NKhw := maps[name]) is not None:
            same = expected[: len(maps_NKhw)]
            scaled_difference = (
                (gradcam.normalise(maps_NKhw) - gradcam.normalise(same)).abs().max().item()
            )
            difference = f"{(maps_NKhw - same).abs().max().item():>12.1e}{scaled_difference:>9.1e}"
        print(
            f"{name:<36}{fastest:>11.4f}{fastest / forward:>12.4f}"
            f"{fastest / ours_fastest:>10.4f}{difference}"
        )


if __name__ == "__main__":
    main()
