"""A fit on two workers of Ray Train is the fit on one, and goes on after a worker's death."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file

from chexseg import code_version
from chexseg.errors import UserError
from chexseg.models import distributed
from chexseg.saliency.thresholds import TargetHistogram
from chexseg.stages import classify, fit, irnet, moco
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import (
    CLASSIFIER_WEIGHTS,
    ENCODER_WEIGHTS,
    IRNET_WEIGHTS,
    SEGMENTER_WEIGHTS,
)
from chexseg.stages.configs import ClassifyConfig, FitConfig, IRNetConfig, MoCoConfig
from chexseg.stages.training import checkpoint, ray_train, segmenter_selection

from .conftest import CONTEXT, EXPERT
from .test_resume import Dying

pytestmark = pytest.mark.slow

MIXED = {**EXPERT, "p": 0.5, "weak": "cam", "weak_images": 12, "init": "random"}
TWO = replace(CONTEXT, train_workers=2, train_failures=1, checkpoint_seconds=0)


def inputs(results) -> dict:
    return {
        "train": results.paths["train"],
        "valid": results.paths["valid"],
        "weak": results.paths["saliency"],
    }


def test_two_workers_of_which_one_dies_are_one_after_ten_steps(ray_session, results, tmp_path):
    """Adam turns the sign of a gradient that is nothing but rounding into a whole step, so in float32 the rate must be low;
    tests/models/test_distributed.py compares at the paper's rate in float64. Running statistics tell at any rate whether
    both workers' images went into them."""
    config = FitConfig(
        **MIXED, epochs=2, samples_per_epoch=40, learning_rate=1e-6, checkpoint="last", flips=True
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    facts = fit.run(config, inputs(results), tmp_path / "one", CONTEXT)
    dying = replace(TWO, progress=Dying(tmp_path / "killed", 40 + 24))
    facts_two = fit.run(config, inputs(results), tmp_path / "two", dying)
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    check_close(*(load_file(tmp_path / name / SEGMENTER_WEIGHTS) for name in ("one", "two")))
    losses = [
        [epoch["loss"] for epoch in json.loads((tmp_path / n / "history.json").read_text())]
        for n in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert facts_two["selection_miou"] == pytest.approx(facts["selection_miou"], abs=1e-3)
    assert facts_two["expert_share"] == facts["expert_share"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


CLASSIFY = ClassifyConfig(
    architecture="resnet18", epochs=2, batch_size=8, learning_rate=1e-6, prior_bias=True
)
MOCO = MoCoConfig(epochs=2, batch_size=8, queue=12, learning_rate=1e-6)
IRNET = IRNetConfig(
    architecture="resnet18", epochs=2, images=16, radius=4, batch_size=8,
    learning_rate=1e-5, smallest_scale=0.5, largest_scale=1.5,
)  # fmt: skip


def test_two_workers_of_irnet_are_one(ray_session, results, tmp_path):
    check_equal(irnet, IRNET, IRNET_WEIGHTS, results, tmp_path)


def check_equal(
    stage: Any, config: Any, weights: str, results: Any, out: Path, together: Any = None
) -> None:
    """Compare a stage on one worker with the same on two: its files, weights and losses.

    The rates are low for the same reason as above. together: the facts of the stage on two workers,
    in `out / "two"`, unless it is to be run here by Ray Train.
    """
    given = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    (out / "one").mkdir()
    one, two = stage.run(config, given, out / "one", CONTEXT), together
    if two is None:
        (out / "two").mkdir()
        two = stage.run(config, given, out / "two", TWO)
    check_close(*(load_file(out / name / weights) for name in ("one", "two")))
    if stage is irnet:
        one, two = one["losses"], two["losses"]
    for name in ("loss", "total"):
        assert two.get(name) == pytest.approx(one.get(name), abs=1e-4)
    assert sorted(path.name for path in (out / "two").iterdir()) == sorted(
        path.name for path in (out / "one").iterdir()
    )


def check_close(alone: Mapping[str, torch.Tensor], together: Mapping[str, torch.Tensor]) -> None:
    """Compare the weights and statistics of two trainings."""
    assert alone.keys() == together.keys()
    for name in alone:
        difference = (alone[name].double() - together[name].double()).abs() / (
            1 + alone[name].double().abs()
        )
        assert difference.max().item() < 1e-4, name


@pytest.fixture(scope="module")
def of_two_processes(results, tmp_path_factory) -> Path:
    """Run the functions below in one process group of two, without Ray; return their directory."""
    out = tmp_path_factory.mktemp("two")
    for stage in ("classify", "moco"):
        (out / stage / "two").mkdir(parents=True)
    for run in (out / "run", out / "damaged"):
        run.mkdir()
        model, optimizer = _linear()
        checkpoint.save(run, model, optimizer, epoch=3)
        torch.save(model.state_dict(), out / f"{run.name}-model")
    (out / "damaged" / checkpoint.STATE).write_bytes(b"damaged")
    multiprocessing.spawn(_join, (out, results.paths), nprocs=2)
    return out


def _join(rank: int, out: Path, given: Mapping[str, Path]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/group", rank=rank, world_size=2)
    _resume(rank, out / "run")
    _resume(rank, out / "damaged")
    _share_histogram(rank, out)
    _train(rank, out, given)
    _refuse(rank, out)
    _fail_late(rank, out)  # last, because it ends the group


def _linear() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(2, 2)
    return model, torch.optim.Adam(model.parameters())


def _resume(rank: int, run: Path) -> None:
    """Read a state as rank 1 would whose node has a damaged copy of it."""
    read_bytes = Path.read_bytes
    if rank == 1:
        Path.read_bytes = lambda path: read_bytes(path)[:-1] + b"?"
    model, optimizer = _linear()
    state = checkpoint.load(run, model, optimizer)
    Path.read_bytes = read_bytes
    torch.save({"state": state, **model.state_dict()}, run.parent / f"{run.name}-resumed-{rank}")


def test_all_workers_resume_from_the_state_that_the_first_has_read(of_two_processes):
    saved = torch.load(of_two_processes / "run-model", weights_only=True)
    for rank in (0, 1):
        resumed = torch.load(of_two_processes / f"run-resumed-{rank}", weights_only=True)
        assert resumed.pop("state") == {"epoch": 3}
        assert all(torch.equal(resumed[name], value) for name, value in saved.items())
        other = torch.load(of_two_processes / f"damaged-resumed-{rank}", weights_only=True)
        assert other["state"] is None
    assert (of_two_processes / "run" / checkpoint.STATE).exists()


def _train(rank: int, out: Path, given: Mapping[str, Path]) -> None:
    for stage, config in ((classify, CLASSIFY), (moco, MOCO)):
        name = stage.__name__.rpartition(".")[2]
        context = replace(CONTEXT, checkpoint_seconds=0)
        facts = stage.run(config, given, out / name / "two", context)
        (out / f"{name}-{rank}").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("stage", "config", "weights"),
    [(classify, CLASSIFY, CLASSIFIER_WEIGHTS), (moco, MOCO, ENCODER_WEIGHTS)],
    ids=["classify", "moco"],
)
def test_two_workers_of_a_stage_before_the_cells_are_one(
    of_two_processes, results, stage, config, weights
):
    name = stage.__name__.rpartition(".")[2]
    facts = json.loads((of_two_processes / f"{name}-0").read_text())
    check_equal(stage, config, weights, results, of_two_processes / name, facts)


def _refuse(rank: int, out: Path) -> None:
    try:
        fit.train(FitConfig(**MIXED, batch_size=3), {}, out, CONTEXT)
    except UserError as error:
        (out / f"refused-{rank}").write_text(str(error))


def test_all_workers_refuse_a_batch_that_they_cannot_share(of_two_processes):
    for rank in (0, 1):
        assert (
            (of_two_processes / f"refused-{rank}")
            .read_text()
            .startswith("fit.batch_size: found 3; expected a multiple of 2")
        )


def _fail_late(rank: int, out: Path) -> None:
    def loop(context: StageContext) -> dict[str, int]:
        if rank == 1:
            time.sleep(3)  # rank 0 returns its facts in the meantime
            raise UserError("the second worker's")
        return {"images": 1}

    with suppress(RuntimeError):
        ray_train._run_worker(loop, str(out / "answer"), StageContext(), code_version.running())


def test_facts_of_the_first_worker_do_not_count_if_another_fails_later(of_two_processes):
    answer = json.loads((of_two_processes / "answer").read_text())
    assert answer["error"] == "the second worker's" and "facts" not in answer


def _share_histogram(rank: int, out: Path) -> None:
    """Choose thresholds on this worker's rows of one batch."""
    torch.manual_seed(0)
    batch = {"scores": torch.rand(4, 10, 8, 8), "masks": torch.rand(4, 10, 8, 8) < 0.4}
    share = distributed.shard_batch(batch)
    histogram = TargetHistogram.of(share["scores"], share["masks"])
    chosen = segmenter_selection.batch_thresholds(FitConfig(), histogram)
    (out / f"thresholds-{rank}").write_text(json.dumps(chosen))


def test_thresholds_of_an_epochs_batches_are_those_of_all_workers(of_two_processes):
    _share_histogram(2, of_two_processes)  # alone
    alone, *together = (
        json.loads((of_two_processes / f"thresholds-{n}").read_text()) for n in (2, 0, 1)
    )
    assert together == [alone, alone]
