"""Resolve study files and a store to plans of grids and searches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chexseg.config import study_file, yaml_source
from chexseg.data.raw_split import RawData, shared_patient_warnings
from chexseg.data.remote_path import Location
from chexseg.errors import Mistakes, UserError, printable
from chexseg.plan import cost, planner
from chexseg.plan import status as plan_status
from chexseg.plan.checks import before_run, settings
from chexseg.plan.graph import Plan
from chexseg.search import status as search_status
from chexseg.search.space_plan import Search
from chexseg.store.store import Store


def read(
    files: Sequence[Path],
    data: Location | RawData,
    store: Store,
    overrides: Sequence[str] = (),
    expand_members: bool = False,
    store_option: str = "",
    check: bool = False,
    warn: Callable[[str], None] | None = None,
) -> list[Plan | Search]:
    """Return the plan or search of each study file. overrides: ``KEY=VALUE`` settings.

    expand_members: return the studies that a study includes instead of the study itself.
    store_option: appended to the command in the message about a missing encoder. check: if a study
    can't be planned, say too what `mistakes` finds in the rest of it. warn: called with a line for
    each two splits of the data that share patients.
    Raises `UserError`, as `study_file.load`, `planner.fingerprints` and `Search.check`, and
    `Mistakes` with all cells that can't be planned.
    """
    given = _settings(overrides)
    studies = [(path, study_file.load(path, given)) for path in files]
    if expand_members:
        studies = [
            (path, member) for path, study in studies for member in study.members or (study,)
        ]
    raw = data if isinstance(data, RawData) else RawData(data)
    prints, imported = raw.fingerprints, store.imported()
    if warn is not None:
        for line in shared_patient_warnings(raw.splits):
            warn(line)
    plans: list[Plan | Search] = []
    for path, study in studies:
        search = Search(study, prints, imported) if study.search else None
        try:
            if search:
                search.check()
            plans.append(search or planner.plan(study, prints, imported))
        except UserError as error:
            grid = search.grid(list(search.extremes())) if search else study
            rest, lines = settings.plan_of_rest(grid, prints, imported, store_option, study)
            if not lines:  # it is about the search itself
                raise UserError(f"{path}: {error}") from None
            if check:
                rest.study = study
                nodes = rest.needed(store.cached(rest.nodes.values()))
                lines += before_run.mistakes(rest, nodes, raw, store, planning=True)
            raise Mistakes(lines) from None
    return plans


def mistakes(
    plan: Plan | Search,
    store: Store,
    raw: RawData,
    cached: Collection[str] | None = None,
    planning: bool = False,
) -> list[str]:
    """Return a line for each mistake that the data and the disk show in what is to run.

    cached: keys of the nodes of a plan with a result, if known. planning: see
    `before_run.mistakes`.
    """
    if isinstance(plan, Search):
        # The ends of all ranges have the largest counts. Points between them need the same stages.
        plan, cached = plan.plan(list(plan.extremes())), None
    if cached is None:
        cached = store.cached(plan.nodes.values())
    return before_run.mistakes(plan, plan.needed(cached), raw, store, planning)


def planned(plan: Plan | Search, store: Store, all_points: bool = False) -> Plan:
    """Return the plan of a grid, or of a search's shared stages and its best point so far.

    all_points: include every point of a search instead of its best.
    """
    return plan if isinstance(plan, Plan) else search_status.planned(plan, store, all_points)


def summarise(
    plan: Plan | Search, store: Store, data: RawData | None = None
) -> plan_status.Summary | search_status.SearchSummary:
    """Return the state of a plan in a store. data: if given, costs are computed."""
    images = None if data is None else cost.images(data)
    if isinstance(plan, Plan):
        return plan_status.summarise(plan, store, images, explain_stale=True)
    return search_status.summarise(plan, store, images, explain_stale=True)


def _settings(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return dotted setting -> value of every ``KEY=VALUE``. Raise `UserError`."""
    settings = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set: found {override!r}; expected KEY=VALUE, such as fit.epochs=5")
        try:
            settings[key] = yaml_source.read(value, "--set").content
        except UserError as error:
            _, _, fault = str(error).partition(": ")
            if "; expected" not in fault:
                fault = "found a value that is not YAML; expected KEY=VALUE, such as fit.epochs=5"
            raise UserError(f"--set {printable(override)}: {fault}") from None
    return settings
