"""`chexseg predict`: masks of new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import QuietFlag, whole_or_none
from chexseg.errors import UserError


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A fitted segmenter: STORE/fit/KEY, or the weights in it."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_DIR ...", help="JPEG, PNG, TIFF, DICOM, or directories of them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="An empty or new directory.")],
    quiet: QuietFlag = False,
) -> None:
    """Masks of new images as a CheXlocalize file, at each image's own size, and an overlay of each."""
    from chexseg.predict import image_files

    files, left_out = image_files.find(images)  # before torch, which takes its time
    with whole_or_none(out) as making:
        from chexseg.predict import segment
        from chexseg.progress import reporter

        segmenter, watch = segment.load(_segmenter(model)), reporter(quiet)
        try:
            counts = segment.run(segmenter, files, making, watch)
        finally:
            watch.close()
    if left_out:
        named = ", ".join(map(str, left_out[:3])) + (
            f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        )
        typer.echo(f"note: left out, no JPEG, PNG, TIFF or DICOM image: {named}", err=True)
    typer.echo(f"{out}: {segment.MASKS} and {segment.OVERLAYS}/ of {len(files)} images")
    for name, count in counts.items():
        typer.echo(f"{name:<27} on {count}")


def _segmenter(model: str) -> Path:
    """Where the segmenter is on this host; one in an object store is fetched."""
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
            f"{store}: found no finished segmenter {key!r}; allowed: such as s3://bucket/prefix/fit/KEY"
        )
    return artifact.path
