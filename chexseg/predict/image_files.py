"""Find the image files to predict on, give each an image id, and check that all are readable."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from chexseg.data import dicom, images, strict_json
from chexseg.errors import UserError
from chexseg.file_tree import files_below
from chexseg.store import links

#: Bytes of an image id: with ".png", file systems allow 255.
LONGEST_ID = 251
#: The end of an image's path in CheXpert, without its suffix.
_CHEXPERT = re.compile(r"(^|/)patient\d+/study\d+/view[^/]*$")


def find(paths: Iterable[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Return ({image id: file}, sorted by id; files left out) for files and directory trees.

    The images of a directory are the files with an image suffix or an image's content, also below
    links to folders (`files_below`). Its other files are left out; names that begin with a dot are
    ignored. Raises `UserError` for a missing path, a folder that can't be listed, a directory
    without an image, and names that make no valid image id.
    """
    files: dict[str, Path] = {}
    left_out: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such file or directory; expected: an image, or a directory with images"
            )
        selected = [path]
        if path.is_dir():
            # Operating systems keep metadata in hidden files that have the suffix of the image.
            inside = [file for file in files_below(path) if not file.name.startswith(".")]
            selected = [file for file in inside if _is_image(file)]
            left_out += sorted(set(inside) - set(selected))
        if not selected:
            raise UserError(
                f"{path}: found no image; expected: a directory with JPEG, PNG, TIFF or DICOM files"
            )
        files |= {os.path.abspath(file): file for file in selected}
    by_id = {image_id: files[path] for path, image_id in image_ids(files).items()}
    return dict(sorted(by_id.items())), left_out


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in images.ENDINGS:
        return True
    try:
        with links.open_regular(path) as file:
            start = file.read(dicom.PREAMBLE)
    except OSError:
        return False
    # Hospital disks contain reports and an index too, all in DICOM, most without a suffix.
    return images.recognises(start) and (not dicom.recognises(start) or dicom.holds_image(path))


def image_ids(paths: Iterable[str]) -> dict[str, str]:
    """Return absolute path -> image id, the file name without its suffix.

    For ``patient1/study1/view1`` the id is ``patient1_study1_view1``, as in CheXlocalize. Ids that
    several files would share are extended by parent folders until all are unique. Files of one
    folder that differ only in their suffix keep it. Raises `UserError` if ids are still shared, if
    a name isn't valid UTF-8 or contains control characters, which mask files refuse, and for ids
    longer than `LONGEST_ID`.
    """
    parts = {path: _parts(path) for path in paths}
    counts = Counter(parts.values())
    for path, part in parts.items():
        if counts[part] > 1:
            parts[path] = (*part[:-1], Path(path).name.replace(".", "_"))
    depth = {path: 3 if _CHEXPERT.search("/".join(part)) else 1 for path, part in parts.items()}
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
            f"{first} and {second}: both have the image id {name}; expected: different names"
        )
    for path, image_id in ids.items():
        if not strict_json.is_one_line(image_id):
            raise UserError(
                f"{path!r}: found the image id {image_id!r};"
                " expected: a name of printable UTF-8 characters"
            )
        if (length := len(image_id.encode())) > LONGEST_ID:
            raise UserError(
                f"{path}: found the image id {image_id[:40]}... of {length} bytes; expected: at"
                f" most {LONGEST_ID}, because its overlay is a file of that name"
            )
    return ids


def _parts(path: str) -> tuple[str, ...]:
    """Return the folders and the name without its suffix; other dots, common in DICOM, stay."""
    file = Path(path)
    name = file.stem if file.suffix.lower() in images.ENDINGS else file.name
    return (*file.parent.parts[1:], name)


def check(files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
    """Decode every file once; call `progress` with the number of files done.

    Raises `UserError` naming the first unreadable file and their number, so that a damaged file
    ends the command before prediction starts, not hours later.
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
