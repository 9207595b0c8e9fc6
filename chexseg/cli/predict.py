"""`chexseg predict`: masks of new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import DEFAULT_STORE, Overrides, QuietFlag, StoreRoot, new_directory
from chexseg.cli.streams import echo
from chexseg.errors import counted


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A cell of a study (STUDY.yaml#CELL, which needs --data), a fit's directory or URI"
            " (STORE/fit/KEY), or its weights file.",
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_DIR ...", help="JPEG, PNG, TIFF, DICOM, or directories of them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty directory.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="ROOT", envvar="CHEXSEG_DATA", help="The data of STUDY.yaml#CELL."
        ),
    ] = None,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    quiet: QuietFlag = False,
) -> None:
    """Segment images: write a CheXlocalize mask file at native resolution, and overlays."""
    from chexseg.predict import image_files

    files, left_out = image_files.find(images)  # before the slow import of torch
    with new_directory(out) as directory:
        from chexseg import fitted
        from chexseg.predict import segment
        from chexseg.progress import reporter

        segmenter = segment.load(fitted.find(model, data, store, overrides or ()))
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
