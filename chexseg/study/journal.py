"""Optuna's storage in the store, beside the results: ``optuna/journal.log``, which optuna-dashboard opens.

It holds one Optuna study for every search and every grid, named after the study and the identity of what its values depend
on: with other settings or other data it is another. Nothing here is needed to find a result again.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexseg.study.store import Store

if TYPE_CHECKING:
    import optuna


def path_in(store: Store) -> Path:
    """Of a store in a directory, there; an object store has no file to append to, so there it is in this host's cache."""
    return store.backend.local.absolute() / "optuna" / "journal.log"


@contextmanager
def alone(store: Store, name: str, wait: bool) -> Iterator[bool]:
    """Whether this process has the study for itself, which it then does until the end; a process that dies lets it go."""
    path = path_in(store).with_name(f"{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def make(store: Store, name: str, kind: str, **settings: Any) -> optuna.Study:
    """The Optuna study of a name, made unless it's there. kind: "search" or "grid", for people."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce every study and every trial
    path_in(store).parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(storage=_storage(store), study_name=name, direction="maximize", load_if_exists=True, **settings)
    if "kind" not in study.user_attrs:
        study.set_user_attr("kind", kind)
    return study


def read(store: Store, name: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of an Optuna study, none where there is no such study. Nothing is written."""
    import optuna

    if not path_in(store).exists():
        return []
    try:
        return optuna.load_study(storage=_storage(store), study_name=name).get_trials(deepcopy=False)
    except KeyError:
        return []


def _storage(store: Store) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path_in(store))))


def learning_curve(store: Store, fits: Sequence[str]) -> tuple[float, dict[int, float]] | None:
    """(mean of the selection mIoU of some fits, step -> that of each epoch); None where one is missing or has none.

    Steps go on from one fit to the next: the second's first is the number of the first's epochs.
    """
    values, steps = [], {}
    for key in fits:
        artifact = store.find("fit", key)
        if artifact is None or artifact.facts["selection_miou"] is None:
            return None
        values.append(artifact.facts["selection_miou"])
        offset = len(steps)
        history = json.loads((artifact.path / "history.json").read_text())
        steps |= {offset + number: entry["selection_miou"] for number, entry in enumerate(history)}
    return math.fsum(values) / len(values), steps


def plain(value: Any) -> Any:
    """A value as Optuna's storage can hold it among choices."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json.dumps(value, sort_keys=True, default=lambda model: model.model_dump())
