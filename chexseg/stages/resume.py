"""Training that goes on after a kill: the state of a loop in one file, and a mark that it has ended."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STATE = "resume.pt"
#: Facts of a training that has ended; its weights are there.
ENDED = "training.json"


def save(out: Path, model: Any, optimizer: Any, **state: Any) -> None:
    """Write the state of a training loop, whole or not at all. `state` is plain: numbers, strings, tensors, containers."""
    import torch

    temporary = out / f".{STATE}.{os.getpid()}"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}, temporary)
    temporary.replace(out / STATE)


def load(out: Path, model: Any, optimizer: Any) -> dict[str, Any] | None:
    """What `save` was given, with the model and the optimizer filled in; None where there is nothing to go on from."""
    import torch

    path = out / STATE
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, pickle.UnpicklingError):  # damaged: another try would find the same
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
    if ended.exists() and all((out / weights).with_suffix(ending).exists() for ending in (".safetensors", ".json")):
        facts = json.loads(ended.read_text())
    else:
        ended.unlink(missing_ok=True)  # of weights that were damaged since
        facts = dict(train())
        temporary = out / f".{ENDED}.{os.getpid()}"
        temporary.write_text(json.dumps(facts))
        temporary.replace(ended)
    (out / STATE).unlink(missing_ok=True)
    return facts
