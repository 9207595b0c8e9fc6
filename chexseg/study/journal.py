"""Optuna's storage in the store, beside the results: ``optuna/journal.log``, which optuna-dashboard opens.

It holds one Optuna study for every search and every grid, named after the study and the identity of what its values depend
on: with other settings or other data it is another. Nothing here is needed to find a result again.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexseg.study.locks import locked
from chexseg.study.store import Artifact, Store

if TYPE_CHECKING:
    import optuna


def path_in(store: Store) -> Path:
    """Beside the results; of an object store, which nothing can be appended to, beside this host's copies of them."""
    return store.backend.local.absolute() / "optuna" / "journal.log"


def alone(store: Store, name: str, wait: bool) -> AbstractContextManager[bool]:
    """Whether this process has the study for itself, which it then does until the end; a process that dies lets it go."""
    return locked(path_in(store).with_name(f"{name}.lock"), wait)


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


def learning_curve(fits: Sequence[Artifact]) -> tuple[float, dict[int, float]] | None:
    """(mean of the selection mIoU of some fits, step -> that of each epoch); None where one has none.

    Steps go on from one fit to the next: the second's first is the number of the first's epochs.
    """
    values = [fit.facts["selection_miou"] for fit in fits]
    if None in values:
        return None
    curve = itertools.chain(*(fit.facts.get("selection_curve", ()) for fit in fits))
    return math.fsum(values) / len(values), dict(enumerate(curve))


def plain(value: Any) -> Any:
    """A value as Optuna's storage can hold it among choices."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json.dumps(value, sort_keys=True, default=lambda model: model.model_dump())
