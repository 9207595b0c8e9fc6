"""Workers of one process group compute the losses, gradients and weights of one worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from chexseg.models import classifier, distributed, irnet, irnet_losses, losses, moco
from chexseg.pathologies import OBSERVATIONS

BATCH, SIZE, STEPS, PATHOLOGIES = 6, 32, 3, 3
#: Two are in test_distributed.py.
WORKERS = 3

#: What a training has computed: its losses step by step, and its state.
Outcome = tuple[list[float], dict[str, Tensor]]


def rows(*whole: Tensor) -> list[Tensor]:
    """This worker's rows of each tensor of a batch."""
    batch = {str(number): values for number, values in enumerate(whole)}
    return list(distributed.shard_batch(batch).values())


def train(model: nn.Module, loss_of: Callable[[nn.Module, int], Tensor]) -> Outcome:
    """Train a network in float64, in which what is left of a difference is no rounding."""
    network = distributed.parallel(model, "cpu").train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    values = []
    for step in range(STEPS):
        value = loss_of(network, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(distributed.mean(value).item())
    return values, model.state_dict()


def classification(architecture: str) -> Outcome:
    """Labels are missing for most of the rows of one worker, and in the last step for all."""
    torch.manual_seed(0)
    images_SNCHW = torch.randn(STEPS, BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    labels_SNL = (torch.rand(STEPS, BATCH, len(OBSERVATIONS)) < 0.5).double()
    labels_SNL[:, 0] = labels_SNL[:, 2:, 3:] = labels_SNL[-1] = math.nan

    def loss_of(network: nn.Module, step: int) -> Tensor:
        images_NCHW, labels_NL = rows(images_SNCHW[step], labels_SNL[step])
        return losses.classification(network(images_NCHW), labels_NL)

    return train(classifier.build(architecture).double(), loss_of)


def boundaries(loss: str, frozen: bool) -> Outcome:
    """A class is in images of one worker only; one image has nothing but background."""
    torch.manual_seed(0)
    images_SNCHW = torch.randn(STEPS, BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    kinds = torch.tensor(
        [irnet_losses.FOREGROUND, irnet_losses.BACKGROUND, irnet_losses.IGNORE], dtype=torch.uint8
    )
    side = SIZE // irnet.STRIDE
    seeds_SNKhw = kinds[torch.randint(3, (STEPS, BATCH, PATHOLOGIES, side, side))]
    seeds_SNKhw[:, 1:, 0] = irnet_losses.IGNORE
    seeds_SNKhw[:, 2].masked_fill_(seeds_SNKhw[:, 2] == 1, irnet_losses.IGNORE)

    def loss_of(network: nn.Module, step: int) -> Tensor:
        images_NCHW, seeds_NKhw = rows(images_SNCHW[step], seeds_SNKhw[step])
        return getattr(irnet_losses, loss)(*network(images_NCHW), seeds_NKhw, 3)["total"]

    return train(irnet.IRNet("resnet18", freeze_backbone=frozen).double(), loss_of)


def contrast() -> Outcome:
    """The queue holds less than three batches, so that it wraps around."""
    torch.manual_seed(0)
    model = moco.MoCo(moco.build("resnet18"), queue=2 * BATCH + 2, momentum=0.9).double()
    pairs_S2NCHW = torch.randn(STEPS, 2, BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    model.calibrate(pairs_S2NCHW[0, 0])
    network = distributed.parallel(model.query, "cpu")
    optimizer = torch.optim.SGD(model.query.parameters(), lr=0.01)
    values = []
    for pair_2NCHW in pairs_S2NCHW:
        queries_ND, keys_ND = model(*rows(*pair_2NCHW), network)
        loss = moco.info_nce(model.logits(queries_ND, keys_ND))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update(keys_ND)
        values.append(distributed.mean(loss).item())
    return values, model.state_dict()


TRAININGS: dict[str, Callable[[], Outcome]] = {
    "classification, resnet18": lambda: classification("resnet18"),
    "classification, densenet121": lambda: classification("densenet121"),
    "pair_losses": lambda: boundaries("pair_losses", frozen=False),
    "pair_losses, frozen": lambda: boundaries("pair_losses", frozen=True),
    "published_losses": lambda: boundaries("published_losses", frozen=False),
    "moco": contrast,
}


def _work(rank: int, workers: int, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=workers
    )
    torch.save({name: training() for name, training in TRAININGS.items()}, out / f"answer{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    return {name: training() for name, training in TRAININGS.items()}


@pytest.mark.slow
def test_workers_compute_what_one_does(alone, tmp_path):
    multiprocessing.spawn(_work, (WORKERS, tmp_path), nprocs=WORKERS)
    for rank in range(WORKERS):
        together = torch.load(tmp_path / f"answer{rank}", weights_only=True)
        for name, (values, state) in alone.items():
            shared, shared_state = together[name]
            torch.testing.assert_close(shared, values, rtol=0, atol=1e-9, msg=f"{name}: {shared}")
            assert shared_state.keys() == state.keys()
            for key in state:
                torch.testing.assert_close(
                    shared_state[key],
                    state[key],
                    rtol=0,
                    atol=1e-8,
                    msg=lambda text, name=name, key=key: f"{name}, {key}: {text}",
                )
