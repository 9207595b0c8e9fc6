"""IRNet's losses against loops over pixel pairs, and what its network promises."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.models.irnet import IRNet
from chexseg.models.irnet_losses import (
    BACKGROUND,
    FOREGROUND,
    IGNORE,
    pair_losses,
    published_losses,
    seeds,
)

PARTS = (
    "displacement_foreground",
    "displacement_background",
    "boundary_foreground",
    "boundary_background",
    "boundary_negative",
    "boundary",
    "total",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small maps: threads only wait for each other
    yield
    torch.set_num_threads(before)


def between(yi, xi, yj, xj):
    length = math.hypot(yj - yi, xj - xi)
    for y in range(min(yi, yj), max(yi, yj) + 1):
        for x in range(min(xi, xj), max(xi, xj) + 1):
            if abs((yj - yi) * (x - xi) - (xj - xi) * (y - yi)) / length < 1 - 1e-9:
                yield y, x


def losses_by_hand(boundary, displacement, seeds, radius):
    """Equations (3) to (7), image by image, pathology by pathology, pair by pair."""
    images, pathologies, height, width = seeds.shape
    terms = {name: [] for name in PARTS[:5]}
    probability = boundary.sigmoid()
    for n in range(images):
        for k in range(pathologies):
            labels = seeds[n, k]
            if not (labels == FOREGROUND).any():
                continue
            for i in range(height * width):
                for j in range(i + 1, height * width):
                    (yi, xi), (yj, xj) = divmod(i, width), divmod(j, width)
                    pair = {labels[yi, xi].item(), labels[yj, xj].item()}
                    if math.hypot(yj - yi, xj - xi) >= radius or IGNORE in pair:
                        continue
                    a = (
                        1
                        - torch.stack(
                            [probability[n, y, x] for y, x in between(yi, xi, yj, xj)]
                        ).max()
                    )
                    delta = displacement[n, :, yi, xi] - displacement[n, :, yj, xj]
                    wanted = torch.tensor([yj - yi, xj - xi])
                    if pair == {FOREGROUND}:
                        terms["displacement_foreground"].append((wanted - delta).abs().sum())
                        terms["boundary_foreground"].append(-a.log())
                    elif pair == {BACKGROUND}:
                        terms["displacement_background"].append(delta.abs().sum())
                        terms["boundary_background"].append(-a.log())
                    else:
                        terms["boundary_negative"].append(-(1 - a).log())
    parts = {
        name: torch.stack(values).mean() if values else torch.zeros((), dtype=boundary.dtype)
        for name, values in terms.items()
    }
    parts["boundary"] = (
        parts["boundary_foreground"] / 2
        + parts["boundary_background"] / 2
        + parts["boundary_negative"]
    )
    parts["total"] = (
        parts["displacement_foreground"] + parts["displacement_background"] + parts["boundary"]
    )
    return parts


def published_by_hand(boundary, displacement, seeds, radius):
    """The description of the published losses, class by class, image by image, pair by pair."""
    images, classes, height, width = seeds.shape
    probability = boundary.sigmoid()
    furthest = math.ceil(radius) - 1
    parts = dict.fromkeys(PARTS, torch.zeros((), dtype=boundary.dtype))
    running = dict(parts)
    for k in range(classes):
        terms = {name: [] for name in PARTS[:5]}
        for n in range(images):
            for yi in range(height - furthest):
                for xi in range(furthest, width - furthest):
                    for yj in range(height):
                        for xj in range(width):
                            if (yj, xj) <= (yi, xi) or math.hypot(yj - yi, xj - xi) >= radius:
                                continue
                            pair = {seeds[n, k, yi, xi].item(), seeds[n, k, yj, xj].item()}
                            if IGNORE in pair:
                                continue
                            a = (
                                1
                                - torch.stack(
                                    [probability[n, y, x] for y, x in between(yi, xi, yj, xj)]
                                ).max()
                            )
                            dy = displacement[n, 0, yi, xi] - displacement[n, 0, yj, xj]
                            dx = displacement[n, 1, yi, xi] - displacement[n, 1, yj, xj]
                            if pair == {FOREGROUND}:
                                terms["boundary_foreground"].append(-a.log())
                                terms["displacement_foreground"].append((dy - (yj - yi)).abs())
                                terms["displacement_foreground"].append((dx - (xj - xi)).abs())
                            elif pair == {BACKGROUND}:
                                terms["boundary_background"].append(-a.log())
                                terms["displacement_background"].append(dy.abs())
                                terms["displacement_background"].append(dx.abs())
                            else:
                                terms["boundary_negative"].append(-(1 - a).log())
        means = {
            name: torch.stack(values).mean() if values else torch.zeros((), dtype=boundary.dtype)
            for name, values in terms.items()
        }
        positive = (means["boundary_foreground"] + means["boundary_background"]) / 2
        means["displacement_foreground"] = means["displacement_foreground"] / 2
        means["displacement_background"] = means["displacement_background"] / 2
        means["boundary"] = (positive + means["boundary_negative"]) / 2
        means["total"] = (
            means["boundary"] + means["displacement_foreground"] + means["displacement_background"]
        )
        running = {name: running[name] + means[name] for name in PARTS}
        parts = {name: parts[name] + running[name] for name in PARTS}  # the fault
    return parts


def random_inputs(pathologies=3, size=(6, 7), images=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    boundary = torch.randn(images, *size, dtype=dtype, generator=generator)
    displacement = 3 * torch.randn(images, 2, *size, dtype=dtype, generator=generator)
    values = torch.tensor([FOREGROUND, BACKGROUND, IGNORE], dtype=torch.uint8)
    labels = values[torch.randint(3, (images, pathologies, *size), generator=generator)]
    labels[0, 0][labels[0, 0] == FOREGROUND] = IGNORE  # background only: says nothing
    labels[-1, -1] = IGNORE  # absent
    return boundary.requires_grad_(), displacement.requires_grad_(), labels


def agree(found, expected, boundary, displacement):
    """Check values and gradients of all parts; the expected ones are positive."""
    assert set(found) == set(PARTS)
    for name in PARTS:
        assert found[name].item() == pytest.approx(expected[name].item(), abs=1e-12), name
        assert expected[name] > 0
        theirs, ours = (
            torch.autograd.grad(
                parts[name], (boundary, displacement), retain_graph=True, allow_unused=True
            )
            for parts in (expected, found)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "radius"),
    [
        ({"size": (8, 9)}, 4),
        ({"size": (7, 6), "pathologies": 14, "images": 1}, 2.5),  # more than one word of bits
        ({"size": (6, 8), "pathologies": 2}, 3),
    ],
)
def test_published_losses_and_gradients_are_those_of_the_loops(settings, radius):
    boundary, displacement, labels = random_inputs(**settings)
    expected = published_by_hand(boundary, displacement, labels, radius)
    agree(
        published_losses(boundary, displacement, labels, radius), expected, boundary, displacement
    )


def test_published_losses_count_the_first_class_most():
    boundary, displacement, labels = random_inputs(size=(8, 8), pathologies=1)
    labels = torch.cat([labels[:1], torch.full_like(labels[:1], IGNORE)], dim=1)
    first = published_losses(boundary[:1], displacement[:1], labels, 3)["total"]
    last = published_losses(boundary[:1], displacement[:1], labels.flip(1), 3)["total"]
    assert first.item() == pytest.approx(2 * last.item()) and last > 0


def test_published_losses_of_border_pairs_are_zero():
    boundary, displacement, labels = random_inputs(size=(6, 6))
    parts = published_losses(boundary, displacement, labels, 4)
    assert all(value == 0 for value in parts.values())
    gradients = torch.autograd.grad(parts["total"], (boundary, displacement))
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("settings", "radius"),
    [
        ({"size": (6, 7)}, 10),  # reaches beyond the map
        ({"size": (9, 8), "images": 1}, 4),
        ({"size": (4, 4), "pathologies": 14}, 2.5),  # more pathologies than one word of bits holds
    ],
)
def test_losses_and_gradients_are_those_of_the_loops(settings, radius):
    boundary, displacement, labels = random_inputs(**settings)
    expected = losses_by_hand(boundary, displacement, labels, radius)
    agree(pair_losses(boundary, displacement, labels, radius), expected, boundary, displacement)


def test_losses_in_float32():
    boundary, displacement, labels = random_inputs()
    expected = pair_losses(boundary, displacement, labels)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-2)):
        found = pair_losses(boundary.to(dtype), displacement.to(dtype), labels)
        for name in PARTS:
            assert found[name].dtype == torch.float32
            assert found[name].item() == pytest.approx(expected[name].item(), rel=tolerance)


def test_autocast_changes_no_loss():
    boundary, displacement, labels = random_inputs(size=(40, 40), dtype=torch.float32)
    # At radius 14, a pixel has more partners in the background than bfloat16 counts one by one.
    labels.masked_fill_(labels == IGNORE, BACKGROUND)
    labels[:, :, 8:] = BACKGROUND
    for losses in (pair_losses, published_losses):
        expected = losses(boundary, displacement, labels, 14)
        with torch.autocast("cpu", torch.bfloat16):
            found = losses(boundary, displacement, labels, 14)
        assert found == expected
        assert expected["total"] > 0


def test_gradcheck():
    boundary, displacement, labels = random_inputs(size=(3, 4), pathologies=2)
    assert torch.autograd.gradcheck(
        lambda b, d: pair_losses(b, d, labels)["total"], (boundary, displacement)
    )


def test_no_pairs_cost_nothing_and_have_a_gradient():
    boundary, displacement, labels = random_inputs()
    for empty in (torch.full_like(labels, IGNORE), torch.full_like(labels, BACKGROUND)):
        parts = pair_losses(boundary, displacement, empty)
        assert all(value == 0 for value in parts.values())
        gradients = torch.autograd.grad(parts["total"], (boundary, displacement))
        assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_certain_boundaries_keep_losses_and_gradients_finite(extreme):
    _, displacement, labels = random_inputs(dtype=torch.float32)
    boundary = torch.full((2, 6, 7), extreme, requires_grad=True)
    parts = pair_losses(boundary, displacement, labels)
    parts["total"].backward()
    assert all(value.isfinite() for value in parts.values())
    assert boundary.grad.isfinite().all()
    assert displacement.grad.isfinite().all()


def test_a_field_that_points_to_the_centroid_costs_nothing():
    height = width = 12
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (y - 5) ** 2 + (x - 6) ** 2 < 10
    to_centroid = torch.stack([5 - y, 6 - x]).float() * inside
    labels = torch.where(inside, FOREGROUND, BACKGROUND).to(torch.uint8)[None, None]
    logits = torch.full((1, height, width), -30.0)
    parts = pair_losses(logits, to_centroid[None], labels)
    assert parts["displacement_foreground"] == 0
    assert parts["displacement_background"] == 0
    # The printed sign of equation (3) would make it point away.
    assert pair_losses(logits, -to_centroid[None], labels)["displacement_foreground"] > 1


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_pairs():
    boundary, displacement, labels = random_inputs(size=(20, 20), dtype=torch.float32)

    def kept(radius):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel() * t.element_size()), lambda t: t
        ):
            pair_losses(boundary, displacement, labels, radius)
        return sum(sizes)

    assert 0 < kept(10) == kept(2) <= 30 * boundary.numel() * 4


def test_seeds():
    maps = torch.tensor([[0.0, 0.04, 0.05, 0.2, 0.3, 0.31, 1.0]]).expand(2, 1, 1, 7)
    found = seeds(maps, torch.tensor([[True], [False]]))
    assert found.dtype == torch.uint8
    assert found[0, 0, 0].tolist() == [0, 0, 255, 255, 255, 1, 1]
    assert (found[1] == IGNORE).all()
    assert seeds(maps, torch.ones(2, 1), foreground=0.25, background=0.1)[1, 0, 0].tolist() == [
        0,
        0,
        0,
        255,
        1,
        1,
        1,
    ]
    with pytest.raises(ValueError, match="background 0.4, foreground 0.3"):
        seeds(maps, torch.ones(2, 1), background=0.4)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return IRNet("resnet18")


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_outputs_are_on_stride_4(architecture):
    torch.manual_seed(0)
    network = IRNet(architecture).eval()
    for height, width in ((32, 48), (37, 50)):
        with torch.no_grad():
            boundary, displacement = network(torch.randn(2, 3, height, width))
        h, w = math.ceil(height / 4), math.ceil(width / 4)
        assert boundary.shape == (2, h, w)
        assert displacement.shape == (2, 2, h, w)


def test_padding_repeats_the_border(network):
    network.eval()
    images = torch.randn(1, 3, 40, 32)
    padded = torch.cat([images, images[:, :, -1:].expand(-1, -1, 8, -1)], dim=2)
    with torch.no_grad():
        for cut, whole in zip(network(images), network(padded), strict=True):
            assert torch.equal(cut, whole[..., :10, :])


def step(network):
    """One step of training; the names of the entries of the state that it changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimiser = torch.optim.SGD(network.parameter_groups(0.1), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    boundary, displacement = network(torch.randn(2, 3, 48, 48, generator=generator))
    labels = torch.randint(2, (2, 2, 12, 12), generator=generator, dtype=torch.uint8)
    pair_losses(boundary, displacement, labels)["total"].backward()
    optimiser.step()
    return {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }


def test_a_frozen_backbone_keeps_weights_and_statistics():
    torch.manual_seed(0)
    network = IRNet("resnet18")
    changed = step(network)
    branches = {name for name, _ in network.named_parameters() if not name.startswith("encoder.")}
    assert changed == branches
    assert all(parameter.grad is None for parameter in network.encoder.parameters())


def test_a_free_backbone_learns():
    torch.manual_seed(0)
    changed = step(IRNet("resnet18", freeze_backbone=False))
    assert "encoder.conv1.weight" in changed
    assert "encoder.bn1.running_mean" in changed


def test_the_displacement_branch_learns_ten_times_as_fast():
    for frozen in (True, False):
        network = IRNet("resnet18", freeze_backbone=frozen)
        rates = {
            id(p): group["lr"] for group in network.parameter_groups(0.1) for p in group["params"]
        }
        for name, parameter in network.named_parameters():
            if name.startswith("encoder.") and frozen:
                assert id(parameter) not in rates
            else:
                assert rates[id(parameter)] == (
                    1.0 if name.startswith("displacement_branch.") else 0.1
                )


def test_the_mean_displacement_is_subtracted_in_eval_mode_only():
    torch.manual_seed(0)
    network = IRNet("resnet18")
    images = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        _, raw = network.train()(images)
        network.calibrate([images[:2], images[2:]])
        assert network.training
        torch.testing.assert_close(network.displacement_mean, raw.mean((0, 2, 3)))
        assert network.displacement_mean.abs().max() > 1e-3
        torch.testing.assert_close(network(images)[1], raw)
        _, centred = network.eval()(images)
        torch.testing.assert_close(centred, raw - raw.mean((0, 2, 3), keepdim=True))
        before = network.displacement_mean.clone()
        network.calibrate([images])  # again: not on top of the first
        torch.testing.assert_close(network.displacement_mean, before)
    with pytest.raises(ValueError, match="no images"):
        network.calibrate([])
    assert "displacement_mean" in network.state_dict()


def test_predict_averages_the_boundary_logits_of_image_and_mirror_image(network):
    network.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        one, other = network(images)[0], network(images.flip(-1))[0].flip(-1)
    assert (one - other).abs().max() > 1e-3
    found, _ = network.predict(images)
    torch.testing.assert_close(found, ((one + other) / 2).sigmoid())
    torch.testing.assert_close(network.predict(images.flip(-1))[0], found.flip(-1))


def test_predict_gives_the_displacement_of_the_image_itself_without_its_mean():
    torch.manual_seed(0)
    network = IRNet("resnet18")
    images = torch.randn(3, 3, 32, 48)
    network.calibrate([images])
    network.train()
    with torch.no_grad():
        _, raw = network(images)
    _, found = network.eval().predict(images)
    torch.testing.assert_close(found, raw - network.displacement_mean[:, None, None])
    assert (found - raw).abs().max() > 1e-3
