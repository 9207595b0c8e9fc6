"""The largest image, mask and image file that are read."""

from __future__ import annotations

import os
from typing import BinaryIO

from chexseg.errors import UserError

#: Pixels of an image or a mask. Pillow warns of a decompression bomb beyond them. A film of
#: 43 x 36 cm that was digitized at 50 micrometres has 61 million; detectors have fewer.
MAX_PIXELS = 89_478_485
#: Bytes of an image file. The pixels of an uncompressed image have at most 8 each.
MOST_BYTES = 2**30
#: Scans of a JPEG; each is decoded over all pixels. Usual progressive ones have about 10.
MOST_SCANS = 100
#: DICOM: how often the file is read for elements, items and fragments, each at least once. Films
#: have hundreds. They take up to 700 bytes each.
MOST_DICOM_READS = 100_000
#: DICOM: bytes of sequences of undefined length, whose end must be looked for. All other elements
#: that the pixels don't need are skipped, however long they are.
MOST_DICOM_ELEMENTS = 2**25
#: DICOM: bytes of values that are parsed to find the others, and of each other value that is
#: parsed: a value of 2 bytes takes 236. A number has at most 16, and films have a few windows.
MOST_DICOM_PARSED = 2**16
LONGEST_DICOM_VALUE = 2**12
#: DICOM: bytes of a sequence of lookup tables. One for 16 bits has 131,072.
LONGEST_DICOM_TABLES = 2**19
#: DICOM: bytes of compressed pixels, in those of uncompressed ones, and bytes beyond that. Noise
#: as a JPEG of the best quality takes 1.6 times as many.
COMPRESSED_FACTOR, COMPRESSED_MORE = 2, 2**20

#: JPEG 2000: bytes that a decoder may take for its tiles, precincts and code blocks, for each pixel
#: and beyond that. Code blocks of 64 x 64 pixels take 0.02 for each pixel and layer.
JPEG2000_FACTOR, JPEG2000_MORE = 16, 2**25
#: Bytes of EXIF data. A JPEG's segment has at most half as many.
MOST_EXIF = 2**17
#: Numbers in all tags of a TIFF's page, or of EXIF data. Pillow makes up to 70 bytes of each. Tiles
#: of 16 x 16 pixels, the smallest allowed, are 350,000 in the largest image.
MOST_TIFF_NUMBERS = 2**20


def check_file(file: BinaryIO, path: object) -> None:
    """Raise `UserError` for a file of more than `MOST_BYTES`. Leaves the position at the start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > MOST_BYTES:
        raise UserError(
            f"{path}: found a file of {size:,} bytes; expected an image of at most {MOST_BYTES:,}"
        )


def check_pixels(height: int, width: int, path: object) -> None:
    """Raise `UserError` for an image of more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{path}: found {height} x {width} pixels; expected at most {MAX_PIXELS} in all"
        )
