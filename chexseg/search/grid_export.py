"""Export a grid's finished cells to Optuna's storage, for the dashboard to show beside searches."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from chexseg.plan.cells import distinguishing_settings
from chexseg.plan.graph import Plan
from chexseg.search import journal
from chexseg.search.space_plan import identity
from chexseg.store.store import Store

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def name_of(plan: Plan) -> str:
    """Return the name of a grid's Optuna study."""
    return f"{plan.study.name}-{identity(plan.study, plan.data, plan.imported)}"


def export(
    plan: Plan, store: Store, exported: set[str], say: Callable[[str], None] = lambda line: None
) -> int:
    """Add a grid's finished cells to its Optuna study, and return the number of new ones.

    exported: keys of scores to skip, updated. Several processes may do this at once.
    """
    cells = [cell for cell in plan.cells if cell.score not in exported]
    scored = store.cached(plan.nodes[cell.score] for cell in cells)
    fits = store.find_all(plan.nodes[cell.fit] for cell in cells if cell.score in scored)
    curves = {key: curve for key, fit in fits.items() if (curve := journal.learning_curve([fit]))}
    finished = [cell for cell in cells if cell.score in scored and cell.fit in curves]
    if not finished:
        return 0
    import optuna

    varied = plan.study.varied
    keys = sorted(
        distinguishing_settings(varied, (cell.settings for cell in plan.cells))
        if plan.study.members
        else varied
    )
    params = {
        cell.score: {key: journal.encode_choice(attrgetter(key)(cell.settings)) for key in keys}
        for cell in plan.cells
    }
    space = {key: _span([values[key] for values in params.values()]) for key in keys}
    name = name_of(plan)
    if not store.backend.shared:  # where reading costs less than a lock
        stored = {trial.user_attrs.get("key") for trial in journal.read(store, name)}
        exported |= {cell.score for cell in finished if cell.score in stored}
        if all(cell.score in exported for cell in finished):
            return 0
    with journal.acquire(store, name, wait=True):
        lines = journal.open_lines(store, name)
        if note := lines.set_torn_aside():
            say(note)
        study = journal.create_study(store, lines, name, "grid")
        stored = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        added = [cell for cell in finished if cell.score not in stored]
        study.add_trials(
            _with_times(
                optuna.create_trial(
                    value=curves[cell.fit][0],
                    params=params[cell.score],
                    distributions=space,
                    intermediate_values=curves[cell.fit][1],
                    user_attrs={"key": cell.score, "cell": cell.name, "fits": [cell.fit]},
                ),
                fits[cell.fit].manifest,
            )
            for cell in added
        )
        lines.flush()
    exported |= {cell.score for cell in finished}
    return len(added)


def _with_times(trial: FrozenTrial, manifest: Mapping[str, Any]) -> FrozenTrial:
    """Return a trial with start and end of its fit, in local time as Optuna's; else it took 0 s."""
    with suppress(KeyError, TypeError, ValueError):
        ended = datetime.datetime.fromisoformat(manifest["finished"]).astimezone()
        trial.datetime_complete = ended.replace(tzinfo=None)
        started = ended - datetime.timedelta(seconds=manifest["seconds"])
        trial.datetime_start = started.replace(tzinfo=None)
    return trial


@contextmanager
def exporting(
    plan: Plan, store: Store, say: Callable[[str], None], interval: float = 30.0
) -> Iterator[None]:
    """Export a grid's cells from a thread as they finish, and once more at the end.

    interval: seconds between two exports. An error is reported once and ends the export; the run
    goes on, because nothing depends on it. After an interrupt the next run exports what is left.
    """
    over, interrupted, exported = threading.Event(), threading.Event(), set[str]()

    def watch() -> None:
        ended = False
        while not ended:
            ended = over.wait(interval)
            if interrupted.is_set():
                return
            try:
                export(plan, store, exported, say)
            except Exception as error:
                say(
                    f"finished cells are not written to {journal.title(store, name_of(plan))}"
                    f" ({type(error).__name__}: {error})"
                )
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        interrupted.set()
        raise
    finally:
        over.set()
        thread.join()


def _span(values: Sequence[Any]) -> BaseDistribution:
    """Return the distribution that contains a grid's values: a range of numbers, or choices."""
    from optuna import distributions

    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return distributions.IntDistribution(min(values), max(values))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return distributions.FloatDistribution(min(values), max(values))
    return distributions.CategoricalDistribution(list(dict.fromkeys(values)))
