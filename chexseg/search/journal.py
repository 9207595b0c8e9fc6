"""Optuna's storage in the store, beside the results: ``optuna/journal.log``, which optuna-dashboard opens.

It holds one Optuna study for every search and every grid, named after the study and the identity of what its values depend
on: with other settings or other data it is another. On an object store each has an object of its own,
``optuna/<name>.log``. Nothing here is needed to find a result again.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexseg.errors import UserError, reason
from chexseg.search.journal_lines import FileLines, ObjectLines
from chexseg.store.backend import unfinished
from chexseg.store.file_lock import locked
from chexseg.store.links import refuse_links
from chexseg.store.store import Artifact, Store

if TYPE_CHECKING:
    import optuna

FOLDER = "optuna"


def path_in(store: Store) -> Path:
    """The journal of a store in a directory. Of an object store, the one that earlier versions kept on this host."""
    return store.backend.local.absolute() / FOLDER / "journal.log"


def title(store: Store, name: str) -> str:
    """Where the journal of an Optuna study is, for people."""
    return f"{store}/{FOLDER}/{name}.log" if _in_objects(store) else str(path_in(store))


@contextmanager
def alone(store: Store, name: str, wait: bool) -> Iterator[bool]:
    """Have an Optuna study for this process alone; a process that dies lets it go.

    Yields False, without it, if another process has it and `wait` is off. On an object store, that is known only once a
    dead process's claim is over.
    """
    backend = store.backend
    if not _in_objects(store):
        lock = path_in(store).with_name(f"{name}.lock")
        refuse_links(backend.local.absolute(), lock)
        with locked(lock, wait) as acquired:
            yield acquired
        return
    work, deadline = (
        f"{FOLDER}/{name}",
        time.monotonic() + backend.timing.dead + backend.timing.heartbeat,
    )
    while not wait and unfinished(work) in backend.in_progress():
        if time.monotonic() > deadline:
            yield False
            return
        time.sleep(backend.timing.settle)
    with backend.exclusive(work):
        yield True


def opened(store: Store, name: str) -> FileLines | ObjectLines:
    """The lines of the journal that holds an Optuna study, as they are now."""
    if _in_objects(store):
        return ObjectLines(store.backend, f"{FOLDER}/{name}.log")
    return _file(store)


def _in_objects(store: Store) -> bool:
    return not store.backend.shared


def _file(store: Store) -> FileLines:
    return FileLines(store.backend.local.absolute(), path_in(store))


def _earlier(store: Store) -> FileLines | ObjectLines:
    """The journal to start from where an object store has none for a study: a directory's that was copied there, or the
    one that an earlier version kept on this host.
    """
    copied = ObjectLines(store.backend, f"{FOLDER}/journal.log")
    return copied if copied.exists else _file(store)


def make(
    store: Store, lines: FileLines | ObjectLines, name: str, kind: str, **settings: Any
) -> optuna.Study:
    """The Optuna study of a name, made unless it's there. kind: "search" or "grid", for people.

    lines: `opened`. What is told to the study is kept for certain after their `flush`.
    """
    import optuna

    optuna.logging.set_verbosity(
        optuna.logging.WARNING
    )  # it would announce every study and every trial
    storage = _storage(lines)
    earlier = (
        _trials(_earlier(store), name)
        if isinstance(lines, ObjectLines) and not lines.exists
        else []
    )
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, **settings
    )
    if "kind" not in study.user_attrs:
        study.set_user_attr("kind", kind)
        study.add_trials(earlier)
    return study


def read(store: Store, name: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of an Optuna study, none where there is no such study. Nothing is written."""
    return read_with_torn(store, name)[0]


def read_with_torn(store: Store, name: str) -> tuple[list[optuna.trial.FrozenTrial], int]:
    """(`read`, the number of torn pieces in the journal, which are left out)."""
    lines = opened(store, name)
    if isinstance(lines, ObjectLines) and not lines.exists:
        lines = _earlier(store)
    return _trials(lines, name), lines.torn


def _trials(lines: FileLines | ObjectLines, name: str) -> list[optuna.trial.FrozenTrial]:
    import optuna

    if isinstance(lines, FileLines) and not lines.path.exists():
        return []
    try:
        return optuna.load_study(storage=_storage(lines), study_name=name).get_trials(
            deepcopy=False
        )
    except KeyError:
        return []


def _storage(lines: FileLines | ObjectLines) -> optuna.storages.JournalStorage:
    """Raises `UserError` for a journal with a record that Optuna can't apply."""
    import optuna

    try:
        return optuna.storages.JournalStorage(lines)
    except UserError:
        raise
    except Exception as error:  # of any type: Optuna takes its records for its own
        raise UserError(
            f"{lines.title}: found a record that Optuna can't apply ({reason(error)}); expected an undamaged journal"
            " (hint: move it away: finished fits are recorded again)"
        ) from None


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
