"""`chexseg encoder`: published weights into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import DEFAULT_STORE, StoreRoot

app = typer.Typer(help="Encoders: bring published weights into a store.", no_args_is_help=True)


@app.command("import")
def encoder_import(
    kind: Annotated[
        str,
        typer.Option(
            "--kind", metavar="KIND", help="What it was trained on: moco-cxr, chexpert, imagenet."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A checkpoint: .safetensors, or torch's with plain weights. Without, imagenet's come from this machine's"
            " caches or the network.",
        ),
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="An encoder of segmentation-models-pytorch.")
    ] = "resnet18",
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Put a published encoder into a store, for studies to start from. Nothing in the file is run."""
    from chexseg.config.settings import OWN_ENCODERS
    from chexseg.models.checkpoint_import import few
    from chexseg.run import encoder_import
    from chexseg.stages.configs import ENCODER_KINDS
    from chexseg.store.store import Store

    file = file or encoder_import.published(kind, architecture)
    done = encoder_import.import_encoder(file, kind, architecture, Store(store))
    read, init = done.encoder, ENCODER_KINDS[kind]
    ignored = f"{len(read.ignored)} ignored" + (f" ({few(read.ignored)})" if read.ignored else "")
    under = f", found under {read.prefix}*" if read.prefix else ""
    typer.echo(f"{file}: {read.matched} tensors of a {architecture}{under}; {ignored}")
    typer.echo(
        f"{done.artifact.place}: {'these weights were there already' if done.cached else 'written'}"
    )
    setting = f"encoder.init: {init}" + (
        " and encoder.imported: true" if init in OWN_ENCODERS else ""
    )
    setting += f", irnet.init: {init}" if init == "imagenet" else ""
    if done.newest:
        typer.echo(
            f"Studies with this store start from them by {setting}, with architecture: {architecture}."
        )
    else:
        typer.echo(
            f"note: studies take the {kind} encoder of {architecture} that was imported last, which is another;"
            " for this one, remove this directory and import it again"
        )
