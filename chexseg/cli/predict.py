"""`chexseg predict`: masks of new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import QuietFlag, new_directory
from chexseg.cli.streams import echo
from chexseg.errors import UserError, counted


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A fitted segmenter: STORE/fit/KEY, or its weights file."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_DIR ...", help="JPEG, PNG, TIFF, DICOM, or directories of them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty directory.")],
    quiet: QuietFlag = False,
) -> None:
    """Segment images: write a CheXlocalize mask file at native resolution, and overlays."""
    from chexseg.predict import image_files

    files, left_out = image_files.find(images)  # before the slow import of torch
    with new_directory(out) as directory:
        from chexseg.predict import segment
        from chexseg.progress import reporter

        segmenter = segment.load(_segmenter(model))
        with reporter(quiet) as watch:
            counts = segment.run(segmenter, files, directory, watch)
    if left_out:
        names = ", ".join(map(str, left_out[:3])) + (
            f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        )
        echo(f"note: skipped, no JPEG, PNG, TIFF or DICOM image: {names}", err=True)
    echo(f"{out}: {segment.MASKS} and {segment.OVERLAYS}/ of {counted(len(files), 'image')}")
    for name, count in counts.items():
        echo(f"{name:<27} on {count}")


def _segmenter(model: str) -> Path:
    """Return the segmenter's path on this host, after download if it is in an object store."""
    if "://" not in model:
        return Path(model)
    from urllib.parse import urlsplit

    from chexseg.store.store import Store

    parts = urlsplit(model)
    root, _, key = parts.path.rpartition("/fit/")
    store = Store(parts._replace(path=root).geturl())
    artifact = store.find("fit", key.strip("/"))
    if artifact is None:
        raise UserError(
            f"{store}: found no finished segmenter {key!r};"
            " expected: a URI such as s3://bucket/prefix/fit/KEY"
        )
    return artifact.path
