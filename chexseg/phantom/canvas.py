"""Smooth shapes in body coordinates, drawn with Pillow into float32 layers of one image.

Body coordinates are centred on the spine. x points to the image's right (the patient's left) and
is 1 at the widest inner chest wall. y points down and is 0 at the apex of the lungs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

#: A curve's control points: points_P2, or a sequence of (x, y).
Points = np.ndarray | Sequence[np.ndarray] | Sequence[Sequence[float]]

#: The sign of x on the patient's two sides.
SIDES = {"right": -1.0, "left": 1.0}


@dataclass(frozen=True)
class Canvas:
    """An image of height x width pixels, and the affine map from body coordinates to its pixels."""

    height: int
    width: int
    matrix: np.ndarray  # (2, 2): body (x, y) -> pixel (column, row)
    origin: np.ndarray  # (2,): pixel (column, row) of body (0, 0)

    @cached_property
    def scale(self) -> float:
        """Pixels per body unit."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """(x_HW, y_HW): each pixel's body coordinates."""
        return self._coordinates(np.arange(self.height), np.arange(self.width))

    def _coordinates(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        right = (columns - self.origin[0]).astype(np.float32)[None, :]
        down = (rows - self.origin[1]).astype(np.float32)[:, None]
        (a, b), (c, d) = inverse
        return a * right + b * down, c * right + d * down

    def pixels(self, points_P2: np.ndarray) -> np.ndarray:
        """Return body coordinates of points (any leading axes) as pixel (column, row)."""
        return np.asarray(points_P2 @ self.matrix.T + self.origin)

    def field(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return a slowly varying function(x, y) as a layer_HW.

        It is evaluated at every fourth pixel and interpolated between.
        """
        rows, columns = -(-self.height // 4), -(-self.width // 4)
        coarse = function(
            *self._coordinates(
                (np.arange(rows) + 0.5) * self.height / rows - 0.5,
                (np.arange(columns) + 0.5) * self.width / columns - 0.5,
            )
        )
        return self._enlarge(coarse.astype(np.float32), Image.Resampling.BILINEAR)

    def noise(self, generator: np.random.Generator, grain: float) -> np.ndarray:
        """Return smooth noise as a layer_HW of about unit variance, in grains of `grain` units."""
        rows, columns = (max(3, round(n / (grain * self.scale))) for n in (self.height, self.width))
        return self._enlarge(
            generator.standard_normal((rows, columns), dtype=np.float32), Image.Resampling.BICUBIC
        )

    def _enlarge(self, coarse: np.ndarray, interpolation: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(coarse).resize((self.width, self.height), interpolation))

    def fill(
        self,
        polygons: Sequence[np.ndarray],
        values: Sequence[float] | None = None,
        blur: float = 0.0,
    ) -> np.ndarray:
        """Draw polygons of points_P2, later ones over earlier ones, as a layer_HW in [0, 1].

        values: one grey in [0, 1] per polygon, 1 by default. blur: standard deviation of a
        Gaussian in body units.
        """
        blur_pixels = blur * self.scale
        # Sharp edges are drawn at twice the size to avoid jaggedness, blurred shapes at a fraction.
        zoom = (
            2.0
            if blur_pixels < 0.8
            else 1.0
            if blur_pixels < 1.9
            else 0.5
            if blur_pixels < 6
            else 0.25
        )
        image = Image.new("L", (round(self.width * zoom), round(self.height * zoom)))
        draw = ImageDraw.Draw(image)
        corners = iter(((self.pixels(np.concatenate(polygons)) + 0.5) * zoom - 0.5).flat)
        for polygon_P2, value in zip(
            polygons, values if values is not None else [1.0] * len(polygons), strict=True
        ):
            points = list(islice(corners, 2 * len(polygon_P2)))
            draw.polygon(points, fill=round(255 * float(value)))
        if zoom == 2.0:
            image = image.reduce(2)
        if blur_pixels > 0.3:
            sigma = blur_pixels * min(zoom, 1.0)
            # For a blur of about a pixel, one box of equal variance suffices and takes a third of
            # the time.
            box = ImageFilter.BoxBlur((math.sqrt(12 * sigma**2 + 1) - 1) / 2)
            image = image.filter(box if blur_pixels < 1.3 else ImageFilter.GaussianBlur(sigma))
        if zoom < 1:
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(image) * np.float32(1 / 255)


def spline(points: Points, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Return a Catmull-Rom curve through control points, with `steps` points per segment."""
    points_P2 = np.asarray(points, dtype=float)
    if closed:
        padded = np.concatenate([points_P2[-1:], points_P2, points_P2[:2]])
    else:
        padded = np.concatenate(
            [2 * points_P2[:1] - points_P2[1:2], points_P2, 2 * points_P2[-1:] - points_P2[-2:-1]]
        )
    a, b, c, d = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points_P2[-1:]])


def ribbon(path: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return the outlines_...(2P)2 of curves paths_...P2 with a width (a number or widths_...P)."""
    along = np.empty_like(path, dtype=float)
    along[..., 1:-1, :] = path[..., 2:, :] - path[..., :-2, :]
    along[..., 0, :] = path[..., 1, :] - path[..., 0, :]
    along[..., -1, :] = path[..., -1, :] - path[..., -2, :]
    along /= np.maximum(np.hypot(along[..., :1], along[..., 1:]), 1e-9)
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    half = np.broadcast_to(np.asarray(width) / 2, path.shape[:-1])[..., None]
    return np.concatenate([path + half * normal, (path - half * normal)[..., ::-1, :]], axis=-2)


def blob(
    generator: np.random.Generator,
    centre: Sequence[float],
    radii: Sequence[float],
    roughness: float,
) -> np.ndarray:
    """Return the outline of a rounded patch: an ellipse whose radius varies by `roughness`."""
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False) + generator.uniform(0, 2 * np.pi)
    reach = 1 + roughness * generator.uniform(-1, 1, 10)
    outline = (
        np.stack([np.cos(angles) * radii[0], np.sin(angles) * radii[1]], axis=-1) * reach[:, None]
    )
    return spline(outline + np.asarray(centre), closed=True, steps=5)


def smoothstep(value: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1, and a smooth rise between."""
    clipped = np.clip(value, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped))
