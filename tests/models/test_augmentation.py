"""Views of radiographs: the radiograph itself at no strength, each change what it says, and drawn by the seed alone."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.models.augmentation import (
    Augmentation,
    crop_draws,
    scaled_crops,
    view_draws,
    views,
)


def pictures(count: int = 8, height: int = 48, width: int = 48) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (count, height, width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def seen(images: torch.Tensor, seed: int = 1, **strength: float) -> torch.Tensor:
    draws = view_draws(len(images), torch.Generator().manual_seed(seed))
    return views(images, Augmentation(**strength), draws)


def smooth(side: int = 48) -> torch.Tensor:
    """A picture whose grey tells the place: x rises from 60 to 180."""
    return torch.linspace(60, 180, side).round().to(torch.uint8).expand(1, side, side)


@pytest.mark.parametrize("shape", [(48, 48), (320, 320), (33, 64)])
def test_no_strength_is_the_identity(shape):
    images = pictures(4, *shape)
    assert torch.equal(seen(images), images)


def test_a_flip_is_a_flip_and_never_a_vertical_one():
    images = pictures(64)
    assert torch.equal(seen(images, flip=1), images.flip(2))
    half = seen(images, flip=0.5)
    flipped = [torch.equal(view, image.flip(1)) for view, image in zip(half, images, strict=True)]
    kept = [torch.equal(view, image) for view, image in zip(half, images, strict=True)]
    assert sum(flipped) + sum(kept) == 64
    assert 20 < sum(flipped) < 44


def test_views_keep_shape_and_type_and_differ_from_image_to_image():
    images = pictures(1, 40, 56).expand(6, -1, -1)
    out = seen(images, crop=0.5, rotation=10, flip=0.5, brightness=0.2, contrast=0.2)
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    assert len({view.numpy().tobytes() for view in out}) == 6


def test_the_seed_alone_decides_and_a_generator_goes_on():
    images, strength = (
        pictures(),
        Augmentation(crop=0.5, rotation=10, flip=0.5, brightness=0.2, contrast=0.2),
    )
    generator = torch.Generator().manual_seed(1)
    first, second = (views(images, strength, view_draws(len(images), generator)) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, seen(images, 1, **vars(strength)))
    assert not torch.equal(first, seen(images, 2, **vars(strength)))


def test_a_crop_shows_a_part_of_the_image_no_smaller_than_asked_for():
    image = smooth()
    spans = []
    for seed in range(200):
        row = seen(image, seed, crop=0.25)[0, 24].float()
        assert row.min() >= 60  # nothing from outside the image
        spans.append(float(row[-1] - row[0]) / 120)
    assert min(spans) == pytest.approx(0.5, abs=0.05)  # a quarter of the area is half of the side
    assert max(spans) == pytest.approx(1, abs=0.05)
    starts = [float(seen(image, seed, crop=0.25)[0, 24, 0]) for seed in range(200)]
    assert min(starts) < 65 and max(starts) > 105


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_a_rotation_keeps_shapes_and_stays_within_its_angle(height, width):
    """A bar through the centre, seen turned: its angle is that of its second moments, in pixels along both axes."""
    image = torch.zeros(1, height, width, dtype=torch.uint8)
    image[:, height // 2 - 1 : height // 2 + 1, width // 2 - 18 : width // 2 + 18] = 255
    angles = []
    for seed in range(60):
        y, x = torch.nonzero(seen(image, seed, rotation=30)[0] > 127).float().T
        covariance = torch.cov(torch.stack([x, y]))
        angles.append(
            math.degrees(
                0.5 * math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])
            )
        )
        assert float(x.max() - x.min()) ** 2 + float(y.max() - y.min()) ** 2 == pytest.approx(
            35**2, rel=0.15
        )
    assert max(map(abs, angles)) < 31
    assert max(angles) > 24 and min(angles) < -24


def test_brightness_leaves_black_black_and_contrast_keeps_the_mean():
    image = smooth()
    image = torch.cat([image, torch.zeros_like(image)])
    for seed in range(20):
        bright = seen(image, seed, brightness=0.3).float()
        assert (bright[1] == 0).all()
        factor = float(bright[0].mean() / image[0].float().mean())
        assert 0.69 < factor < 1.31
        torch.testing.assert_close(bright[0], image[0] * factor, atol=1.5, rtol=0)
        flat = seen(image, seed, contrast=0.3)[0].float()
        assert float(flat.mean()) == pytest.approx(float(image[0].float().mean()), abs=0.6)
        assert 0.69 < float(flat.std() / image[0].float().std()) < 1.31
    stds = [float(seen(image, seed, contrast=0.3)[0].float().std()) for seed in range(20)]
    assert max(stds) > 1.4 * min(stds)


def interpolated(values_HW: torch.Tensor, y: float, x: float, border: bool) -> float:
    """Return the bilinear value at (y, x), counted from the corner; outside, black or the border."""
    total, (height, width) = 0.0, values_HW.shape
    top, left = math.floor(y - 0.5), math.floor(x - 0.5)
    for v in (top, top + 1):
        for u in (left, left + 1):
            weight = (1 - abs(y - 0.5 - v)) * (1 - abs(x - 0.5 - u))
            nearest = min(max(v, 0), height - 1), min(max(u, 0), width - 1)
            if border or nearest == (v, u):
                total += weight * float(values_HW[nearest])
    return total


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("scales", [(0.5, 0.5), (1.0, 1.0), (1.5, 1.5), (0.5, 1.5)])
def test_scaled_crops_by_loops(scales, mode):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (3, 8, 12), generator=generator, dtype=torch.uint8)
    maps = torch.rand(3, 2, 3, 4, generator=generator)
    seen, view_maps, inside = scaled_crops(
        images, maps, scales, (2, 3), crop_draws(3, torch.Generator().manual_seed(7)), mode
    )
    factor, right, down = torch.rand(3, 3, generator=torch.Generator().manual_seed(7)).tolist()
    for n in range(3):
        scale = scales[0] + (scales[1] - scales[0]) * factor[n]
        # Corner of the view within the resized image, in shares of the view.
        x0, y0 = ((scale - 1) * place for place in (right[n], down[n]))
        for y in range(8):
            for x in range(12):
                place = ((y + 0.5) / 8 + y0) / scale * 8, ((x + 0.5) / 12 + x0) / scale * 12
                expected = interpolated(images[n], *place, border=False)
                assert abs(float(seen[n, y, x]) - expected) <= 0.51
        for y in range(2):
            for x in range(3):
                v, u = ((y + 0.5) / 2 + y0) / scale, ((x + 0.5) / 3 + x0) / scale
                assert bool(inside[n, y, x]) == (0 <= v <= 1 and 0 <= u <= 1)
                for k in range(2):
                    expected = interpolated(maps[n, k], v * 3, u * 4, border=True)
                    if mode == "nearest":
                        row, column = min(max(int(v * 3), 0), 2), min(max(int(u * 4), 0), 3)
                        expected = float(maps[n, k, row, column])
                    assert view_maps[n, k, y, x].item() == pytest.approx(expected, abs=1e-5)
    if scales == (1.0, 1.0):
        assert torch.equal(seen, images) and inside.all()
    if scales == (0.5, 0.5):  # a quarter of the view is the image, wherever it lies
        assert (seen > 0).float().mean() < 0.4


def test_scaled_crops_are_in_range_and_of_all_sizes():
    images = torch.full((400, 16, 16), 255, dtype=torch.uint8)
    seen, _, inside = scaled_crops(
        images,
        torch.ones(400, 1, 4, 4),
        (0.5, 1.5),
        (64, 64),
        crop_draws(400, torch.Generator().manual_seed(0)),
    )
    side = inside.float().mean((1, 2)).sqrt()
    assert side.min() < 0.53 and (side == 1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert seen.max() == 255
