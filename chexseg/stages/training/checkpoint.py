"""Resumable training: the state of a loop in one file, and a record that training has finished.

Both files carry checksums, which cover the stage run that they belong to. A state begins with the
SHA-256 of the rest; the record of a finished training has its own digest and those of all files
that the training wrote. A damaged file is treated as missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from chexseg.errors import UserError
from chexseg.models import distributed
from chexseg.store.links import remove
from chexseg.store.manifest import (
    INPUTS,
    identity,
    is_sealed,
    read_unfinished,
    seal,
    sha256_of,
)
from chexseg.untrusted import bounded_json, torch_format

STATE = "resume.pt"
#: Facts of a finished training whose weights are written.
ENDED = "training.json"
#: Length in bytes of the digest at the start of a state.
DIGEST = hashlib.sha256().digest_size


def save(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **state: Any) -> None:
    """Write the state of a training loop atomically.

    `state` holds plain values: numbers, strings, tensors and containers of them.
    """
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}, buffer)
    temporary = out / f".{STATE}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(identity(out / STATE) + buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
    temporary.replace(out / STATE)


def load(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore model and optimizer, and return the state passed to `save`; None if there is none.

    Worker 0 reads the file, and all workers resume from what it has read.
    """
    content = _read(out / STATE) if distributed.rank() == 0 else b""
    content = distributed.broadcast(content, next(model.parameters()).device)
    if not content:
        return None
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return cast(dict[str, Any], state)


def _read(path: Path) -> bytes:
    """Return a saved state without its digest; empty if it's missing, damaged or another run's."""
    content = read_unfinished(path) or b""
    digest, state = content[:DIGEST], content[DIGEST:]
    # Whoever may write to the store can make a state with its digest, so look before torch does.
    with suppress(Exception):
        if hashlib.sha256(identity(path) + state).digest() == digest:
            torch_format.check(io.BytesIO(state))
            return state
    remove(path)
    return b""


def train_once(out: Path, train: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of `train`, and skip it if it has finished before.

    A stage that is killed later, while it uses the weights, then doesn't train again. Before
    training, everything is deleted that may have been made from earlier weights.
    """
    ended = out / ENDED
    try:
        record = bounded_json.loads(read_unfinished(ended) or b"")
        digests = _digests(out, record["files"])
        if not is_sealed(record) or record["run"] != _run(ended) or record["files"] != digests:
            raise ValueError(f"{ended}: damaged, or written by an earlier version")
        facts = cast(dict[str, Any], record["facts"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        for path in out.iterdir():
            if path.name not in (STATE, INPUTS) or path.is_dir():
                remove(path)
        facts = dict(train())
        record = {"facts": facts, "files": _digests(out), "run": _run(ended)}
        temporary = out / f".{ENDED}.{os.getpid()}"
        temporary.write_text(json.dumps(seal(record)))
        temporary.replace(ended)
    (out / STATE).unlink(missing_ok=True)
    return facts


def _run(ended: Path) -> str:
    """Return the digest of the stage run that a record belongs to."""
    return hashlib.sha256(identity(ended)).hexdigest()


def _digests(out: Path, names: Container[str] | None = None) -> dict[str, str]:
    """Return file name -> SHA-256 of the files that a training has written, or of these."""
    files = [path for path in out.glob("[!.]*") if path.is_file() and path.name != STATE]
    return {path.name: sha256_of(path) for path in files if names is None or path.name in names}
