"""Keep Optuna's storage in the store: ``optuna/journal.log``, which optuna-dashboard opens.

It holds one Optuna study per search and grid. The study's name ends in a hash of the settings and
data that its values depend on. On an object store each Optuna study has its own object,
``optuna/<name>.log``. No result depends on these files.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chexseg.errors import UserError, reason
from chexseg.search.journal_lines import FileLines, ObjectLines
from chexseg.store import file_lock, links
from chexseg.store.backend import unfinished
from chexseg.store.store import Artifact, Store

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages.journal import BaseJournalBackend

    from chexseg.store.object_backend import ObjectBackend

FOLDER = "optuna"
#: Setting -> its distribution in a search.
Space = Mapping[str, "BaseDistribution"]
NO_SPACE: Space = {}


def path_in(store: Store) -> Path:
    """Return the journal of a store in a directory.

    For an object store: the journal that earlier versions kept on this host.
    """
    return store.backend.local.absolute() / FOLDER / "journal.log"


def title(store: Store, name: str) -> str:
    """Return the location of an Optuna study's journal, for people."""
    return f"{store}/{FOLDER}/{name}.log" if _in_objects(store) else str(path_in(store))


@contextmanager
def acquire(store: Store, name: str, wait: bool) -> Iterator[bool]:
    """Lock an Optuna study for this process; a process that dies releases its lock.

    Yields False, without the lock, if another process has it and `wait` is off. On an object store
    that is certain only after a dead process's lease would have expired.
    """
    if not _in_objects(store):
        lock = path_in(store).with_name(f"{name}.lock")
        links.refuse_links(store.backend.local.absolute(), lock)
        with file_lock.locked(lock, wait) as acquired:
            yield acquired
        return
    backend = cast("ObjectBackend", store.backend)
    work = f"{FOLDER}/{name}"
    deadline = time.monotonic() + backend.timing.expiry + backend.timing.heartbeat
    while not wait and unfinished(work) in backend.in_progress():
        if time.monotonic() > deadline:
            yield False
            return
        time.sleep(backend.timing.settle)
    with backend.exclusive(work):
        yield True


def open_lines(store: Store, name: str) -> FileLines | ObjectLines:
    """Open the journal that holds an Optuna study."""
    if _in_objects(store):
        return ObjectLines(store.backend, f"{FOLDER}/{name}.log")
    return _file(store)


def _in_objects(store: Store) -> bool:
    return not store.backend.shared


def _file(store: Store) -> FileLines:
    return FileLines(store.backend.local.absolute(), path_in(store))


def _earlier(store: Store) -> FileLines | ObjectLines:
    """Open the journal to start from if an object store has none for a study.

    It is the journal of a directory that was copied there, or one of an earlier version on this
    host.
    """
    copied = ObjectLines(store.backend, f"{FOLDER}/journal.log")
    return copied if copied.exists else _file(store)


def create_study(
    store: Store,
    lines: FileLines | ObjectLines,
    name: str,
    kind: str,
    space: Space = NO_SPACE,
    **settings: Any,
) -> optuna.Study:
    """Return the Optuna study of a name, created if missing. kind: "search" or "grid", for people.

    lines: of `open_lines`; results are certain to be stored only after their `flush`. Raises
    `UserError` as `read`.
    """
    import optuna

    # By default Optuna announces every study and every trial.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _storage(lines)
    fresh = isinstance(lines, ObjectLines) and not lines.exists
    earlier = _trials(_earlier(store), name, space) if fresh else []
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, **settings
    )
    if "kind" not in study.user_attrs:
        study.set_user_attr("kind", kind)
        study.add_trials(earlier)
    _check(study, lines, space)
    return study


def read(store: Store, name: str, space: Space = NO_SPACE) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of an Optuna study; empty if there is none. Writes nothing.

    space: distributions of the settings. Raises `UserError` for a record that Optuna can't apply,
    or that chexseg doesn't write.
    """
    return read_with_torn(store, name, space)[0]


def read_with_torn(
    store: Store, name: str, space: Space = NO_SPACE
) -> tuple[list[optuna.trial.FrozenTrial], int]:
    """Return the trials as `read`, and the number of torn pieces that were skipped."""
    lines = open_lines(store, name)
    if isinstance(lines, ObjectLines) and not lines.exists:
        lines = _earlier(store)
    return _trials(lines, name, space), lines.torn


def _trials(
    lines: FileLines | ObjectLines, name: str, space: Space
) -> list[optuna.trial.FrozenTrial]:
    import optuna

    if isinstance(lines, FileLines) and not lines.path.exists():
        return []
    try:
        study = optuna.load_study(storage=_storage(lines), study_name=name)
    except KeyError:
        return []
    return _check(study, lines, space)


def _check(
    study: optuna.Study, lines: FileLines | ObjectLines, space: Space
) -> list[optuna.trial.FrozenTrial]:
    """Return the trials. Raise `UserError` for one whose values or attributes Optuna never reads.

    Optuna applies most records without looking at what they say.
    """
    from optuna.study import StudyDirection

    if study.directions != [StudyDirection.MAXIMIZE]:
        names = ", ".join(direction.name.lower() for direction in study.directions)
        raise _damaged(lines, f"a study with the directions {names or 'of none'}")
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        try:
            _check_trial(trial, space)
        except Exception as error:  # of any type: Optuna's distributions trust their values
            raise _damaged(
                lines, f"unusable records of trial {trial.number} ({reason(error)})"
            ) from None
    return trials


def _check_trial(trial: optuna.trial.FrozenTrial, space: Space) -> None:
    from optuna.distributions import check_distribution_compatibility
    from optuna.trial import TrialState

    for name in trial.params.keys() & space.keys():
        check_distribution_compatibility(space[name], trial.distributions[name])
    queued = trial.system_attrs.get("fixed_params", {})
    for name, value in (*trial.params.items(), *queued.items()):
        if name in space:
            space[name].to_internal_repr(value)
    values = trial.values or ()
    if len(values) > 1 or (trial.state == TrialState.COMPLETE and not values):
        raise ValueError(f"{len(values)} values")
    for number in (*values, *trial.intermediate_values.values()):
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise ValueError("a value that isn't a number")
    attributes = trial.user_attrs
    if not all(isinstance(step, int) for step in trial.intermediate_values):
        raise ValueError("a step that isn't a whole number")
    fits = attributes.get("fits", [])
    if not isinstance(fits, list) or not all(isinstance(key, str) for key in fits):
        raise ValueError("fits that aren't a list of keys")
    if not isinstance(attributes.get("continues", 0), int):
        raise ValueError("another trial's number that isn't one")
    if not isinstance(attributes.get("key", ""), str):
        raise ValueError("a key that isn't text")


def _storage(lines: FileLines | ObjectLines) -> optuna.storages.JournalStorage:
    """Return the storage. Raise `UserError` for a journal with a record that Optuna can't apply."""
    import optuna

    try:
        return optuna.storages.JournalStorage(cast("BaseJournalBackend", lines))
    except UserError:
        raise
    except Exception as error:  # of any type: Optuna trusts its records
        raise _damaged(lines, f"a record that Optuna can't apply ({reason(error)})") from None


def _damaged(lines: FileLines | ObjectLines, what: str) -> UserError:
    return UserError(
        f"{lines.title}: found {what}; expected an undamaged journal"
        " (hint: move it away: finished fits are recorded again)"
    )


def learning_curve(fits: Sequence[Artifact]) -> tuple[float, dict[int, float]] | None:
    """Return (mean selection mIoU of fits, step -> that of each epoch); None if one has none.

    Steps continue from one fit to the next: the second fit starts at the first's number of epochs.
    """
    values = [fit.facts["selection_miou"] for fit in fits]
    if None in values:
        return None
    curve = itertools.chain(*(fit.facts.get("selection_curve", ()) for fit in fits))
    return math.fsum(values) / len(values), dict(enumerate(curve))


def encode_choice(value: Any) -> Any:
    """Return a value as Optuna's storage accepts it in a list of choices."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return json.dumps(value, sort_keys=True, default=lambda model: model.model_dump())
