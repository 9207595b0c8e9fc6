"""Tests of the closed forms of Grad-CAM and Grad-CAM++ against autograd and the grad-cam package."""

from __future__ import annotations

import copy

import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from chexseg.errors import UserError
from chexseg.models import classifier
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency import gradcam

COLUMNS = observation_indices(PATHOLOGIES)


class PooledLinear(nn.Module):
    """Convolution, ReLU, global average pooling, linear: the head that has a closed form, with a body before it."""

    def __init__(self, pathologies: int):
        super().__init__()
        self.body = nn.Conv2d(1, 6, 3, padding=1)
        self.linear = nn.Linear(6, pathologies)

    def forward(self, images):
        features = self.body(images).relu()
        return features, self.linear(features.mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PooledLinear(pathologies=10).double()


@pytest.fixture
def images():
    return torch.randn(3, 1, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def grad_cam_by_hand(features, logits):
    """One image and one class at a time."""
    maps = torch.zeros(*logits.shape, *features.shape[2:], dtype=features.dtype)
    for n in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            (gradient,) = torch.autograd.grad(logits[n, k], features, retain_graph=True)
            for c in range(features.shape[1]):
                maps[n, k] += gradient[n, c].mean() * features[n, c].detach()
    return maps.relu()


def test_closed_form_equals_one_backward_pass_per_image_and_class(network, images):
    features, logits = network(images)
    expected = grad_cam_by_hand(features, logits)
    assert (expected > 0).any()
    closed = gradcam.closed_form(features.detach(), network.linear.weight.detach())
    torch.testing.assert_close(closed, expected, rtol=0, atol=1e-12)


def before_relu_by_hand(before, linear):
    """LayerGradCam at the layer before the ReLU, target the probability: one image and class at a time."""
    before = before.detach().requires_grad_()
    probabilities = linear(before.relu().mean((2, 3))).sigmoid()
    maps = torch.zeros(*probabilities.shape, *before.shape[2:], dtype=before.dtype)
    for n in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            (gradient,) = torch.autograd.grad(probabilities[n, k], before, retain_graph=True)
            for c in range(before.shape[1]):
                maps[n, k] += gradient[n, c].mean() * before[n, c].detach()
    return maps.relu()


def test_before_the_relu_on_the_probability_equals_one_backward_pass_per_image_and_class(
    network, images
):
    before, weight = network.body(images).detach(), network.linear.weight.detach()
    expected = before_relu_by_hand(before, network.linear)
    logits = network.linear(before.relu().mean((2, 3))).detach()
    maps = gradcam.before_relu(before, weight)
    scaled = maps * gradcam.probability_gradient(logits)[:, :, None, None]
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-12)
    # The target changes no map but for its scale; the layer does.
    torch.testing.assert_close(gradcam.normalise(maps), gradcam.normalise(expected))
    after = gradcam.closed_form(before.relu(), weight)
    assert (gradcam.normalise(maps) - gradcam.normalise(after)).abs().max() > 0.1


def test_the_probability_as_target_after_the_relu(network, images):
    features, logits = network(images)
    expected = grad_cam_by_hand(features, logits.sigmoid())
    maps = gradcam.closed_form(features.detach(), network.linear.weight.detach())
    maps = maps * gradcam.probability_gradient(logits.detach())[:, :, None, None]
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-12)


def test_a_saturated_probability_has_no_gradient():
    assert gradcam.probability_gradient(torch.tensor([100.0, -200.0])).tolist() == [0, 0]


def test_only_the_densenet_has_a_feature_map_before_its_relu(densenet, radiographs):
    before = densenet.pre_activation(radiographs)
    assert before.min() < 0
    assert torch.equal(before.relu(), densenet.feature_map(radiographs))
    with pytest.raises(UserError, match="densenet121"):
        classifier.build("resnet18").eval().pre_activation(radiographs)


def test_closed_form_in_float32(network, images):
    features, logits = network.float()(images.float())
    expected = gradcam.normalise(grad_cam_by_hand(features, logits))
    closed = gradcam.normalise(
        gradcam.closed_form(features.detach(), network.linear.weight.detach())
    )
    torch.testing.assert_close(closed, expected, rtol=0, atol=1e-5)


def grad_cam_plus_plus_by_hand(features, head):
    """The definition with Y = exp(score), each derivative by one pixel at a time."""
    images, channels, height, width = features.shape
    pathologies = head.out_features
    maps = torch.zeros(images, pathologies, height, width, dtype=features.dtype)
    for n in range(images):
        for k in range(pathologies):
            for c in range(channels):
                weight = 0.0
                for y in range(height):
                    for x in range(width):
                        pixel = features[n, c, y, x].clone().requires_grad_()
                        replaced = features[n].clone()
                        replaced[c, y, x] = pixel
                        score = head(replaced.mean((1, 2)))[k].exp()
                        (first,) = torch.autograd.grad(score, pixel, create_graph=True)
                        (second,) = torch.autograd.grad(first, pixel, create_graph=True)
                        (third,) = torch.autograd.grad(second, pixel)
                        alpha = second / (2 * second + features[n, c].sum() * third)
                        weight += alpha.item() * max(first.item(), 0)
                maps[n, k] += weight * features[n, c]
    return maps.relu()


def test_plus_plus_is_its_definition():
    torch.manual_seed(0)
    head = nn.Linear(3, 4).double()
    features = torch.randn(2, 3, 3, 2, dtype=torch.float64).relu() * 5
    expected = grad_cam_plus_plus_by_hand(features, head)
    weight, bias = head.weight.detach(), head.bias.detach()
    # The bias scales whole maps only, so it is left out.
    ours = gradcam.grad_cam_plus_plus(features, weight) * bias.exp()[:, None, None]
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=0)
    # And it is another map than Grad-CAM's.
    other = gradcam.normalise(gradcam.closed_form(features, weight))
    assert (other - gradcam.normalise(expected)).abs().max() > 0.01


def test_plus_plus_is_finite_for_weights_without_a_gradient():
    features = torch.tensor([4.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    # -2 / mean would make the printed denominator zero.
    maps = gradcam.grad_cam_plus_plus(features, torch.tensor([[-0.5, -2.0], [0.0, 0.0]]))
    assert (maps == 0).all()


def test_normalise_scales_each_map_by_its_own_maximum():
    maps = torch.tensor(
        [[[[0.0, 2.0], [4.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[1e-30, 0.0], [0.0, 5e-31]]]]
    )
    expected = torch.tensor(
        [[[[0.0, 0.5], [1.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.5]]]]
    )
    torch.testing.assert_close(gradcam.normalise(maps), expected)


class Hookable(nn.Module):
    """Our classifier with its last ReLU as a module, which the grad-cam package can hook."""

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.features = nn.Sequential(body, nn.ReLU())
        self.head = head

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(0)
    return classifier.build("densenet121").eval()


@pytest.fixture(scope="module")
def radiographs():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def package_maps(method, network, images):
    """(N, K, h, w) of the grad-cam package before it scales and resizes, and (N, K, H, W) as its users get them."""
    raw, shown = [], []
    with method(network, [network.features]) as cam:
        for column in COLUMNS:
            targets = [ClassifierOutputTarget(column)] * len(images)
            shown.append(torch.from_numpy(cam(images, targets)))
            hooked = cam.activations_and_grads
            arguments = (hooked.activations[0].numpy(), hooked.gradients[0].numpy())
            raw.append(
                torch.from_numpy(
                    cam.get_cam_image(images, network.features, targets, *arguments)
                ).relu()
            )
    return torch.stack(raw, dim=1), torch.stack(shown, dim=1)


def as_shown(maps, size):
    """The package's last steps: to [0, 1] by the smallest and the largest value, bilinear to the image's size, again."""

    def scaled(values):
        values = values - values.amin((2, 3), keepdim=True)
        return values / (1e-7 + values.amax((2, 3), keepdim=True))

    return scaled(F.interpolate(scaled(maps), size=size, mode="bilinear", align_corners=False))


def test_grad_cam_is_the_grad_cam_packages(densenet, radiographs):
    raw, shown = package_maps(
        pytorch_grad_cam.GradCAM, Hookable(densenet.body, densenet.head), radiographs
    )
    features = densenet.feature_map(radiographs)
    closed = gradcam.closed_form(features.detach(), densenet.head.weight[COLUMNS].detach())
    assert (raw.amax((2, 3)) > 1e-3).sum() > len(
        PATHOLOGIES
    )  # some are 0 everywhere: no weight pulls them up
    torch.testing.assert_close(closed, raw, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradcam.normalise(closed), gradcam.normalise(raw), rtol=0, atol=1e-5)
    torch.testing.assert_close(as_shown(closed, (96, 96)), shown, rtol=0, atol=1e-5)


def test_grad_cam_plus_plus_is_the_grad_cam_packages_but_for_its_epsilon(densenet, radiographs):
    # Theirs differs from the definition in two things. It leaves out exp(y), which scales a whole map. And it adds 1e-6
    # to the denominator 2 g^2 + sum(A) g^3, where g = weight / (H W): of ordinary weights g^2 is smaller than that, the
    # channels of small weights are pushed down, and maps move by a percent here, more for a larger H W.
    with torch.no_grad():
        features = densenet.feature_map(radiographs[:1]).double()
    head = copy.deepcopy(densenet.head).double()
    network, area = Hookable(nn.Identity(), head), features[0, 0].numel()
    weight, pooled = head.weight[COLUMNS].detach().clone(), features.mean((2, 3))

    raw, _ = package_maps(
        pytorch_grad_cam.GradCAMPlusPlus, network, features.clone().requires_grad_()
    )
    g = weight.relu() / area
    alpha = area * g**3 / (2 * g**2 + area * pooled[:, None] * g**3 + 1e-6)
    with_epsilon = (alpha @ features.flatten(2)).unflatten(2, features.shape[2:])
    torch.testing.assert_close(raw, with_epsilon, rtol=0, atol=1e-12)
    ours = gradcam.normalise(gradcam.grad_cam_plus_plus(features, weight))
    assert 1e-3 < (ours - gradcam.normalise(raw)).abs().max() < 0.1

    # If 1e-6 is negligible beside g^2, both maps are equal.
    with torch.no_grad():
        head.weight.mul_(600)
    raw, _ = package_maps(
        pytorch_grad_cam.GradCAMPlusPlus, network, features.clone().requires_grad_()
    )
    ours = gradcam.normalise(gradcam.grad_cam_plus_plus(features, 600 * weight))
    assert (ours.amax((2, 3)) == 1).all()
    torch.testing.assert_close(ours, gradcam.normalise(raw), rtol=0, atol=2e-5)
