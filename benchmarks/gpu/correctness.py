"""Part: short trainings of the stages, captured against eager, on deterministic kernels of cuDNN.

The distance of two trainings is |a - b| / |a - start| over all weights and statistics. It is small
only against the distance of two eager runs, which differ too where a kernel adds in any order.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import chexseg
from chexseg.models import losses
from chexseg.seeds import derive
from chexseg.stages import artifacts, classify, fit, irnet, moco
from chexseg.stages.configs import ClassifyConfig, IRNetConfig, MoCoConfig
from gpu import inputs
from gpu.graphs import FakeGraphs
from gpu.rows import Row, Task
from gpu.steps import cell_inputs, config_of
from gpu.timing import Enough, stage_context
from gpu.worker import Context

TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Training:
    """A short training of a stage.

    seeded: what the seed of its network is derived from. file: of the final weights. part: of the
    network that the file holds.
    """

    stage: Any
    config: Any
    inputs: Mapping[str, Path]
    seeded: str
    file: str
    part: Callable[[Any], nn.Module] = lambda network: network

    def start(self) -> Tensor:
        """Return the weights before the first step."""
        torch.manual_seed(derive(self.config.seed, self.seeded))
        return flat(self.part(self.stage.build(self.config)).state_dict())

    def run(
        self, context: Context, graphs: bool, out: Path | None = None, **options: Any
    ) -> Tensor:
        """Train in `out` and return the final weights.

        Raises RuntimeError with what the stage says, unless `options` have a `say`.
        """
        said: list[str] = []
        stage = stage_context(context, graphs=graphs, **{"say": said.append} | options)
        with tempfile.TemporaryDirectory() as temporary:
            out = out or Path(temporary)
            self.stage.train(self.config, self.inputs, out, stage)
            if said:
                raise RuntimeError(said[0])
            return flat(load_file(out / self.file))


def flat(state: Mapping[str, Tensor]) -> Tensor:
    """Return all floating-point tensors, by name, in one vector, float64."""
    floats = [state[name] for name in sorted(state) if state[name].is_floating_point()]
    return torch.cat([values.double().cpu().flatten() for values in floats])


def cell(context: Context, precision: str) -> Training:
    """Return a cell with dropout, flips and thresholds of its batches: 12 steps."""
    config = config_of(
        context,
        precision,
        flips=True,
        thresholds="training-batches",
        checkpoint="last",
        epochs=2,
        samples_per_epoch=6 * context.batch(8),
    )
    files = cell_inputs(context)
    return Training(fit, config, files, "segmenter", artifacts.SEGMENTER_WEIGHTS)


def classification(context: Context, precision: str, architecture: str) -> Training:
    """Return a classifier, trained once on the images of `valid`."""
    settings = {"architecture": architecture, "epochs": 1, "precision": precision}
    config = ClassifyConfig(batch_size=context.batch(16), **settings)
    valid = inputs.directory(context, "valid")
    files = {"train": valid, "valid": valid}
    return Training(classify, config, files, "classifier", artifacts.CLASSIFIER_WEIGHTS)


def contrast(context: Context, precision: str) -> Training:
    """Return MoCo on ResNet18, trained once on the images of `valid`."""
    config = MoCoConfig(epochs=1, batch_size=context.batch(16), precision=precision)
    files = {"train": inputs.directory(context, "valid")}
    weights = artifacts.ENCODER_WEIGHTS
    return Training(moco, config, files, "moco", weights, lambda network: network.body)


def boundaries(context: Context, precision: str) -> Training:
    """Return IRNet on ResNet50: ten steps, or two in a dry run."""
    batch = context.batch(16)
    settings = {"radius": 4} if context.dry else {}
    config = IRNetConfig(
        epochs=1,
        images=(2 if context.dry else 10) * batch,
        batch_size=batch,
        precision=precision,
        **settings,
    )
    files = inputs.directories(context, "train", "valid", "saliency")
    return Training(irnet, config, files, "irnet", artifacts.IRNET_WEIGHTS)


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    dense, small = (
        partial(classification, architecture=name) for name in ("densenet121", "resnet18")
    )

    def compare(what: str, build: Callable[..., Training], precision: str, **options: Any):
        run = partial(against_eager, context, what, build, precision, **options)
        return Task(f"captured = eager: {what}, {precision}", run, 9)

    others = [("cell", cell, "bfloat16"), ("cell", cell, "tf32"), ("MoCo", contrast, "bfloat16")]
    return [
        compare("cell", cell, "float32"),
        compare("DenseNet121 classifier", dense, "float32"),
        compare("MoCo", contrast, "float32"),
        compare("IRNet", boundaries, "float32"),
        Task("a step that waits", partial(not_capturable, context, small), 6),
        Task("a resumed training", partial(resumed, context, small), 8),
        compare("cell without noise", cell, "float32", deterministic=True),
        Task("tests", partial(tests, context), 15, 90),
        *(compare(*other) for other in others if not context.dry),
    ]


def distance(left: Tensor, right: Tensor, start: Tensor) -> float:
    """Return |left - right| over |left - start|."""
    return ((left - right).norm() / (left - start).norm()).item()


def compared(
    what: str, setting: str, far: float, *notes: str, noise: float = 0.0, precision: str = "float32"
) -> Row:
    """Return the row of a distance, which may be that of two eager runs, or of the precision."""
    limit = max(2 * noise, TOLERANCE[precision])
    verdict = f"{'within' if far <= limit else 'BEYOND'} {limit:.1e}: {far:.1e}"
    more = "; ".join(("the same bits" if far == 0 else verdict, *notes))
    return Row(f"{'' if far <= limit else 'failed: '}{what}", setting, more=more)


def against_eager(
    context: Context,
    what: str,
    build: Callable[..., Training],
    precision: str,
    deterministic: bool = False,
) -> Iterator[Row]:
    """Compare a captured training with an eager one, and that with another eager one.

    deterministic: use only kernels that PyTorch knows as deterministic, where it has some.
    """
    training = build(context, precision)
    with only_deterministic() if deterministic else ExitStack():
        eager, captured = (training.run(context, graphs) for graphs in (False, True))
        again = eager if context.dry else training.run(context, False)
    start = training.start()
    far, noise = distance(eager, captured, start), distance(eager, again, start)
    notes = (f"two eager runs {noise:.1e}", *["deterministic PyTorch"] * deterministic)
    what = f"captured = eager: {what}"
    yield compared(what, precision, far, *notes, noise=noise, precision=precision)


@contextmanager
def only_deterministic() -> Iterator[None]:
    """Let PyTorch choose deterministic kernels; those that it lacks are used with a warning."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before cuBLAS is first used at best
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def not_capturable(context: Context, build: Callable[..., Training]) -> Iterator[Row]:
    """Train with a loss that the host waits for: eagerly after one line on the failed capture."""
    training, said = build(context, "float32"), []
    eager, loss = training.run(context, False), losses.classification

    def waits(*arguments: Tensor) -> Tensor:
        value = loss(*arguments)
        value.item()
        return value

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(losses, "classification", waits))
        if context.dry:
            stack.enter_context(mock.patch.object(FakeGraphs, "fails", "a dry run"))
        fallen_back = training.run(context, True, say=said.append)
    far = distance(eager, fallen_back, training.start())
    if len(said) != 1:
        raise RuntimeError(f"the stage said {len(said)} lines, expected one: {said}")
    what = "a step that waits falls back and trains on"
    yield compared(what, "float32", far, f"said: {said[0]}")


def resumed(context: Context, build: Callable[..., Training]) -> Iterator[Row]:
    """Compare a captured training that was ended in the middle and resumed with a whole one."""
    training = build(context, "float32")
    whole = training.run(context, True)
    steps: list[tuple] = []

    def stop(*report: object) -> None:
        steps.append(report)
        if len(steps) == (4 if context.dry else 8):
            raise Enough

    with tempfile.TemporaryDirectory() as out:
        with suppress(Enough):
            training.run(context, True, Path(out), checkpoint_seconds=0, progress=stop)
        rest: list[tuple] = []
        parts = training.run(context, True, Path(out), progress=lambda *note: rest.append(note))
    far = distance(whole, parts, training.start())
    setting = f"float32, ended in step {len(steps)}, {len(rest)} more"
    yield compared("a captured training resumes captured", setting, far)


def tests(context: Context) -> Iterator[Row]:
    """Run the tests of captured steps; of these a GPU has some of its own. A dry run finds them."""
    what, file = "tests of captured steps", "tests/stages/test_captured_step.py"
    if importlib.util.find_spec("pytest") is None:
        yield Row(f"skipped: {what}", file, more="pytest isn't installed")
        return
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file]
    command += ["--collect-only"] * context.dry
    root = Path(chexseg.__file__).parent.parent
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=80)
    print(answer.stdout, answer.stderr)
    last = (answer.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
    yield Row(f"{'failed: ' if answer.returncode else ''}{what}", file, more=last)
