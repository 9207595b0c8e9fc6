"""Resumable training: the state of a loop in one file, and a record that training has finished.

Both files carry checksums. A state begins with the SHA-256 of the rest; the record of a finished
training has its own digest and those of the weights. A damaged file is treated as missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from chexseg.store.manifest import INPUTS, is_sealed, seal, sha256_of

STATE = "resume.pt"
#: Facts of a finished training whose weights are written.
ENDED = "training.json"
#: Length in bytes of the digest at the start of a state.
DIGEST = hashlib.sha256().digest_size


def _identity(out: Path) -> bytes:
    """Return what a state in `out` belongs to: the stage run, and the inputs it is made from."""
    note = out / INPUTS
    return out.name.encode() + (note.read_bytes() if note.is_file() else b"")


def save(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **state: Any) -> None:
    """Write the state of a training loop atomically.

    `state` holds plain values: numbers, strings, tensors and containers of them.
    """
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}, buffer)
    temporary = out / f".{STATE}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(_identity(out) + buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
    temporary.replace(out / STATE)


def load(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore model and optimizer, and return the state passed to `save`; None if there is none."""
    path = out / STATE
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    try:
        if hashlib.sha256(_identity(out) + content[DIGEST:]).digest() != content[:DIGEST]:
            raise EOFError("damaged, or the state of another run")
        state = torch.load(io.BytesIO(content[DIGEST:]), weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        # Delete it, or every retry would fail the same way. Another worker may do so first.
        path.unlink(missing_ok=True)
        return None
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return cast(dict[str, Any], state)


def remaining_steps(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    steps: int,
    save_every: float,
    seed: Callable[[int], int],
) -> Iterator[int]:
    """Yield the numbers of the steps after ``state["step"]``, counted from 1, and save the state.

    It is saved after a step if `save_every` seconds have passed. The loop may update `state`.
    """
    saved_at = time.monotonic()
    while state["step"] < steps:
        state["step"] += 1
        # Some encoders draw random numbers in training; a seed per step makes resumed runs equal.
        torch.manual_seed(seed(state["step"]))
        yield state["step"]
        if time.monotonic() - saved_at > save_every:
            save(out, model, optimizer, **state)
            saved_at = time.monotonic()


def train_once(out: Path, weights: str, train: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of `train`, and skip it if it has finished before.

    `train` must write the file `weights` and its JSON last. A stage that is killed later, while it
    uses the weights, then doesn't train again.
    """
    ended = out / ENDED
    try:
        record = json.loads(ended.read_text())
        if not is_sealed(record) or record["files"] != _digests(out, weights):
            raise ValueError(f"{ended}: damaged, or written by an earlier version")
        facts = cast(dict[str, Any], record["facts"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        ended.unlink(missing_ok=True)
        facts = dict(train())
        temporary = out / f".{ENDED}.{os.getpid()}"
        temporary.write_text(json.dumps(seal({"facts": facts, "files": _digests(out, weights)})))
        temporary.replace(ended)
    (out / STATE).unlink(missing_ok=True)
    return facts


def _digests(out: Path, weights: str) -> dict[str, str | None]:
    """Return file name -> SHA-256 of the weights and of their JSON, and that of the run's identity.

    The digest of a missing file is None.
    """
    digests: dict[str, str | None] = {INPUTS: hashlib.sha256(_identity(out)).hexdigest()}
    for path in (out / weights, (out / weights).with_suffix(".json")):
        digests[path.name] = sha256_of(path) if path.is_file() else None
    return digests
