"""A search's record in Optuna's storage: what to try next, what came of it, and what a driver that died has left."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chexseg.config.search_space import Range
from chexseg.plan.graph import Node
from chexseg.search import journal
from chexseg.search.journal_lines import count_torn
from chexseg.search.space_plan import Point, Search
from chexseg.seeds import derive
from chexseg.store.store import Store

if TYPE_CHECKING:
    import optuna

#: Finished points before the first one may be pruned by the median.
UNPRUNED = 4


@dataclass(frozen=True)
class TrialCounts:
    """How far a search is. Points are what it has asked for itself; told are settings that other studies had finished."""

    done: int = 0
    pruned: int = 0
    failed: int = 0
    told: int = 0
    #: Of done and told the best: its mIoU, its point, and whether it was told.
    value: float | None = None
    point: Point | None = None
    was_told: bool = False
    #: A line that tells of damage to the journal, which the standing leaves out.
    note: str | None = None


class OptunaStudy:
    """One search's Optuna study."""

    def __init__(self, search: Search, store: Store):
        self.search, self.store = search, store
        self.name = f"{search.study.name}-{search.identity()}"
        self.space = _distributions(search)

    def open(self) -> str | None:
        """Open the journal for writing; a line for people where it had torn lines."""
        import optuna

        pruners = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
            "asha": optuna.pruners.SuccessiveHalvingPruner(),
            "none": optuna.pruners.NopPruner(),
        }
        pruner = pruners[self.search.study.search.pruner]
        self.lines = journal.opened(self.store, self.name)
        note = self.lines.set_torn_aside()
        self.study = journal.make(self.store, self.lines, self.name, "search", pruner=pruner)
        return note

    def flush(self) -> None:
        """Keep what was told, for certain. Raises `UserError` as the journal's `flush` does."""
        self.lines.flush()

    def trial_counts(self) -> TrialCounts:
        """How far the search is, from the storage as it is; nothing is written."""
        from optuna.trial import TrialState

        trials, torn = journal.read_with_torn(self.store, self.name)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        asked = [trial for trial in trials if "told" not in trial.user_attrs]
        states = Counter(trial.state for trial in asked if trial.number not in continued)
        # A setting may be missing where the journal was damaged.
        complete = [
            t
            for t in trials
            if t.state == TrialState.COMPLETE and t.params.keys() == self.space.keys()
        ]
        best, value, altered = self._best(complete)
        notes = [f"{count_torn(torn)} left out; every complete line counts"] if torn else []
        if altered:
            notes.append(f"{altered} trials left out, whose settings aren't those of their fits")
        return TrialCounts(
            done=states[TrialState.COMPLETE],
            pruned=states[TrialState.PRUNED],
            failed=states[TrialState.FAIL],
            told=len(trials) - len(asked),
            value=value,
            point=best and self.point(best.params),
            was_told=best is not None and "told" in best.user_attrs,
            note=f"{journal.title(self.store, self.name)}: {'; '.join(notes)}" if notes else None,
        )

    def _best(
        self, complete: Sequence[optuna.trial.FrozenTrial]
    ) -> tuple[optuna.trial.FrozenTrial | None, float | None, int]:
        """(the best trial, its value, how many better ones are of other fits than they say): a journal has no checksums.

        A value is the mean of the fits as the store has them; the journal's counts only where they are gone.
        """
        keys = {key for trial in complete for key in trial.user_attrs.get("fits", ())}
        fits = self.store.find_all(Node("fit", {}, {}, None, key) for key in keys)
        values = {}
        for trial in complete:
            present = [fits[key] for key in trial.user_attrs.get("fits", ()) if key in fits]
            whole = present and len(present) == len(trial.user_attrs["fits"])
            curve = journal.learning_curve(present) if whole else None
            values[trial.number] = curve[0] if curve else trial.value
        altered = 0
        for trial in sorted(complete, key=lambda trial: values[trial.number], reverse=True):
            keys_of = trial.user_attrs.get("fits")
            if keys_of is None or tuple(keys_of) == self._fits(self.point(trial.params)):
                return trial, values[trial.number], altered
            altered += 1
        return None, None, altered

    def points(self) -> list[Point]:
        """Every point that was asked for or told, whatever came of it."""
        trials = journal.read(self.store, self.name)
        return [
            self.point(trial.params) for trial in trials if trial.params.keys() == self.space.keys()
        ]

    def point(self, params: Mapping[str, Any]) -> Point:
        """The settings that Optuna's parameters mean."""
        out = {}
        for key, values in self.search.study.axes.items():
            if isinstance(values, Range):
                # 0.1 + 2 * 0.1 is to be the 0.3 that a grid says.
                out[key] = round(params[key], 12) if values.step is not None else params[key]
            else:
                out[key] = values[[journal.plain(value) for value in values].index(params[key])]
        return out

    def params(self, point: Point) -> dict[str, Any]:
        """The inverse of `point`."""
        return {
            key: value if key in self.search.ranges else journal.plain(value)
            for key, value in point.items()
        }

    def resume(self) -> int:
        """Take up what a driver that died has left, and what failed; how many points are still to be asked for.

        Only for the one driver of the search (`journal.alone`): any other's running points would be taken for a dead one's.
        """
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            if (
                trial.state in (TrialState.RUNNING, TrialState.FAIL)
                and trial.number not in continued
            ):
                # First the successor: a driver that is killed between the two must not lose the point.
                self.study.enqueue_trial(trial.params, user_attrs={"continues": trial.number})
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
        trial_counts = self.trial_counts()
        return max(0, self.search.study.search.points - trial_counts.done - trial_counts.pruned)

    def tell_finished(self) -> int:
        """Tell the sampler every point of the space whose fits are in the store, whoever made them; how many were new.

        But not those that `resume` asks for again, which the workers of a driver that died may have finished after it:
        they are told when they are found, and would count twice.
        """
        import optuna
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        reported = {tuple(trial.user_attrs.get("fits", ())) for trial in trials}
        unfinished = {
            self._fits(self.point(trial.params))
            for trial in trials
            if trial.state in (TrialState.RUNNING, TrialState.FAIL)
            and trial.params.keys() == self.space.keys()
        }
        count = 0
        for point in self.finished_points():
            fits = self._fits(point)
            curve = None if fits in reported or fits in unfinished else self._curve(fits)
            if curve:
                reported.add(fits)
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
        """Keys of the fits of a point's trials."""
        return tuple(cell.fit for cell in self.search.plan([point]).cells)

    def finished_points(self) -> Iterator[Point]:
        """Points that some fit in the store may be a trial of: choices can be tried, ranges stand in its config."""
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
                if artifact.manifest["key"] in {
                    cell.fit for cell in self.search.plan([point]).cells
                }:
                    mark = json.dumps(self.params(point))
                    if mark not in seen:
                        seen.add(mark)
                        yield point
                    break  # where several choices make one fit (weak labels at p = 1) the first stands for all

    def ask(self) -> tuple[optuna.Trial, Point]:
        """The next point: one that waits, or the sampler's.

        Each has a generator of its own, so that a search that was killed asks for what it would have asked for.
        """
        import optuna

        settings = self.search.study.search
        there = self.study.get_trials(deepcopy=False)
        number = sum(not {"told", "continues"} & trial.user_attrs.keys() for trial in there)
        seed = derive(settings.seed, "sampler", number) % 2**32
        if settings.sampler == "random":
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            startup = min(10, math.ceil(settings.points / 3))
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        trial = self.study.ask(self.space)
        return trial, self.point(trial.params)

    def complete(
        self, trial: optuna.Trial, fits: Sequence[str], reported: Iterable[int]
    ) -> float | None:
        """Tell what a point's fits came to; None, and nothing is told, if one of them has no selection mIoU."""
        curve = self._curve(fits)
        if curve is not None:
            trial.set_user_attr("fits", list(fits))
            for step in sorted(curve[1].keys() - set(reported)):
                trial.report(curve[1][step], step)
            self.study.tell(trial, curve[0])
        return curve and curve[0]

    def _curve(self, fits: Sequence[str]) -> tuple[float, dict[int, float]] | None:
        found = [self.store.find("fit", key) for key in fits]
        return journal.learning_curve(found) if all(found) else None

    def prune(self, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, error: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("error", error)
        self.study.tell(trial, state=TrialState.FAIL)


def _distributions(search: Search) -> dict[str, Any]:
    from optuna import distributions

    out: dict[str, Any] = {}
    for key, values in search.study.axes.items():
        if not isinstance(values, Range):
            out[key] = distributions.CategoricalDistribution(
                [journal.plain(value) for value in values]
            )
        elif search.whole(key):
            step = int(values.step or 1)
            out[key] = distributions.IntDistribution(
                int(values.low), int(values.high), log=values.log, step=step
            )
        else:
            out[key] = distributions.FloatDistribution(
                values.low, values.high, log=values.log, step=values.step
            )
    return out
