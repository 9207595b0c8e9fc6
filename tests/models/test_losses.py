"""The losses against their definitions, written out as loops."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.models import losses


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_dice_sums_each_pathology_over_the_batch(generator):
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    masks = torch.rand(2, 3, 4, 5, generator=generator) < 0.3
    scores = []
    for k in range(3):
        intersection = predicted = true = 0.0
        for n in range(2):
            for y in range(4):
                for x in range(5):
                    probability = sigmoid(float(logits[n, k, y, x]))
                    intersection += probability * bool(masks[n, k, y, x])
                    predicted += probability
                    true += bool(masks[n, k, y, x])
        scores.append((2 * intersection + 1) / (predicted + true + 1))
    assert losses.class_average_dice(logits, masks).item() == pytest.approx(
        1 - sum(scores) / 3, abs=1e-12
    )


def test_dice_is_zero_for_a_perfect_and_an_absent_pathology():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2] = 1
    assert losses.class_average_dice((masks - 0.5) * 200, masks).item() == pytest.approx(
        0, abs=1e-6
    )


def test_dice_of_half_precision_is_that_of_float32():
    # 400 x 400 pixels of probability 1/2 sum to more than float16 can hold.
    logits = torch.zeros(1, 1, 400, 400, dtype=torch.float16)
    masks = torch.ones(1, 1, 400, 400)
    assert losses.class_average_dice(logits, masks).item() == pytest.approx(
        1 - 160001 / 240001, abs=1e-6
    )


def test_distillation(generator):
    student, teacher = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator) * 20
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        target, predicted = sigmoid(t / 10), sigmoid(s / 10)
        total -= target * math.log(predicted) + (1 - target) * math.log(1 - predicted)
    assert losses.distillation(student, teacher).item() == pytest.approx(
        total / student.numel(), abs=1e-12
    )
    assert losses.distillation(student, teacher, temperature=1.0) != losses.distillation(
        student, teacher
    )


def test_distillation_leaves_the_teacher_alone():
    student, teacher = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    losses.distillation(student, teacher).backward()
    assert teacher.grad is None
    assert (student.grad < 0).all()  # the teacher is above, so the student shall rise


def test_classification_ignores_nan(generator):
    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0.0, 1.0, math.nan])[torch.randint(3, (4, 5), generator=generator)]
    total, count = 0.0, 0
    for logit, label in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if not math.isnan(label):
            total -= math.log(sigmoid(logit) if label == 1 else 1 - sigmoid(logit))
            count += 1
    assert 0 < count < 20
    assert losses.classification(logits, labels).item() == pytest.approx(total / count, abs=1e-12)


def test_classification_without_a_label_has_a_gradient_of_zeros():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = losses.classification(logits, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_gradients(generator):
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    masks = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda values: losses.class_average_dice(values, masks), logits)
    assert torch.autograd.gradcheck(lambda values: losses.distillation(values, 9 * masks), logits)
    labels = torch.where(masks < 0.3, math.nan, (masks > 0.6).double()).flatten(1)
    assert torch.autograd.gradcheck(
        lambda values: losses.classification(values.flatten(1), labels), logits
    )


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_gradients_stay_finite_far_out(extreme):
    logits = torch.full((1, 2, 3, 3), extreme, requires_grad=True)
    masks = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    loss = (
        losses.class_average_dice(logits, masks)
        + losses.distillation(logits, -logits.detach())
        + losses.classification(logits.flatten(1), masks.flatten(1))
    )
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
