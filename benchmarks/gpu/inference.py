"""Part: Grad-CAM, segmenter and IRNet's walk, as the stages do them and captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from chexseg.models import classifier, encoders, irnet, segmenter
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency import gradcam, random_walk
from gpu.capturable import Constants
from gpu.graphs import CapturedStep, milliseconds
from gpu.precisions import BFLOAT16, TF32, Precision
from gpu.rows import Row, Task
from gpu.worker import Context

Call = Callable[[Tensor], Tensor]


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks: of each kind first what decides, then the other settings."""
    tasks_of_kinds = []
    for precision, batch in ((BFLOAT16, 64), (TF32, 64), (TF32, 32), (BFLOAT16, 256)):
        for what in KINDS:
            if what in WALKS and batch == 256:
                continue
            for captured in (False, True):
                run = partial(measure, context, what, precision, batch, captured)
                how = "captured" if captured else "eager"
                tasks_of_kinds.append(
                    Task(f"{what}, {precision.name}, batch {batch}, {how}", run, 3)
                )
    return tasks_of_kinds


def measure(
    context: Context,
    what: str,
    precision: Precision,
    batch: int,
    captured: bool,
) -> Iterator[Row]:
    """Measure one function of uint8 images on the device; its result stays there."""
    precision.set(benchmark=True, plans=4)
    batch = context.batch(batch)
    call, constants = KINDS[what](context, precision, batch), Constants()
    shape = (batch, context.size, context.size)
    pixels_NHW = torch.randint(0, 256, shape, dtype=torch.uint8, device=context.device)
    results: list[Tensor] = []

    def kept() -> None:
        with torch.no_grad(), constants.substituted():
            results[:] = [call(pixels_NHW)]

    def plain() -> None:
        with torch.no_grad():
            results[:] = [call(pixels_NHW)]

    step = CapturedStep(kept, context.device).replay if captured else plain
    ms = milliseconds(step, context.device, count=51 if batch <= 64 else 21, warm_up=5)
    more = "finite" if results[0].float().isfinite().all() else "NOT FINITE"
    setting = f"{precision.name}, batch {batch}, {'captured' if captured else 'eager'}"
    goal = "3,000 images/s at batch 64" if what in GOAL_OF else ""
    yield Row(what, setting, ms, 1e3 * batch / ms, "images/s", more, goal)


def on_device(context: Context, model: torch.nn.Module) -> torch.nn.Module:
    """Return a model for inference, channels last."""
    return model.to(context.device, memory_format=torch.channels_last).eval()


def saliency(context: Context, precision: Precision, batch: int) -> Call:
    """Return Grad-CAM of all pathologies, float16, as `saliency` makes it."""
    model = on_device(context, classifier.build("densenet121"))
    weight_KC = model.head.weight[observation_indices(PATHOLOGIES)].detach()

    def call(pixels_NHW: Tensor) -> Tensor:
        with precision.autocast(context.device):
            features_NCHW = model.feature_map(encoders.prepare(pixels_NHW, "chexpert"))
        return gradcam.normalise(gradcam.closed_form(features_NCHW, weight_KC)).half()

    return call


def masks(context: Context, precision: Precision, batch: int) -> Call:
    """Return the masks of a segmenter at the threshold 0.5."""
    model = on_device(context, segmenter.build("resnet18", len(PATHOLOGIES)))

    def call(pixels_NHW: Tensor) -> Tensor:
        with precision.autocast(context.device):
            logits_NKHW = model(encoders.prepare(pixels_NHW, "random"))
        return logits_NKHW.sigmoid() > 0.5

    return call


def cams(context: Context, batch: int) -> Tensor:
    """Return random CAMs maps_NKhw at stride 4."""
    side = context.size // irnet.STRIDE
    return torch.rand(batch, len(PATHOLOGIES), side, side, device=context.device)


def walk(context: Context, precision: Precision, batch: int) -> Call:
    """Return CAMs spread by IRNet, network included."""
    model, maps_NKhw = on_device(context, irnet.IRNet("resnet50")), cams(context, batch)

    def call(pixels_NHW: Tensor) -> Tensor:
        with precision.autocast(context.device):
            boundary_Nhw, _ = model.predict(encoders.prepare(pixels_NHW, "random"))
        return gradcam.normalise(random_walk.propagate(maps_NKhw, boundary_Nhw)).half()

    return call


def walk_alone(context: Context, precision: Precision, batch: int) -> Call:
    """Return CAMs spread within a random boundary map, in float32."""
    maps_NKhw = cams(context, batch)
    boundary_Nhw = torch.rand_like(maps_NKhw[:, 0])
    return lambda _: gradcam.normalise(random_walk.propagate(maps_NKhw, boundary_Nhw)).half()


#: Name -> what builds the function to be measured.
KINDS: dict[str, Callable[[Context, Precision, int], Call]] = {
    "saliency, DenseNet121": saliency,
    "segmenter, DeepLabV3+": masks,
    "IRNet: predict and walk": walk,
    "IRNet: the walk alone": walk_alone,
}
WALKS = ("IRNet: predict and walk", "IRNet: the walk alone")
#: Issue 20 sets a goal for these.
GOAL_OF = ("saliency, DenseNet121",)
