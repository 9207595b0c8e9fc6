"""From an image file to upright grey pixels and a square of them, and back to the image's own size.

`read` decodes every radiograph: those that `ingest` stores, that `predict` segments and that `data check` looks at.
In the square the long side becomes `size`, the aspect ratio stays, and borders are black (the paper's settings table).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from chexseg.data import dicom, grey
from chexseg.data.remote_path import Readable
from chexseg.errors import UserError, reason

#: What may be opened. Pillow knows many more formats, and starts other programs for some (Ghostscript for EPS).
FORMATS = ("JPEG", "PNG", "TIFF")
#: Endings of these and of DICOM. They only say which files of a directory are meant: what a file is, its content decides.
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm", ".dicom")
_EXPECTED = "a whole JPEG, PNG, TIFF or DICOM image"
_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (b"\xff\xd8\xff", _PNG, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TAG = ExifTags.Base

#: EXIF orientation -> the way to upright pixels. 1, and whatever the standard doesn't name, is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """An image as viewers show it. pixels_HW: grey (uint8), upright. orientation: EXIF's number, 1 for upright as stored."""

    pixels_HW: np.ndarray
    orientation: int = 1

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """(height, width) in the file, before the orientation is applied."""
        return self.pixels_HW.shape[::-1] if self.orientation >= 5 else self.pixels_HW.shape


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
        rows = np.minimum(
            ((np.arange(height) + 0.5) * self.height / height).astype(int), self.height - 1
        )
        columns = np.minimum(
            ((np.arange(width) + 0.5) * self.width / width).astype(int), self.width - 1
        )
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
    """Return the pixels_HW of `read`."""
    return read(path).pixels_HW


def read(path: str | Path | Readable) -> Decoded:
    """Decode a JPEG, PNG, TIFF or DICOM image, told apart by content.

    Of more than eight bits the upper eight of those in use are taken (`grey.eight_bits`; DICOM: `dicom.decode`). The EXIF
    orientation is applied. Raises `UserError` for a missing or unreadable file, several pages, and pixels of no known range.
    """
    try:
        with (
            open(path, "rb")
            if isinstance(path, str | Path)
            else io.BytesIO(path.read_bytes()) as file
        ):
            start = file.read(dicom.PREAMBLE)
            file.seek(0)
            return (
                Decoded(dicom.decode(file, path))
                if dicom.recognises(start)
                else _picture(file, path)
            )
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file; expected {_EXPECTED}") from None
    except UserError:
        raise
    except (
        Exception
    ) as error:  # a damaged file can fail in any of Pillow's parsers and decoders, with any type
        why = "of no such format" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise UserError(f"{path}: found no readable image ({why}); expected {_EXPECTED}") from None


def recognises(start: bytes) -> bool:
    """Return whether a file that begins with `start`, `dicom.PREAMBLE` bytes or all, is of a format that `read` opens."""
    return start.startswith(_SIGNATURES) or dicom.recognises(start)


def _picture(file: BinaryIO, path: object) -> Decoded:
    with Image.open(file, formats=FORMATS) as image:
        if image.mode in ("I", "F"):
            raise UserError(
                f"{path}: found pixels of 32 bits; expected grey or colour of 8 or 16 bits"
            )
        if image.format == "TIFF" and image.n_frames > 1:
            raise UserError(f"{path}: found {image.n_frames} pages; expected one")
        cut = any(
            ";16" in str(tile.args) for tile in image.tile
        )  # by Pillow, to the upper eight bits of each channel
        tags = image.tag_v2 if image.format == "TIFF" else {}
        turned, white_is_zero = (
            tags.get(_TAG.Orientation),
            tags.get(_TAG.PhotometricInterpretation) == 0,
        )
        (bits,) = tags.get(_TAG.BitsPerSample, (16,))[:1]
        image.load()
        orientation = turned if image.format == "TIFF" else _exif_orientation(image)
        if image.mode.startswith("I;16"):  # Pillow's own conversion would cut everything above 255
            declared = (
                _significant_bits(file) if image.format == "PNG" else bits if bits < 16 else None
            )
            pixels_HW = grey.eight_bits(np.asarray(image), declared)
            if white_is_zero:  # Pillow inverts that of eight bits only
                pixels_HW = 255 - pixels_HW
        else:
            pixels_HW = np.asarray(image.convert("L"))
            if cut and pixels_HW.max() < 64:
                found = "colour or transparency of 16 bits, of which at most 14 are in use"
                raise UserError(f"{path}: found {found}; expected grey of 16 bits, or 8 bits")
    if orientation not in _UPRIGHT:
        return Decoded(pixels_HW)
    if image.format != "TIFF":  # Pillow turns TIFF by itself
        pixels_HW = np.asarray(Image.fromarray(pixels_HW).transpose(_UPRIGHT[orientation]))
    return Decoded(pixels_HW, orientation)


def _exif_orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_TAG.Orientation)
    except (struct.error, SyntaxError, ValueError, TypeError, KeyError, IndexError):
        return None  # viewers ignore damaged EXIF data


def _significant_bits(file: BinaryIO) -> int | None:
    """Return the bits of a grey pixel that a PNG's chunk sBIT declares; None without it."""
    file.seek(len(_PNG))
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"sBIT":
            return file.read(1)[0]
        if kind == b"IDAT":  # sBIT has to stand before it
            return None
        file.seek(length + 4, io.SEEK_CUR)
