"""A grid's finished cells in Optuna's storage, so that the dashboard shows them beside searches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from chexseg.plan.cells import distinguishing_settings
from chexseg.plan.graph import Plan
from chexseg.search import journal
from chexseg.search.space_plan import identity
from chexseg.store.store import Store


def name_of(planned: Plan) -> str:
    """The name of a grid's Optuna study."""
    return f"{planned.study.name}-{identity(planned.study, planned.data, planned.imported)}"


def record(
    planned: Plan, store: Store, known: set[str], say: Callable[[str], None] = lambda line: None
) -> int:
    """Write every finished cell of a grid that isn't there yet into its Optuna study; how many these were.

    `known` are keys of scores that needn't be looked at, and gets those that are there now. Any number of processes may do
    this at once.
    """
    cells = [cell for cell in planned.cells if cell.score not in known]
    scored = store.cached(planned.nodes[cell.score] for cell in cells)
    fits = store.find_all(planned.nodes[cell.fit] for cell in cells if cell.score in scored)
    curves = {key: journal.learning_curve([fit]) for key, fit in fits.items()}
    finished = [cell for cell in cells if cell.score in scored and curves.get(cell.fit)]
    if not finished:
        return 0
    import optuna

    varied = planned.study.varied
    keys = sorted(
        distinguishing_settings(varied, (cell.settings for cell in planned.cells))
        if planned.study.members
        else varied
    )
    rows = {
        cell.score: {key: journal.plain(attrgetter(key)(cell.settings)) for key in keys}
        for cell in planned.cells
    }
    space = {key: _span([row[key] for row in rows.values()]) for key in keys}
    name = name_of(planned)
    count = 0
    if not store.backend.shared:  # where looking costs less than a lock
        there = {trial.user_attrs.get("key") for trial in journal.read(store, name)}
        known |= {cell.score for cell in finished if cell.score in there}
        if all(cell.score in known for cell in finished):
            return 0
    with journal.alone(store, name, wait=True):
        lines = journal.opened(store, name)
        if note := lines.set_torn_aside():
            say(note)
        study = journal.make(store, lines, name, "grid")
        there = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        for cell in finished:
            if cell.score not in there:
                count += 1
                value, steps = curves[cell.fit]
                study.add_trial(
                    optuna.create_trial(
                        value=value,
                        params=rows[cell.score],
                        distributions=space,
                        intermediate_values=steps,
                        user_attrs={"key": cell.score, "cell": cell.name, "fits": [cell.fit]},
                    )
                )
        lines.flush()
    known |= {cell.score for cell in finished}
    return count


@contextmanager
def recording(
    planned: Plan, store: Store, say: Callable[[str], None], every: float = 30.0
) -> Iterator[None]:
    """Write a grid's cells while they finish, from a thread of its own, and when all has ended.

    Nothing depends on it: where it fails it says so once, and the run goes on.
    """
    over, known = threading.Event(), set[str]()

    def watch() -> None:
        ended = False
        while not ended:
            ended = over.wait(every)
            try:
                record(planned, store, known, say)
            except Exception as error:
                place = journal.title(store, name_of(planned))
                say(f"finished cells are not written to {place} ({type(error).__name__}: {error})")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _span(values: Sequence[Any]) -> Any:
    """The distribution that a grid's values are of: numbers between the least and the greatest, or choices."""
    from optuna import distributions

    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return distributions.IntDistribution(min(values), max(values))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return distributions.FloatDistribution(min(values), max(values))
    return distributions.CategoricalDistribution(list(dict.fromkeys(values)))
