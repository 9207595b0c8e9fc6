"""Decoding of all images of a data set, with their faults and oddities."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chexseg.data import grey, images, remote_path
from chexseg.errors import UserError

#: Images that a thread decodes between two progress reports.
CHUNK = 16
#: Number of grey levels of eight bits.
LEVELS = 256


@dataclass(frozen=True)
class CheckedImage:
    """The result of decoding one image.

    shape, stored_shape: (height, width) upright and as in the file. fault, notes: (kind, message).
    """

    path: str
    shape: tuple[int, ...] = ()
    stored_shape: tuple[int, ...] = ()
    fault: tuple[str, str] | None = None
    notes: tuple[tuple[str, str], ...] = ()


def decode(files: Sequence[remote_path.Location]) -> Generator[CheckedImage, None, None]:
    """Yield a result per file, in order. Threads work because decoding a JPEG releases the GIL."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    pool = ThreadPoolExecutor(remote_path.reader_threads(files))
    try:
        for decoded in pool.map(lambda chunk: [_decode(file) for file in chunk], chunks):
            yield from decoded
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt doesn't wait for the rest


def _decode(file: remote_path.Location) -> CheckedImage:
    try:
        image = images.read(file)
    except UserError as error:
        missing = isinstance(error.__context__, FileNotFoundError)
        return CheckedImage(
            str(file), fault=("missing image" if missing else "unreadable image", str(error))
        )
    return CheckedImage(
        str(file), image.pixels_HW.shape, image.stored_shape, notes=tuple(_oddities(file, image))
    )


def _oddities(file: remote_path.Location, image: images.Decoded) -> Iterator[tuple[str, str]]:
    """Yield properties of a readable image that often indicate a mistake, as (kind, message)."""
    low, high = grey.film_range(image.pixels_HW)
    if low == high:
        yield "constant image", f"{file}: every pixel has the grey level {low:.0f}"
    elif high - low + 1 < LEVELS / 4:
        yield (
            "few grey levels",
            f"{file}: uses less than a quarter of {LEVELS} grey levels, {low:.0f} to {high:.0f}",
        )
    if image.orientation != 1:
        yield (
            "turned by EXIF",
            f"{file}: EXIF orientation {image.orientation} is applied;"
            " masks must fit the image as viewers show it",
        )
