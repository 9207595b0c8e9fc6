"""Compare a network on two processes with one: loss, weights and statistics after five steps."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from chexseg.models import distributed, irnet, losses, segmenter

STEPS, BATCH, SIZE, PATHOLOGIES = 5, 8, 32, 3


def trained(loss: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """(loss of each step, state) of a segmenter in float64: what is left of a difference is no rounding."""
    torch.manual_seed(0)
    images_NCHW = torch.randn(STEPS, BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    masks_NKHW = torch.rand(STEPS, BATCH, PATHOLOGIES, SIZE, SIZE) < 0.3
    model = segmenter.build("resnet18", PATHOLOGIES).double()
    network = distributed.parallel(model, "cpu").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    values = []
    for step in range(STEPS):
        torch.manual_seed(step)
        batch = distributed.shard_batch({"images": images_NCHW[step], "masks": masks_NKHW[step]})
        value = losses.SEGMENTATION[loss](network(batch["images"]), batch["masks"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(distributed.mean(value).item())
    return values, model.state_dict()


def _work(rank: int, port_file: str, answers: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=2)
    found = {loss: trained(loss) for loss in losses.SEGMENTATION}
    torch.save(found, f"{answers}{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    multiprocessing.spawn(_work, (str(tmp_path / "rendezvous"), str(tmp_path / "answer")), nprocs=2)
    together = [torch.load(tmp_path / f"answer{rank}", weights_only=True) for rank in (0, 1)]
    for loss in losses.SEGMENTATION:
        values, state = trained(loss)
        assert values[-1] < values[0]
        for found, found_state in (answer[loss] for answer in together):
            assert found_state.keys() == state.keys()
            torch.testing.assert_close(found, values, rtol=0, atol=1e-9)
            for name in state:
                torch.testing.assert_close(
                    found_state[name],
                    state[name],
                    rtol=0,
                    atol=1e-7,
                    msg=lambda text, name=name: f"{name}: {text}",
                )


def test_one_worker_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    assert distributed.parallel(model, "cpu") is model
    batch = {"images": torch.arange(6)}
    assert distributed.shard_batch(batch)["images"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (distributed.workers(), distributed.rank()) == (1, 0)


def test_what_several_workers_cannot_share_is_told_before():
    assert distributed.unsupported_reason(segmenter.build("resnet18", 2), on_gpu=False) is None
    for normalisation in (
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm1d(3),
    ):
        assert (
            "can't be synchronised between workers without GPUs"
            in distributed.unsupported_reason(nn.Sequential(normalisation), on_gpu=False)
        )
        assert distributed.unsupported_reason(nn.Sequential(normalisation), on_gpu=True) is None
    frozen = irnet.IRNet("resnet18", freeze_backbone=True)
    frozen.encoder.layer1[0].bn1.momentum = None
    assert distributed.unsupported_reason(frozen, on_gpu=False) is None
    frozen.encoder.requires_grad_(True)
    assert "BatchNorm2d can't" in distributed.unsupported_reason(frozen, on_gpu=False)
    assert "Dropout2d draws" in distributed.unsupported_reason(
        nn.Sequential(nn.Dropout2d()), on_gpu=True
    )


def test_batch_normalisation_in_bfloat16_takes_its_statistics_in_float32():
    torch.manual_seed(0)
    images_NCHW = 100 + torch.randn(8, 3, 16, 16)
    own, torchs = distributed._BatchNorm2d(3), nn.BatchNorm2d(3)
    out = own(images_NCHW.bfloat16())
    assert out.dtype == torch.bfloat16
    expected = torchs(images_NCHW.bfloat16().float())
    torch.testing.assert_close(out.float(), expected, rtol=0.01, atol=0.01)
    torch.testing.assert_close(own.running_mean, torchs.running_mean)
    torch.testing.assert_close(own.running_var, torchs.running_var)
