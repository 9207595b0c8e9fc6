"""Import published encoders: a foreign checkpoint becomes an artifact like a stage's."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from chexseg.errors import UserError, naming
from chexseg.models import checkpoint_import, encoders
from chexseg.plan.graph import node_of
from chexseg.stages.artifacts import ENCODER_WEIGHTS
from chexseg.stages.configs import ENCODER_KINDS, ImportedConfig, check_encoder_kind, import_command
from chexseg.store import marker
from chexseg.store.store import Artifact, Store


def published(kind: str, architecture: str) -> Path:
    """Return ImageNet weights from a cache on this machine, downloading them if there are none.

    Reads torchvision's and Hugging Face's caches, and downloads into the latter. Raises
    `UserError` for another kind, for an architecture without ImageNet weights in
    segmentation-models-pytorch, without a network, and for a file that differs from the digest in
    its name.
    """
    check_encoder_kind(kind)
    encoders.check(architecture, "--architecture")
    by_hand = f"hint: pass the file: {import_command(kind, architecture)}"
    if kind != "imagenet":
        raise UserError(f"--kind {kind}: these weights can't be downloaded by name; {by_hand}")
    cached = encoders.torchvision_cache(architecture)
    if cached is not None:
        encoders.check_digest(cached)
        return cached
    settings = encoders.published_settings(architecture)
    if settings is None:
        raise UserError(
            f"--architecture {architecture}: segmentation-models-pytorch lists no ImageNet weights;"
            f" {by_hand}"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        file = Path(
            hf_hub_download(settings["repo_id"], "model.safetensors", revision=settings["revision"])
        )
    except (OSError, HfHubHTTPError) as error:
        raise UserError(
            f"ImageNet weights of {architecture}: in no cache of this machine, and can't be"
            f" downloaded ({type(error).__name__}); {by_hand}"
        ) from None
    encoders.check_digest(file)
    return file


@dataclass(frozen=True)
class Import:
    """An imported encoder.

    cached: True if the store had these weights already. newest: True if studies use them, as the
    latest import of their kind and architecture.
    """

    encoder: checkpoint_import.ForeignEncoder
    artifact: Artifact
    cached: bool
    newest: bool


def import_encoder(path: Path, kind: str, architecture: str, store: Store) -> Import:
    """Read an encoder from a checkpoint and put it into the store, unless it is cached.

    Raises `UserError` for an unknown kind or architecture, and for a file without this encoder
    (models.checkpoint_import).
    """
    started = time.monotonic()
    check_encoder_kind(kind)
    encoders.check(architecture, "--architecture")
    encoder = checkpoint_import.encoder(path, architecture)
    node = node_of(
        "imported", ImportedConfig(kind=kind, architecture=architecture, sha256=encoder.sha256), {}
    )
    marker.mark(store)
    with store.working_on(node) as partial, naming(partial):
        artifact = store.find(node.stage, node.key)
        cached = artifact is not None
        if artifact is None:
            shutil.rmtree(partial, ignore_errors=True)  # left by an import that was killed
            partial.mkdir()
            module = encoders.build(architecture)
            encoders.fill(module, encoder.weights)
            encoders.save(
                module,
                partial / ENCODER_WEIGHTS,
                architecture=architecture,
                init=ENCODER_KINDS[kind],
                kind=kind,
            )
            facts = {
                "file": path.name,
                "matched": encoder.matched,
                "ignored": list(encoder.ignored),
            }
            artifact = store.commit(node, partial, facts, time.monotonic() - started)
    newest = store.imported().get((kind, architecture)) == encoder.sha256
    return Import(encoder, artifact, cached, newest)
