"""MoCo against loops and by-hand sums, and what only the query network must see."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from chexseg.errors import UserError
from chexseg.models import moco


@pytest.fixture
def model() -> moco.MoCo:
    torch.manual_seed(0)
    made = moco.MoCo(moco.build("resnet18"), queue=6, momentum=0.75, temperature=0.5)
    made.calibrate(pictures(1))
    return made


def pictures(seed: int, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, count: int) -> torch.Tensor:
    vectors = torch.randn(count, moco.DIMENSION, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def train_step(model: moco.MoCo, seed: int = 2) -> torch.Tensor:
    """One step of SGD on the query network; the keys."""
    optimizer = torch.optim.SGD(model.query.parameters(), lr=0.1)
    queries, keys = model(pictures(seed), pictures(seed + 1))
    optimizer.zero_grad()
    moco.info_nce(model.logits(queries, keys)).backward()
    optimizer.step()
    return keys


def test_the_loss_is_equation_1_by_a_loop(model):
    queries, keys = unit(3, 4), unit(4, 4)
    losses = []
    for n in range(4):
        positive = math.exp(float(queries[n] @ keys[n]) / 0.5)
        negatives = [math.exp(float(queries[n] @ key) / 0.5) for key in model.queue_QD]
        losses.append(-math.log(positive / (positive + sum(negatives))))
    assert moco.info_nce(model.logits(queries, keys)).item() == pytest.approx(
        sum(losses) / 4, rel=1e-5
    )


def test_accuracy_counts_positives_above_all_negatives_and_a_collapsed_network_gets_nothing(model):
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 2.0, -1.0], [0.5, 0.4, 0.4]])
    assert moco.accuracy(logits).item() == 0.5
    same = unit(5, 1)
    model.queue_QD.copy_(same.expand(6, -1))
    assert moco.accuracy(model.logits(same.expand(4, -1), same.expand(4, -1))).item() == 0


def test_embeddings_have_unit_length_and_two_layers_make_them(model):
    queries, keys = model(pictures(2), pictures(3))
    assert queries.shape == keys.shape == (4, moco.DIMENSION)
    for vectors in (queries, keys):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert [
        tuple(layer.weight.shape) for layer in model.query.head if hasattr(layer, "weight")
    ] == [(512, 512), (128, 512)]


def test_the_key_network_starts_as_a_copy_and_follows_by_the_momentum(model):
    start = copy.deepcopy(model.query.state_dict())
    for name, value in model.key.module.state_dict().items():
        assert torch.equal(value, start[name])
    keys = train_step(model)
    query = model.query.state_dict()
    assert not torch.equal(query["body.conv1.weight"], start["body.conv1.weight"])
    assert not torch.equal(query["body.bn1.running_mean"], start["body.bn1.running_mean"])
    model.update(keys)
    for name, value in model.key.module.state_dict().items():
        if value.is_floating_point():  # weights and statistics alike
            torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * query[name], msg=name)


def test_the_key_network_follows_as_torchs_moving_average_does_and_counts(model):
    expected = copy.deepcopy(model.key)
    for seed in (2, 4):
        keys = train_step(model, seed)
        model.update(keys)
        expected.update_parameters(model.query)
    assert model.key.n_averaged.item() == 3  # the first is `calibrate`
    assert model.key.state_dict().keys() == expected.state_dict().keys()
    for name, value in model.key.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_another_module_may_stand_for_the_query_network(model):
    images, calls = pictures(2), []

    def wrapper(images_NCHW):
        calls.append(len(images_NCHW))
        return model.query(images_NCHW)

    for found, expected in zip(model(images, images, wrapper), model(images, images), strict=True):
        assert torch.equal(found, expected)
    assert calls == [4]


def test_calibration_takes_the_batchs_own_statistics(model):
    images = pictures(1)
    expected = model.query.body.conv1(images).mean(dim=(0, 2, 3))
    torch.testing.assert_close(model.query.body.bn1.running_mean, expected)
    torch.testing.assert_close(model.key.module.body.bn1.running_mean, expected)


def test_gradients_reach_only_the_query_network(model):
    queries, keys = model(pictures(2), pictures(3))
    assert not keys.requires_grad
    moco.info_nce(model.logits(queries, keys)).backward()
    # The encoder's last classification layer is gone, so every weight is in use.
    assert all(
        value.grad is not None and value.grad.abs().sum() > 0 for value in model.query.parameters()
    )
    assert all(value.grad is None and not value.requires_grad for value in model.key.parameters())
    assert not model.queue_QD.requires_grad


def test_a_key_does_not_depend_on_the_batch_it_comes_with(model):
    model.train()
    images = pictures(2, count=8)
    _, together = model(images, images)
    _, alone = model(images[:2], images[:2])
    torch.testing.assert_close(together[:2], alone, rtol=0, atol=1e-5)
    queries, _ = model(images, images)
    fewer, _ = model(images[:2], images[:2])
    assert (
        queries[:2] - fewer
    ).abs().max() > 1e-3  # which would tell a query's batch, were its key normalised like it


def test_the_queue_keeps_the_last_keys_in_their_order_and_wraps_around(model):
    random = model.queue_QD.clone()
    first, second, third = (unit(seed, 4) for seed in (6, 7, 8))
    model.update(first)
    assert torch.equal(model.queue_QD, torch.cat([first, random[4:]]))
    assert model.pointer.item() == 4
    model.update(second)
    assert torch.equal(model.queue_QD, torch.cat([second[2:], first[2:], second[:2]]))
    assert model.pointer.item() == 2
    model.update(third)
    assert torch.equal(model.queue_QD, torch.cat([second[2:], third]))
    assert model.pointer.item() == 0


def test_more_keys_than_the_queue_holds_leave_the_last(model):
    keys = unit(9, 10)
    model.update(keys)
    assert torch.equal(model.queue_QD, keys[4:])
    model.update(unit(10, 1))
    assert torch.equal(model.queue_QD[1:], keys[5:])


def test_the_state_holds_all_that_a_step_depends_on(model):
    model.update(train_step(model))
    other = moco.MoCo(moco.build("resnet18"), queue=6, momentum=0.75, temperature=0.5)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    for made in (model, other):
        made.update(train_step(made, seed=11))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_an_unknown_encoder_is_named():
    with pytest.raises(UserError, match="found 'resnt18' .did you mean 'resnet18'"):
        moco.build("resnt18")
