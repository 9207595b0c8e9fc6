"""Find the image files that a user means, name them, and check that all can be read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from chexseg.data import dicom, images
from chexseg.errors import UserError


def find(paths: Iterable[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Return (image id -> file, sorted by id; files left out), of the files given and of all below the directories given.

    A directory's images are the files with an image's ending, and those whose content is an image's. Left out is every other
    file of it, except those whose name begins with a dot. Raises `UserError` for a path that isn't there and for a directory
    without an image.
    """
    files: dict[str, Path] = {}
    left_out: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such file or directory; allowed: an image, or a directory with images"
            )
        found = [path]
        if path.is_dir():
            # Names that begin with a dot are other systems' notes on a file, under the file's own ending.
            inside = sorted(
                file for file in path.rglob("*") if not file.name.startswith(".") and file.is_file()
            )
            found = [file for file in inside if _is_image(file)]
            left_out += sorted(set(inside) - set(found))
        if not found:
            raise UserError(
                f"{path}: found no image; allowed: a directory with JPEG, PNG, TIFF or DICOM files"
            )
        files |= {os.path.abspath(file): file for file in found}
    return dict(
        sorted((image_id, files[path]) for path, image_id in image_ids(files).items())
    ), left_out


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in images.ENDINGS:
        return True
    try:
        with path.open("rb") as file:
            start = file.read(dicom.PREAMBLE)
    except OSError:
        return False
    # Beside its images a disk from a hospital holds reports and a directory, all DICOM, most without an ending.
    return images.recognises(start) and (not dicom.recognises(start) or dicom.holds_image(path))


def image_ids(paths: Iterable[str]) -> dict[str, str]:
    """Absolute path -> id: the name without its ending; of ``patient1/study1/view1`` all three, joined by underscores, as
    CheXlocalize has it.

    Where several would share an id, each is lengthened by its folders until none does; files of one place whose names
    differ in the ending alone keep it as a part of the name. Raises `UserError` where nothing helps.
    """
    parts = {path: _parts(path) for path in paths}
    places = Counter(parts.values())
    for path, part in parts.items():
        if places[part] > 1:
            parts[path] = (*part[:-1], Path(path).name.replace(".", "_"))
    depth = {path: 3 if _as_chexpert(part) else 1 for path, part in parts.items()}
    while True:
        ids = {path: "_".join(part[-depth[path] :]) for path, part in parts.items()}
        shared = Counter(ids.values())
        longer = [
            path
            for path, part in parts.items()
            if shared[ids[path]] > 1 and depth[path] < len(part)
        ]
        if not longer:
            break
        for path in longer:
            depth[path] += 1
    name = next((name for name, count in shared.items() if count > 1), None)
    if name is not None:
        first, second = [path for path in ids if ids[path] == name][:2]
        raise UserError(
            f"{first} and {second}: both would be called {name}; allowed: names that differ"
        )
    return ids


def _parts(path: str) -> tuple[str, ...]:
    """Folders and name without the ending; a dot elsewhere in a name (DICOM's own names are full of them) stays."""
    whole = Path(path)
    name = whole.stem if whole.suffix.lower() in images.ENDINGS else whole.name
    return (*whole.parent.parts[1:], name)


def _as_chexpert(parts: tuple[str, ...]) -> bool:
    return re.search(r"(^|/)patient\d+/study\d+/view[^/]*$", "/".join(parts)) is not None


def check(files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
    """Decode every file once; `progress` is called with how many are done.

    Raises `UserError` naming the first that can't be read, and how many can't: a damaged file ends the work before the
    first network sees an image, not hours later.
    """
    faults = []
    for done, path in enumerate(files.values(), 1):
        try:
            images.decode(path)
        except UserError as error:
            faults.append(str(error))
        progress(done)
    if faults:
        raise UserError(
            faults[0]
            + (f" ({len(faults)} of {len(files)} files can't be read)" if len(faults) > 1 else "")
        )
