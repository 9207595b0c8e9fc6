"""Drive a search's Optuna study: choose points, record their results, and resume after a crash."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chexseg.config.search_space import Range
from chexseg.errors import counted
from chexseg.search import best_trial, journal
from chexseg.search.space_plan import Point, Search, identity
from chexseg.seeds import derive
from chexseg.store.store import Store

if TYPE_CHECKING:
    import optuna

#: Finished points before the median may prune one.
UNPRUNED = 4


@dataclass(frozen=True)
class TrialCounts:
    """The progress of a search.

    done, pruned, failed: points that it asked for. imported: points that other studies finished.
    value, point: best mIoU of done and imported ones, and its settings. best_imported: True if
    that point was imported. confirmed: False if the value is the journal's, because a fit is no
    longer in the store. note: a line about damage to the journal, which is skipped.
    """

    done: int = 0
    pruned: int = 0
    failed: int = 0
    imported: int = 0
    value: float | None = None
    point: Point | None = None
    best_imported: bool = False
    confirmed: bool = True
    note: str | None = None


class OptunaStudy:
    """The Optuna study of a search. A trial attribute "told" marks an imported point."""

    def __init__(self, search: Search, store: Store) -> None:
        self.search, self.store = search, store
        self.name = f"{search.study.name}-{identity(search.study, search.data, search.imported)}"
        self.space = _distributions(search)

    def open(self) -> str | None:
        """Open the journal for writing; return a line for people if it had torn lines."""
        import optuna

        pruners = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
            "asha": optuna.pruners.SuccessiveHalvingPruner(),
            "none": optuna.pruners.NopPruner(),
        }
        self.lines = journal.open_lines(self.store, self.name)
        note = self.lines.set_torn_aside()
        self.study = journal.create_study(
            self.store,
            self.lines,
            self.name,
            "search",
            self.space,
            pruner=pruners[self.search.options.pruner],
        )
        return note

    def flush(self) -> None:
        """Store what was recorded. Raises `UserError`, as the journal's `flush`."""
        self.lines.flush()

    def trial_counts(self) -> TrialCounts:
        """Return the search's progress as stored; writes nothing."""
        from optuna.trial import TrialState

        trials, torn = journal.read_with_torn(self.store, self.name, self.space)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        asked = [trial for trial in trials if "told" not in trial.user_attrs]
        states = Counter(trial.state for trial in asked if trial.number not in continued)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        whole = self._whole(complete)
        best = best_trial.find(
            whole, self.store, lambda trial: self._fits(self.point(trial.params))
        )
        notes = list(best.notes)
        if outside := len(complete) - len(whole):
            notes.insert(0, f"{counted(outside, 'trial')} left out, with settings of no point")
        if torn:
            notes.insert(0, f"{counted(torn, 'torn line')} left out; every complete line counts")
        return TrialCounts(
            done=states[TrialState.COMPLETE],
            pruned=states[TrialState.PRUNED],
            failed=states[TrialState.FAIL],
            imported=len(trials) - len(asked),
            value=best.value,
            point=None if best.trial is None else self.point(best.trial.params),
            best_imported=best.trial is not None and "told" in best.trial.user_attrs,
            confirmed=best.confirmed,
            note=f"{journal.title(self.store, self.name)}: {'; '.join(notes)}" if notes else None,
        )

    def _whole(self, trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
        """Return the trials with all settings, each inside its range.

        Some may be missing from a damaged journal.
        """
        return [trial for trial in trials if self._inside(trial.params).keys() == self.space.keys()]

    def _inside(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that are settings of the search, inside their ranges."""
        return {
            key: value
            for key, value in params.items()
            if key in self.search.choices
            or (
                key in self.search.ranges and self.search.ranges[key].holds(self._exact(key, value))
            )
        }

    def _exact(self, key: str, value: Any) -> Any:
        # Without rounding, 0.1 + 2 * 0.1 would differ from the 0.3 of a grid.
        stepped = self.search.ranges[key].step is not None
        return round(value, 12) if stepped else value

    def points(self) -> list[Point]:
        """Return every point that was asked for or imported, whatever its result."""
        return [
            self.point(trial.params)
            for trial in self._whole(journal.read(self.store, self.name, self.space))
        ]

    def point(self, params: Mapping[str, Any]) -> Point:
        """Return the settings that Optuna's parameters stand for."""
        point = {}
        for key, values in self.search.study.axes.items():
            if isinstance(values, Range):
                point[key] = self._exact(key, params[key])
            else:
                choices = [journal.encode_choice(value) for value in values]
                point[key] = values[choices.index(params[key])]
        return point

    def params(self, point: Point) -> dict[str, Any]:
        """Return the inverse of `point`."""
        return {
            key: value if key in self.search.ranges else journal.encode_choice(value)
            for key, value in point.items()
        }

    def resume(self) -> int:
        """Queue the points that a dead driver left running or that failed; return how many remain.

        Only for the one driver of a search (`journal.acquire`): it takes running points for a dead
        driver's.
        """
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            if (
                trial.state in (TrialState.RUNNING, TrialState.FAIL)
                and trial.number not in continued
            ):
                # The successor first: a driver killed between the two must not lose the point.
                params = self._inside(trial.params)
                self.study.enqueue_trial(params, user_attrs={"continues": trial.number})
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
        counts = self.trial_counts()
        return max(0, self.search.options.points - counts.done - counts.pruned)

    def import_finished(self) -> int:
        """Give the sampler every point whose fits are in the store; return the number of new ones.

        Skips the points that `resume` queues again. A dead driver's workers may have finished
        them since: they are recorded when they are asked for, and would count twice.
        """
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        skipped = {tuple(trial.user_attrs.get("fits", ())) for trial in trials}
        skipped |= {
            self._fits(self.point(trial.params))
            for trial in self._whole(trials)
            if trial.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL)
        }
        count = 0
        for point in self.finished_points():
            fits = self._fits(point)
            curve = None if fits in skipped else self._curve(fits)
            if curve:
                skipped.add(fits)
                count += 1
                self.study.add_trial(
                    optuna.create_trial(
                        value=curve[0],
                        params=self.params(point),
                        distributions=self.space,
                        intermediate_values=curve[1],
                        user_attrs={"told": True, "fits": list(fits)},
                    )
                )
        return count

    def _fits(self, point: Point) -> tuple[str, ...]:
        """Return the keys of the fits of a point's trials."""
        return tuple(cell.fit for cell in self.search.plan([point]).cells)

    def finished_points(self) -> Iterator[Point]:
        """Yield the points with a fit in the store.

        Values of ranges are read from the fit's config; choices are tried in turn.
        """
        fields, ranges = self.search.fields(), self.search.ranges
        seen = set()
        for artifact in self.store.artifacts("fit"):
            values = {
                name: artifact.manifest["config"].get(field) for name, field in fields.items()
            }
            if not all(ranges[name].holds(value) for name, value in values.items()):
                continue
            for choice in self.search.combinations():
                point = {
                    name: values.get(name, choice.get(name)) for name in self.search.study.axes
                }
                if artifact.manifest["key"] in self._fits(point):
                    mark = json.dumps(self.params(point))
                    if mark not in seen:
                        seen.add(mark)
                        yield point
                    # Several choices may share a fit (weak labels at p = 1): the first is enough.
                    break

    def ask(self) -> tuple[optuna.Trial, Point]:
        """Return the next point: a queued one, or the sampler's.

        Each point has a new generator, so that a resumed search asks for the same points.
        """
        import optuna

        options = self.search.options
        number = sum(
            not {"told", "continues"} & trial.user_attrs.keys()
            for trial in self.study.get_trials(deepcopy=False)
        )
        seed = derive(options.seed, "sampler", number) % 2**32
        if options.sampler == "random":
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            startup = min(10, math.ceil(options.points / 3))
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        trial = self.study.ask(self.space)
        return trial, self.point(trial.params)

    def complete(
        self, trial: optuna.Trial, fits: Sequence[str], reported: Iterable[int]
    ) -> float | None:
        """Record a point's fits and return its value, the mean selection mIoU.

        reported: steps that Optuna has already. Returns None, and records nothing, if a fit has no
        selection mIoU.
        """
        curve = self._curve(fits)
        if curve is None:
            return None
        value, steps = curve
        trial.set_user_attr("fits", list(fits))
        for step in sorted(steps.keys() - set(reported)):
            trial.report(steps[step], step)
        self.study.tell(trial, value)
        return value

    def _curve(self, fits: Sequence[str]) -> tuple[float, dict[int, float]] | None:
        stored = [fit for key in fits if (fit := self.store.find("fit", key))]
        return journal.learning_curve(stored) if len(stored) == len(fits) else None

    def prune(self, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, error: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("error", error)
        self.study.tell(trial, state=TrialState.FAIL)


def _distributions(search: Search) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna import distributions

    space: dict[str, distributions.BaseDistribution] = {}
    for key, values in search.study.axes.items():
        if not isinstance(values, Range):
            space[key] = distributions.CategoricalDistribution(
                [journal.encode_choice(value) for value in values]
            )
        elif search.whole(key):
            low, high, step = int(values.low), int(values.high), int(values.step or 1)
            space[key] = distributions.IntDistribution(low, high, log=values.log, step=step)
        else:
            space[key] = distributions.FloatDistribution(
                values.low, values.high, log=values.log, step=values.step
            )
    return space
