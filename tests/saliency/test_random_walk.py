"""Propagation against the dense matrix, written as loops over pixel pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from chexseg.models.irnet_pairs import half_disc, line
from chexseg.saliency.random_walk import (
    propagate,
    relative_walk,
    scaled_by_upsampled_maximum,
    step_variance,
)


def pixels_between(yi, xi, yj, xj):
    """The definition: in the bounding box of the two, less than a pixel from the straight line through them."""
    length = math.hypot(yj - yi, xj - xi)
    found = set()
    for y in range(min(yi, yj), max(yi, yj) + 1):
        for x in range(min(xi, xj), max(xi, xj) + 1):
            if abs((yj - yi) * (x - xi) - (xj - xi) * (y - yi)) / length < 1 - 1e-9:
                found.add((y, x))
    return found


def dense(maps, boundary, radius, power, steps):
    """The (h w) x (h w) matrix of one image, pair by pair; maps (K, h, w)."""
    height, width = boundary.shape
    affinity = np.eye(height * width)
    for i in range(height * width):
        for j in range(height * width):
            (yi, xi), (yj, xj) = divmod(i, width), divmod(j, width)
            if i != j and math.hypot(yj - yi, xj - xi) < radius:
                affinity[i, j] = (
                    1 - max(boundary[p] for p in pixels_between(yi, xi, yj, xj))
                ) ** power
    transition = affinity / affinity.sum(axis=0, keepdims=True)
    rows = (maps * (1 - boundary)).reshape(len(maps), -1)
    for _ in range(steps):
        rows = rows @ transition
    return rows.reshape(maps.shape)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((8, 9), {"radius": 3, "power": 5, "steps": 8}),
        ((9, 6), {"radius": 5, "power": 10, "steps": 4}),
        (
            (4, 5),
            {"radius": 10, "power": 1, "steps": 1},
        ),  # reaches beyond the map on every side
        ((1, 7), {"radius": 3, "power": 5, "steps": 8}),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_equals_the_dense_definition(size, settings, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, *size, dtype=torch.float64, generator=generator)
    boundary = torch.rand(2, *size, dtype=torch.float64, generator=generator) ** 3
    found = propagate(maps.to(dtype), boundary.to(dtype), **settings)
    assert found.dtype == dtype
    for n in range(2):
        expected = dense(maps[n].numpy(), boundary[n].numpy(), **settings)
        np.testing.assert_allclose(found[n].double().numpy(), expected, rtol=0, atol=tolerance)


def test_the_defaults_are_the_papers_settings():
    generator = torch.Generator().manual_seed(1)
    maps, boundary = (
        torch.rand(1, 2, 6, 6, generator=generator),
        torch.rand(1, 6, 6, generator=generator),
    )
    assert torch.equal(
        propagate(maps, boundary), propagate(maps, boundary, radius=3, power=5, steps=8)
    )


def test_without_boundaries_a_constant_map_stays():
    maps = torch.full((1, 1, 12, 12), 0.7)
    torch.testing.assert_close(propagate(maps, torch.zeros(1, 12, 12)), maps)


def test_a_wall_holds_and_nothing_wraps():
    maps, boundary = torch.zeros(1, 1, 20, 20), torch.zeros(1, 20, 20)
    maps[..., 10, 2] = 1
    boundary[..., 5] = 1
    spread = propagate(maps, boundary)[0, 0]
    assert (spread[:, 5:] == 0).all()
    assert (spread[4:17, :5] > 0).all()
    # A diagonal wall, one pixel thick, is as tight.
    boundary = torch.eye(20)[None]
    spread = propagate(maps, boundary)[0, 0]
    assert (spread.triu() == 0).all()
    assert spread[15, 2] > 0


def test_half_precision_in_float32_out_and_no_gradient():
    maps = torch.rand(1, 1, 6, 6, requires_grad=True)
    found = propagate(maps.half(), torch.zeros(1, 6, 6).half())
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_inputs_are_left_alone():
    maps, boundary = torch.rand(1, 2, 6, 6), torch.rand(1, 6, 6)
    before = maps.clone(), boundary.clone()
    propagate(maps, boundary)
    assert torch.equal(maps, before[0])
    assert torch.equal(boundary, before[1])


@pytest.mark.parametrize("radius", [1.5, 3, 5, 10])
def test_half_disc_has_each_unordered_pair_once(radius):
    reach = range(-10, 11)
    disc = {(dy, dx) for dy in reach for dx in reach if 0 < math.hypot(dy, dx) < radius}
    half = half_disc(radius)
    assert len(half) == len(set(half)) == len(disc) // 2
    assert set(half) | {(-dy, -dx) for dy, dx in half} == disc
    assert all(dy >= 0 for dy, _ in half)


@pytest.mark.parametrize("offset", half_disc(10))
def test_line_is_its_definition_and_the_same_from_both_ends(offset):
    dy, dx = offset
    assert set(line(dy, dx)) == pixels_between(0, 0, dy, dx)
    assert {(0, 0), (dy, dx)} <= set(line(dy, dx))
    assert {(dy - y, dx - x) for y, x in line(dy, dx)} == set(line(dy, dx))


def test_without_boundaries_every_neighbour_counts_the_same():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 1, 7, 8, dtype=torch.float64, generator=generator)
    found = propagate(maps, torch.zeros(1, 7, 8), radius=3, power=5, steps=1)[0, 0]
    for y in range(7):
        for x in range(8):
            near = [
                maps[0, 0, v, u] for v in range(7) for u in range(8) if math.hypot(v - y, u - x) < 3
            ]
            assert found[y, x].item() == pytest.approx(float(sum(near)) / len(near), abs=1e-12)


def test_step_variance_is_that_of_one_step():
    for radius in (1.01, 1.5, 3, 6):
        start = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
        start[..., 20, 20] = 1
        spread = propagate(start, torch.zeros(1, 41, 41), radius, steps=1)[0, 0]
        y = torch.arange(41) - 20
        assert step_variance(radius) == pytest.approx(float((spread.sum(1) * y**2).sum()))


@pytest.mark.parametrize("side", [24, 32, 40, 56, 80, 128, 160])
def test_a_relative_walk_spreads_over_the_same_share_of_any_map(side):
    def share(side, radius, steps):
        start = torch.zeros(1, 1, side, side, dtype=torch.float64)
        start[..., side // 2, side // 2] = 1
        spread = propagate(start, torch.zeros(1, side, side), radius, steps=steps)[0, 0]
        y = torch.arange(side) - side // 2
        return float((spread.sum(1) * y**2).sum()) ** 0.5 / side

    assert share(80, 3, 8) == pytest.approx(0.05)
    assert share(side, *relative_walk(side / 80, 3, 8)) == pytest.approx(0.05, rel=0.1)
    if side <= 40:  # the fault of absolute lengths
        assert share(side, 3, 8) > 0.09


def test_a_relative_walk_is_unchanged_at_the_reference_and_never_without_a_step():
    assert relative_walk(1.0, 3, 8) == (3, 8)
    assert relative_walk(0.01, 3, 8) == (1.01, 1)


def test_scores_scaled_after_upsampling_by_loops():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 3, 5, 5, generator=generator) ** 4
    scores[1, 2] = 0
    found = scaled_by_upsampled_maximum(scores, 20)
    for n in range(2):
        for k in range(3):
            largest = 0.0
            for y in range(20):
                for x in range(20):
                    largest = max(largest, bilinear(scores[n, k], (y + 0.5) / 4, (x + 0.5) / 4))
            torch.testing.assert_close(found[n, k], scores[n, k] / (largest or 1))
    assert found.max() > 1  # peaks are flattened by upsampling
    assert torch.equal(found[1, 2], scores[1, 2])


def bilinear(values_hw, y, x):
    """Return the value at (y, x), counted from the map's corner; the border is repeated."""
    total = 0.0
    top, left = math.floor(y - 0.5), math.floor(x - 0.5)
    for v in (top, top + 1):
        for u in (left, left + 1):
            weight = (1 - abs(y - 0.5 - v)) * (1 - abs(x - 0.5 - u))
            inside = min(max(v, 0), len(values_hw) - 1), min(max(u, 0), len(values_hw[0]) - 1)
            total += weight * float(values_hw[inside])
    return total
