"""`chexseg encoder`: import published weights into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import DEFAULT_STORE, StoreRoot
from chexseg.cli.streams import echo

app = typer.Typer(help="Import published encoders into a store.", no_args_is_help=True)


@app.command("import")
def encoder_import(
    kind: Annotated[
        str,
        typer.Option(
            "--kind", metavar="KIND", help="Its pretraining: moco-cxr, chexpert or imagenet."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint: .safetensors, or plain weights saved by torch."
            " Default for imagenet: this machine's caches or the network.",
        ),
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="An encoder of segmentation-models-pytorch.")
    ] = "resnet18",
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Import a published encoder for studies to start from. No code in the file is executed."""
    from chexseg.config.settings import TRAINED_ENCODERS
    from chexseg.models.checkpoint_import import few
    from chexseg.run import encoder_import
    from chexseg.stages.configs import ENCODER_KINDS
    from chexseg.store.store import Store

    file = file or encoder_import.published(kind, architecture)
    done = encoder_import.import_encoder(file, kind, architecture, Store(store))
    read, init = done.encoder, ENCODER_KINDS[kind]
    ignored = f"{len(read.ignored)} ignored" + (f" ({few(read.ignored)})" if read.ignored else "")
    under = f", found under {read.prefix}*" if read.prefix else ""
    echo(f"{file}: {read.matched} tensors of a {architecture}{under}; {ignored}")
    echo(f"{done.artifact.place}: {'already in the store' if done.cached else 'written'}")
    settings = [f"encoder.init: {init}"]
    settings += ["encoder.imported: true"] if init in TRAINED_ENCODERS else []
    if init == "imagenet":
        settings += [f"{stage}.init: {init}" for stage in ("classify", "pretrain", "moco", "irnet")]
    if done.newest:
        echo(
            f"Studies with this store use these weights with architecture: {architecture} and"
            f" {', '.join(settings)}."
        )
    else:
        echo(
            f"note: studies use the latest imported {kind} encoder of {architecture}, which is a"
            " different one; hint: to use this one, delete its directory and import it again"
        )
