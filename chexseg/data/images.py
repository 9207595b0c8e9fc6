"""From an image file to a square of pixels, and back to the image's own size.

The long side becomes `size`, the aspect ratio stays, and black borders make it a square (the paper's settings table).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chexseg.data.location import Readable
from chexseg.errors import UserError, reason


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
        square[self._window()] = np.asarray(Image.fromarray(pixels_HW).resize((width, height), Image.Resampling.BILINEAR))
        return square

    def masks(self, masks_KHW: np.ndarray) -> np.ndarray:
        """Boolean masks at the image's own size -> boolean squares; nearest neighbour, so that masks stay masks."""
        height, width = self.inner
        square = np.zeros((len(masks_KHW), self.size, self.size), dtype=bool)
        rows = np.minimum(((np.arange(height) + 0.5) * self.height / height).astype(int), self.height - 1)
        columns = np.minimum(((np.arange(width) + 0.5) * self.width / width).astype(int), self.width - 1)
        square[(slice(None), *self._window())] = masks_KHW[:, rows[:, None], columns[None, :]]
        return square

    def cut(self, squares: Any) -> Any:
        """What of squares, whose last two axes are H and W, is the image and not border: a view of the array or tensor."""
        return squares[(..., *self._window())]

    def undo(self, masks_KSS: np.ndarray) -> np.ndarray:
        """Boolean squares -> boolean masks at the image's own size: borders cut off, nearest neighbour."""
        inner = self.cut(masks_KSS)
        rows = ((np.arange(self.height) + 0.5) * inner.shape[1] / self.height).astype(int)
        columns = ((np.arange(self.width) + 0.5) * inner.shape[2] / self.width).astype(int)
        return inner[:, rows[:, None], columns[None, :]]


def decode(path: str | Path | Readable) -> np.ndarray:
    """The grey pixels_HW (uint8) of an image file; of 16 bits the upper eight are taken.

    Raises `UserError` for a missing or unreadable file, and for pixels of no known range.
    """
    with _opened(path) as image:
        if image.mode.startswith("I;16"):  # Pillow's own conversion would cut everything above 255
            return (np.asarray(image) >> 8).astype(np.uint8)
        if image.mode in ("I", "F"):
            raise UserError(f"{path}: found pixels of 32 bits; allowed: grey or colour images of 8 or 16 bits")
        return np.asarray(image.convert("L"))


def dimensions(path: str | Path | Readable) -> tuple[int, int]:
    """(height, width) from the file's header alone. Raises `UserError` for a missing file and for what is no image."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | Path | Readable) -> Iterator[Image.Image]:
    try:
        with Image.open(path if isinstance(path, str | Path) else io.BytesIO(path.read_bytes())) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file; allowed: a JPEG, PNG or other image there") from None
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: found no readable image ({reason(error)}); allowed: a whole JPEG, PNG or other image"
        ) from None
