"""Decoding of image files to upright grey pixels, and resizing of images and masks to squares.

`read` decodes all radiographs, for the stage ``ingest``, `predict` and ``data check``. In a `Frame`
the longer side is resized to `size`, the aspect ratio is kept and borders are black (the paper's
table of settings). In a `Strip` the shorter side is, for a classifier's crops.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from chexseg.data import dicom, grey, resampling
from chexseg.data.formats import jpeg, limits, png, tiff
from chexseg.data.remote_path import Readable
from chexseg.errors import UserError, reason
from chexseg.store import links

#: Formats that may be opened. Pillow supports many more, and starts other programs for some
#: (Ghostscript for EPS).
FORMATS = ("JPEG", "PNG", "TIFF")
#: File name endings of these and of DICOM, to select the images of a directory. The format of a
#: file is detected from its content.
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm", ".dicom")
#: A `Strip` resizes a whole image up to this many times its size. Of a longer one it resizes the
#: middle: 1 x 16,000 pixels would take 5 GB.
LONGEST_RESIZED = 8
_EXPECTED = "an undamaged JPEG, PNG, TIFF or DICOM image"
_SIGNATURES = (b"\xff\xd8\xff", png.SIGNATURE, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TAG = ExifTags.Base

#: EXIF orientation -> transposition to upright pixels. All other values mean upright as stored.
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
    """An image as viewers show it, except that transparent pixels keep their grey level.

    pixels_HW: grey (uint8), upright. orientation: EXIF's number; 1 is upright as stored.
    """

    pixels_HW: np.ndarray
    orientation: int = 1

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Return (height, width) in the file, before the orientation is applied."""
        return self.pixels_HW.shape[::-1] if self.orientation >= 5 else self.pixels_HW.shape


@dataclass(frozen=True)
class Frame:
    """The position of a resized, centred image of height x width pixels in a square of `size`."""

    height: int
    width: int
    size: int

    @property
    def inner(self) -> tuple[int, int]:
        """Return (height, width) of the resized image in the square; at least one pixel each."""
        scale = self.size / max(self.height, self.width)
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """Return (top, left) of the resized image inside the square."""
        height, width = self.inner
        return (self.size - height) // 2, (self.size - width) // 2

    def _window(self) -> tuple[slice, slice]:
        (top, left), (height, width) = self.corner, self.inner
        return slice(top, top + height), slice(left, left + width)

    def image(
        self, pixels_HW: np.ndarray, method: resampling.ImageResize = "antialiased"
    ) -> np.ndarray:
        """Resize uint8 pixels_HW to a uint8 square."""
        square = np.zeros((self.size, self.size), dtype=np.uint8)
        square[self._window()] = resampling.image(pixels_HW, *self.inner, method)
        return square

    def masks(self, masks_KHW: np.ndarray, method: resampling.MaskResize = "nearest") -> np.ndarray:
        """Resize boolean masks_KHW to boolean squares."""
        square = np.zeros((len(masks_KHW), self.size, self.size), dtype=bool)
        square[(slice(None), *self._window())] = resampling.masks(masks_KHW, *self.inner, method)
        return square

    def cut(self, squares: Any) -> Any:
        """Return squares (..., size, size) without their borders, as a view (array or tensor)."""
        return squares[(..., *self._window())]


@dataclass(frozen=True)
class Strip:
    """The position of an image whose shorter side is resized to `size`, in an array (size, 2 size).

    The longer side runs along the second axis, so a portrait is transposed. It starts at 0, and the
    rest is black. Of a side longer than 2 size only the middle is kept: a square needs no more.
    """

    height: int
    width: int
    size: int

    @property
    def is_portrait(self) -> bool:
        return self.height > self.width

    @property
    def resized(self) -> int:
        """Return the longer side of the resized image, in pixels."""
        return round(self.size * max(self.height, self.width) / min(self.height, self.width))

    @property
    def length(self) -> int:
        """Return the stored part of `resized`."""
        return min(self.resized, 2 * self.size)

    @property
    def centre(self) -> int:
        """Return the start of the central square along the strip."""
        return (self.length - self.size) // 2

    def centre_in_frame(self) -> tuple[float, float, float, float]:
        """Return (top, left, height, width) of the central square in the image's `Frame`."""
        frame = Frame(self.height, self.width, self.size)
        short, long = sorted(frame.inner)
        scale = long / self.resized
        start = ((self.resized - self.length) // 2 + self.centre) * scale
        (top, left), side = frame.corner, self.size * scale
        if self.is_portrait:
            return top + start, left, side, short
        return top, left + start, short, side

    def image(
        self, pixels_HW: np.ndarray, method: resampling.ImageResize = "antialiased"
    ) -> np.ndarray:
        """Resize uint8 pixels_HW to a uint8 strip."""
        long, start = self.resized, (self.resized - self.length) // 2
        strip = np.zeros((self.size, 2 * self.size), dtype=np.uint8)
        if long > LONGEST_RESIZED * self.size:
            strip[:] = self._middle(pixels_HW, start, method)
            return strip
        height, width = (long, self.size) if self.is_portrait else (self.size, long)
        resized = resampling.image(pixels_HW, height, width, method)
        along = resized.T if self.is_portrait else resized
        strip[:, : self.length] = along[:, start : start + self.length]
        return strip

    def _middle(
        self, pixels_HW: np.ndarray, start: int, method: resampling.ImageResize
    ) -> np.ndarray:
        """Return the stored part of a very long image, without resizing the rest of it."""
        along = pixels_HW.T if self.is_portrait else pixels_HW
        scale = along.shape[1] / self.resized
        left, right = start * scale, (start + self.length) * scale
        # Resizing reads up to a pixel more, old or new, on either side.
        first = max(0, int(left - scale) - 2)
        part = along[:, first : int(right + scale) + 3]
        columns = (left - first, right - first)
        return resampling.image_part(part, self.size, self.length, columns, method)


def decode(path: str | Path | Readable) -> np.ndarray:
    """Return the pixels_HW of `read`."""
    return read(path).pixels_HW


def read(path: str | Path | Readable) -> Decoded:
    """Decode a JPEG, PNG, TIFF or DICOM image; the format is detected from the content.

    Of more than eight bits, the upper eight of those in use are kept (`grey.eight_bits`; for DICOM
    see `dicom.decode`). The EXIF orientation is applied. Transparency is ignored: what viewers show
    through it differs. Raises `UserError` for a missing or
    unreadable file, missing pixels, several pages, and pixels whose range is unknown.
    """
    try:
        with (
            links.open_regular(Path(path))
            if isinstance(path, str | Path)
            else io.BytesIO(path.read_bytes()) as file
        ):
            limits.check_file(file, path)
            start = file.read(dicom.PREAMBLE)
            file.seek(0)
            if dicom.recognises(start):
                return Decoded(dicom.decode(file, path))
            with warnings.catch_warnings():
                # Pillow warns of damage that doesn't affect the pixels, such as that of EXIF data.
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                return _picture(file, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file; expected {_EXPECTED}") from None
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path}: found more pixels than {limits.MAX_PIXELS}; expected a radiograph"
        ) from None
    except Exception as error:  # Pillow's parsers and decoders raise any type on damaged files
        why = "unknown format" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise UserError(f"{path}: found no readable image ({why}); expected {_EXPECTED}") from None


def recognises(start: bytes) -> bool:
    """Return whether `read` supports the format of a file with these first bytes.

    start: the first `dicom.PREAMBLE` bytes, or fewer if the file is shorter.
    """
    return start.startswith(_SIGNATURES) or dicom.recognises(start)


def _picture(file: BinaryIO, path: object) -> Decoded:
    _check_tags(file, path)
    with Image.open(file, formats=FORMATS) as image:
        if image.mode in ("I", "F"):
            raise UserError(
                f"{path}: found pixels of 32 bits; expected grey or colour of 8 or 16 bits"
            )
        if isinstance(image, TiffImageFile) and image.n_frames > 1:
            raise UserError(f"{path}: found {image.n_frames} pages; expected one")
        # Pillow keeps only the upper eight bits of each channel of these.
        truncated = any(";16" in str(tile.args) for tile in image.tile)
        tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        if tags:
            tiff.check(tags, file, path)
        tiff_orientation = tags.get(_TAG.Orientation)
        white_is_zero = tags.get(_TAG.PhotometricInterpretation) == 0
        (bits,) = tags.get(_TAG.BitsPerSample, (16,))[:1]
        chunks = png.read(file) if image.format == "PNG" else None
        if is_jpeg := image.format in ("JPEG", "MPO"):
            file.seek(0)
            jpeg.check_scans(file.read(), path)
        image.load()
        if chunks:
            highest = int(np.asarray(image).max()) if image.mode == "P" else -1
            png.check(chunks, highest, path)
        _check_exif(image.info.get("exif") or b"", path)
        orientation = tiff_orientation if image.format == "TIFF" else _exif_orientation(image)
        if image.mode.startswith("I;16"):  # Pillow's conversion would clip values above 255
            declared = chunks.significant_bits if chunks else bits if bits < 16 else None
            pixels_HW = grey.eight_bits(np.asarray(image), declared)
            if white_is_zero:  # Pillow inverts only images of eight bits
                pixels_HW = 255 - pixels_HW
        else:
            pixels_HW = np.asarray(image.convert("L"))
            if is_jpeg:
                file.seek(0)
                jpeg.check(file.read(), path)
            if truncated and pixels_HW.max() < 64:
                raise UserError(
                    f"{path}: found colour or transparency of 16 bits, of which at most 14 are in"
                    " use; expected grey of 16 bits, or 8 bits"
                )
    if orientation not in _UPRIGHT:
        return Decoded(pixels_HW)
    if image.format != "TIFF":  # Pillow rotates TIFF itself
        pixels_HW = np.asarray(Image.fromarray(pixels_HW).transpose(_UPRIGHT[orientation]))
    return Decoded(pixels_HW, orientation)


def _check_tags(file: BinaryIO, path: object) -> None:
    """Raise `UserError` for tags of a TIFF or JPEG that Pillow would unpack when it opens them."""
    start = file.read(len(_SIGNATURES[0]))
    file.seek(0)
    if not jpeg.is_jpeg(start):
        tiff.check_numbers(file, path)
        return
    for tags in jpeg.tags(file.read()):
        _check_exif(tags, path)
    file.seek(0)


def _check_exif(tags: bytes, path: object) -> None:
    if len(tags) > limits.MOST_EXIF:
        raise UserError(
            f"{path}: found {len(tags)} bytes of EXIF data; expected at most {limits.MOST_EXIF}"
        )
    while tags.startswith(b"Exif\0\0"):  # as Pillow
        tags = tags[6:]
    tiff.check_numbers(io.BytesIO(tags), path)


def _exif_orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_TAG.Orientation)
    except (struct.error, SyntaxError, ValueError, TypeError, KeyError, IndexError):
        return None  # as viewers do for damaged EXIF data
