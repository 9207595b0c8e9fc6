"""Training that goes on after a kill: the state of a loop in one file, and a mark that it has ended.

Both files say what must be in them: a state begins with the SHA-256 of the rest; the mark has its own, and that of the
weights. What is damaged counts as not there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from chexseg.store.manifest import is_sealed, seal, sha256

STATE = "resume.pt"
#: Facts of a training that has ended; its weights are there.
ENDED = "training.json"
#: Bytes of the digest that a state begins with.
DIGEST = hashlib.sha256().digest_size


def save(out: Path, model: Any, optimizer: Any, **state: Any) -> None:
    """Write the state of a training loop, whole or not at all. `state` is plain: numbers, strings, tensors, containers."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}, buffer)
    temporary = out / f".{STATE}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
    temporary.replace(out / STATE)


def load(out: Path, model: Any, optimizer: Any) -> dict[str, Any] | None:
    """What `save` was given, with the model and the optimizer filled in; None where there is nothing to go on from."""
    path = out / STATE
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    try:
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            raise EOFError("not what was written")
        state = torch.load(io.BytesIO(content[DIGEST:]), weights_only=True, map_location="cpu")
    except (
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
    ):  # damaged: another try would find the same
        path.unlink(missing_ok=True)  # another worker may have found it so too
        return None
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def once(out: Path, weights: str, train: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of `train`, whose last act is to write the file `weights` with its JSON.

    A stage killed later, in what it does with them, doesn't train again.
    """
    ended = out / ENDED
    digests = _digests(out / weights)
    try:
        mark = json.loads(ended.read_text())
        if (
            not is_sealed(mark) or mark["files"] != digests
        ):  # damaged since, or of an earlier version
            raise ValueError(f"{ended}: not what was written")
        facts = mark["facts"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        ended.unlink(missing_ok=True)
        facts = dict(train())
        temporary = out / f".{ENDED}.{os.getpid()}"
        temporary.write_text(json.dumps(seal({"facts": facts, "files": _digests(out / weights)})))
        temporary.replace(ended)
    (out / STATE).unlink(missing_ok=True)
    return facts


def _digests(weights: Path) -> dict[str, str | None]:
    """The SHA-256 of the weights and of the JSON beside them; None for a file that isn't there."""
    out: dict[str, str | None] = {}
    for path in (weights, weights.with_suffix(".json")):
        try:
            with path.open("rb") as file:
                out[path.name] = sha256(file)
        except FileNotFoundError:
            out[path.name] = None
    return out
