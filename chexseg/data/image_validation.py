"""Every image of a data set decoded once: which can't be read, and which are read but look like a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chexseg.data import grey, images, remote_path
from chexseg.data.remote_path import Location
from chexseg.errors import UserError

#: Images a thread decodes between two reports of progress.
CHUNK = 16
#: Grey levels of eight bits.
LEVELS = 256


@dataclass(frozen=True)
class CheckedImage:
    """An image as far as it can be read. shape, stored_shape: (height, width), upright and in the file.

    fault, notes: (kind, message).
    """

    path: str
    shape: tuple[int, ...] = ()
    stored_shape: tuple[int, ...] = ()
    fault: tuple[str, str] | None = None
    notes: tuple[tuple[str, str], ...] = ()


def decode(files: Sequence[Location]) -> Iterator[CheckedImage]:
    """Yield the images in the order of the files. Decoding a JPEG leaves the interpreter free."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    pool = ThreadPoolExecutor(remote_path.at_once(files))
    try:
        for answers in pool.map(lambda chunk: [_decode(file) for file in chunk], chunks):
            yield from answers
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the rest


def _decode(file: Location) -> CheckedImage:
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


def _oddities(file: Location, image: images.Decoded) -> Iterator[tuple[str, str]]:
    """Yield what is readable but often a mistake, as (kind, message)."""
    low, high = grey.film_range(image.pixels_HW)
    if low == high:
        yield "constant image", f"{file}: every pixel has the grey level {low:.0f}"
    elif high - low + 1 < LEVELS / 4:
        yield (
            "few grey levels",
            f"{file}: uses the grey levels {low:.0f} to {high:.0f} of {LEVELS}, less than a quarter",
        )
    if image.orientation != 1:
        turned = f"EXIF orientation {image.orientation} is applied; masks must fit the image as viewers show it"
        yield "turned by EXIF", f"{file}: {turned}"
