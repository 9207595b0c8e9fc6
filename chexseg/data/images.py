"""From an image file to a square of pixels, and back to the image's own size.

The long side becomes `size`, the aspect ratio stays, and black borders make it a square (the paper's settings table).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from chexseg.errors import UserError


@dataclass(frozen=True)
class Frame:
    """Where an image of height x width pixels lies in a square of `size` pixels: resized, centred, black around it."""

    height: int
    width: int
    size: int

    @property
    def inner(self) -> tuple[int, int]:
        """(height, width) of the resized image inside the square; at least one pixel."""
        scale = self.size / max(self.height, self.width)
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the resized image inside the square."""
        height, width = self.inner
        return (self.size - height) // 2, (self.size - width) // 2

    def _window(self) -> tuple[slice, slice]:
        (top, left), (height, width) = self.corner, self.inner
        return slice(top, top + height), slice(left, left + width)

    def image(self, pixels_HW: np.ndarray) -> np.ndarray:
        """uint8 pixels at the image's own size -> uint8 square; anti-aliased."""
        height, width = self.inner
        square = np.zeros((self.size, self.size), dtype=np.uint8)
        square[self._window()] = np.asarray(
            Image.fromarray(pixels_HW).resize((width, height), Image.Resampling.BILINEAR)
        )
        return square

    def masks(self, masks_KHW: np.ndarray) -> np.ndarray:
        """Boolean masks at the image's own size -> boolean squares; nearest neighbour, so that masks stay masks."""
        height, width = self.inner
        square = np.zeros((len(masks_KHW), self.size, self.size), dtype=bool)
        rows = np.minimum(((np.arange(height) + 0.5) * self.height / height).astype(int), self.height - 1)
        columns = np.minimum(((np.arange(width) + 0.5) * self.width / width).astype(int), self.width - 1)
        square[(slice(None), *self._window())] = masks_KHW[:, rows[:, None], columns[None, :]]
        return square

    def undo(self, masks_KSS: np.ndarray) -> np.ndarray:
        """Boolean squares -> boolean masks at the image's own size: borders cut off, nearest neighbour."""
        inner = masks_KSS[(slice(None), *self._window())]
        rows = ((np.arange(self.height) + 0.5) * inner.shape[1] / self.height).astype(int)
        columns = ((np.arange(self.width) + 0.5) * inner.shape[2] / self.width).astype(int)
        return inner[:, rows[:, None], columns[None, :]]


def decode(path: str | Path) -> np.ndarray:
    """The grey pixels_HW (uint8) of an image file. Raises `UserError` for a missing or unreadable file."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({str(error).splitlines()[0]})") from None


def dimensions(path: str | Path) -> tuple[int, int]:
    """(height, width) from the file's header alone. Raises `UserError` as `decode` does."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({str(error).splitlines()[0]})") from None
