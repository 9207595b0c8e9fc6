"""Instances from displacement fields that are known, and instance-wise CAMs against the definition written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.saliency import gradcam, random_walk
from chexseg.saliency.instances import centroids, instance_map, instance_wise_cams

SIZE = 48
FIRST, SECOND = (13.0, 12.5, 8.0), (31.0, 32.0, 7.0)  # y, x, radius


def pixels(height=SIZE, width=SIZE):
    return torch.stack(
        torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    )


def disc(y, x, radius):
    return (pixels()[0] - y) ** 2 + (pixels()[1] - x) ** 2 < radius**2


def field(*discs):
    """In each disc exactly the way to its centre, elsewhere nothing."""
    displacement = torch.zeros(2, SIZE, SIZE)
    for y, x, radius in discs:
        displacement = torch.where(
            disc(y, x, radius), torch.tensor([y, x])[:, None, None] - pixels(), displacement
        )
    return displacement


def blob(y, x, width, height=1.0):
    return height * torch.exp(-((pixels()[0] - y) ** 2 + (pixels()[1] - x) ** 2) / (2 * width**2))


def numbers(instances, inside):
    return set(instances[inside].tolist())


def test_two_discs_are_two_instances_with_their_own_centroids():
    displacement = field(FIRST, SECOND)[None]
    found, instances = centroids(displacement), instance_map(displacement)
    for circle in (FIRST, SECOND):
        inside = disc(*circle)
        apart = (found[0, :, inside] - torch.tensor(circle[:2])[:, None]).norm(dim=0)
        assert apart.max() < 1
        assert len(numbers(instances[0], inside)) == 1
    outside = ~disc(*FIRST) & ~disc(*SECOND)
    groups = [numbers(instances[0], where) for where in (disc(*FIRST), disc(*SECOND), outside)]
    assert len(set.union(*groups)) == 3  # with the resting background, in one piece
    assert 0 not in set.union(*groups)
    assert torch.equal(found[0][:, outside], pixels()[:, outside])


def test_one_disc_is_one_instance():
    instances = instance_map(field(FIRST)[None])[0]
    assert len(numbers(instances, disc(*FIRST))) == 1
    assert len(instances.unique()) == 2


def test_half_a_step_at_a_time_arrives_too():
    # A field that's right in direction only; one step of it would leave the pixels scattered over the disc.
    displacement = 0.5 * field(FIRST)[None]
    inside = disc(*FIRST)
    centre = torch.tensor(FIRST[:2])[:, None]
    assert (centroids(displacement, iterations=1)[0, :, inside] - centre).norm(dim=0).max() > 3
    assert (centroids(displacement)[0, :, inside] - centre).norm(dim=0).max() < 0.1


def test_a_centroid_between_pixels_is_one_to_rest_in():
    displacement = field((20.5, 20.5, 9.0))[None]
    found = centroids(displacement)
    assert torch.equal(found, centroids(displacement, iterations=101))
    assert (found[0, :, disc(20.5, 20.5, 9.0)] - 20.5).abs().max() < 1e-3


def test_the_border_holds():
    displacement = torch.zeros(1, 2, 6, 9)
    displacement[:, 0], displacement[:, 1] = -4, 7
    expected = torch.tensor([0.0, 8.0])[:, None, None].expand(2, 6, 9)
    assert torch.equal(centroids(displacement)[0], expected)
    # All meet in one corner, but nothing is still there.
    assert (instance_map(displacement) == 0).all()
    assert centroids(torch.ones(1, 2, 1, 5))[0, :, 0, 0].tolist() == [0, 4]


def test_without_displacement_all_pixels_rest_and_are_one_instance():
    displacement = torch.zeros(1, 2, SIZE, SIZE)
    assert torch.equal(centroids(displacement)[0], pixels())
    instances = instance_map(displacement)
    assert (instances == 1).all()
    # So instance-wise is class-wise.
    maps, boundary = (
        torch.stack([blob(13, 12, 4), blob(31, 32, 4, 0.3)])[None],
        blob(25, 25, 5)[None],
    )
    expected = gradcam.normalise(random_walk.propagate(maps, boundary))
    torch.testing.assert_close(
        instance_wise_cams(maps, boundary, instances), expected, rtol=0, atol=1e-5
    )


def follow(displacement, y, x, iterations):
    """One pixel's way, bilinear by hand."""
    _, height, width = displacement.shape
    for _ in range(iterations):
        y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
        step = 0
        for corner_y, corner_x in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
            step = step + displacement[:, corner_y, corner_x] * (1 - abs(y - corner_y)) * (
                1 - abs(x - corner_x)
            )
        there = (
            min(max(y + step[0].item(), 0), height - 1),
            min(max(x + step[1].item(), 0), width - 1),
        )
        if math.dist(there, (y, x)) < 0.01:
            break
        y, x = there
    return y, x


def components(near):
    """Flood fill over edges."""
    height, width = near.shape
    found = torch.zeros(height, width, dtype=torch.int64)
    number = 0
    for start in near.nonzero().tolist():
        if found[tuple(start)]:
            continue
        number += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if 0 <= y < height and 0 <= x < width and near[y, x] and not found[y, x]:
                found[y, x] = number
                todo += [[y + 1, x], [y - 1, x], [y, x + 1], [y, x - 1]]
    return found


@pytest.mark.parametrize("smallest", [1, 6])
def test_centroids_and_instances_are_those_of_the_loops(smallest):
    generator = torch.Generator().manual_seed(0)
    displacement = 2 * torch.randn(2, 2, 7, 9, dtype=torch.float64, generator=generator)
    found, instances = (
        centroids(displacement, 10),
        instance_map(displacement, still=2, smallest=smallest, iterations=10),
    )
    zeros = 0
    for n in range(2):
        near = components(displacement[n].norm(dim=0) < 2)
        expected = torch.zeros(7, 9, dtype=torch.int64)
        for y in range(7):
            for x in range(9):
                end = follow(displacement[n], y, x, 10)
                assert found[n, :, y, x].tolist() == pytest.approx(end, abs=1e-9)
                expected[y, x] = near[round(end[0]), round(end[1])]
        for number in set(expected.flatten().tolist()):
            if (expected == number).sum() < smallest:
                expected[expected == number] = 0
        assert torch.equal(instances[n], expected)
        zeros += int((expected == 0).sum())
        assert len(expected.unique()) > 2
    assert zeros > 0


def cams_by_hand(maps, boundary, instances, foreground):
    """One image, instance by instance; everything that has no peak is spread as a part of its own."""
    scores = torch.zeros_like(maps)
    height, width = boundary.shape

    def spread(values):
        return random_walk.propagate(values[None, None], boundary[None])[0, 0]

    for k, values in enumerate(maps):
        peaks = set()
        for y in range(height):
            for x in range(width):
                around = values[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                if (
                    values[y, x] > foreground * values.max()
                    and values[y, x] == around.max()
                    and instances[y, x]
                ):
                    peaks.add(instances[y, x].item())
        left = values.clone()
        for number in peaks:
            own = spread(values * (instances == number))
            if own.max() > 0:
                scores[k] = torch.maximum(scores[k], own / own.max())
            left[instances == number] = 0
        if values.max() > 0:
            scores[k] = torch.maximum(scores[k], spread(left) / spread(values).max())
    return scores


def test_instance_wise_cams_are_those_of_the_loops():
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 4, 12, 11, dtype=torch.float64, generator=generator)
    maps[0, 1] = 0
    maps[1, 2] = blob(4, 5, 3).double()[:12, :11]
    boundary = torch.rand(2, 12, 11, dtype=torch.float64, generator=generator) ** 2
    instances = torch.randint(40, (2, 12, 11), generator=generator)  # more than are spread at once
    found = instance_wise_cams(maps, boundary, instances, foreground=0.5)
    for n in range(2):
        expected = cams_by_hand(maps[n], boundary[n], instances[n], 0.5)
        torch.testing.assert_close(found[n], expected, rtol=0, atol=1e-12)
    assert (found[0, 1] == 0).all()
    assert (found.amax((2, 3)) <= 1).all()


def test_a_weak_second_lesion_survives_the_threshold_only_instance_wise():
    maps, boundary = (
        (blob(*FIRST[:2], 3) + blob(*SECOND[:2], 3, 0.45))[None, None],
        torch.zeros(1, SIZE, SIZE),
    )
    instances = instance_map(field(FIRST, SECOND)[None])
    class_wise = gradcam.normalise(random_walk.propagate(maps, boundary))[0, 0] > 0.6
    instance_wise = instance_wise_cams(maps, boundary, instances)[0, 0] > 0.6
    assert class_wise[disc(*FIRST)].any()
    assert not class_wise[disc(*SECOND)].any()
    assert instance_wise[31, 32]
    assert not instance_wise[~disc(*FIRST) & ~disc(*SECOND)].any()
    # Weaker than a seed it's nothing to rely on, and stays as it is.
    faint = (blob(*FIRST[:2], 3) + blob(*SECOND[:2], 3, 0.25))[None, None]
    assert not (instance_wise_cams(faint, boundary, instances)[0, 0] > 0.6)[disc(*SECOND)].any()


def test_the_foot_of_a_map_beyond_its_instance_does_not_rise():
    maps, boundary = blob(*FIRST[:2], 6)[None, None], torch.zeros(1, SIZE, SIZE)
    narrow = (*FIRST[:2], 4.0)
    instances = instance_map(field(narrow)[None])
    outside = ~disc(*narrow)
    assert maps[0, 0][outside].max() > 0.6  # by its own maximum it would all be lesion
    class_wise = gradcam.normalise(random_walk.propagate(maps, boundary))[0, 0]
    found = instance_wise_cams(maps, boundary, instances)[0, 0]
    far = ~disc(*FIRST[:2], 6.0)
    assert (found[far] <= class_wise[far] + 1e-5).all()


def test_the_place_in_the_batch_changes_nothing():
    generator = torch.Generator().manual_seed(2)
    displacement = torch.stack(
        [field(FIRST, SECOND), field(SECOND), 0.3 * field(FIRST), torch.zeros(2, SIZE, SIZE)]
    )
    displacement = displacement + 0.3 * torch.randn(displacement.shape, generator=generator)
    maps = torch.rand(4, 3, SIZE, SIZE, generator=generator)
    boundary = torch.rand(4, SIZE, SIZE, generator=generator) ** 3
    together = centroids(displacement), instance_map(displacement)
    cams = instance_wise_cams(maps, boundary, together[1])
    for n in range(4):
        alone = displacement[n : n + 1]
        assert torch.equal(centroids(alone)[0], together[0][n])
        assert torch.equal(instance_map(alone)[0], together[1][n])
        own = instance_wise_cams(maps[n : n + 1], boundary[n : n + 1], together[1][n : n + 1])
        torch.testing.assert_close(own[0], cams[n], rtol=0, atol=1e-6)


def test_inputs_are_left_alone_and_half_precision_comes_out_as_float32():
    maps, boundary = torch.rand(1, 2, SIZE, SIZE).half(), torch.rand(1, SIZE, SIZE)
    displacement = field(FIRST)[None].half()
    before = maps.clone(), boundary.clone(), displacement.clone()
    instances = instance_map(displacement)
    assert (
        centroids(displacement).dtype
        == instance_wise_cams(maps, boundary, instances).dtype
        == torch.float32
    )
    for value, old in zip((maps, boundary, displacement), before, strict=True):
        assert torch.equal(value, old)
