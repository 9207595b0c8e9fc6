"""Resolve study files and a store to plans of grids and searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chexseg.config import study_file, yaml_source
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import cost, planner
from chexseg.plan import status as plan_status
from chexseg.plan.graph import NoEncoderError, Plan
from chexseg.search import status as search_status
from chexseg.search.space_plan import Search
from chexseg.store.store import Store


def read(
    files: Sequence[Path],
    data: Location,
    store: Store,
    overrides: Sequence[str] = (),
    expand_members: bool = False,
    store_option: str = "",
    warn: Callable[[str], None] | None = None,
) -> list[Plan | Search]:
    """Return the plan or search of each study file. overrides: ``KEY=VALUE`` settings.

    expand_members: return the studies that a study includes instead of the study itself.
    store_option: appended to the command in the message about a missing encoder. warn: called with
    a line for each two splits of the data that share patients.
    Raises `UserError`, as `study_file.load`, `planner.fingerprints`, `planner.plan` and
    `Search.check`.
    """
    settings = _settings(overrides)
    studies = [(path, study_file.load(path, settings)) for path in files]
    if expand_members:
        studies = [
            (path, member) for path, study in studies for member in study.members or (study,)
        ]
    prints, imported = planner.fingerprints(data, warn), store.imported()
    plans: list[Plan | Search] = []
    for path, study in studies:
        try:
            if study.search:
                search = Search(study, prints, imported)
                search.check()
                plans.append(search)
            else:
                plans.append(planner.plan(study, prints, imported))
        except NoEncoderError as error:
            raise UserError(f"{path}: {error}{store_option}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return plans


def planned(plan: Plan | Search, store: Store, all_points: bool = False) -> Plan:
    """Return the plan of a grid, or of a search's shared stages and its best point so far.

    all_points: include every point of a search instead of its best.
    """
    return plan if isinstance(plan, Plan) else search_status.planned(plan, store, all_points)


def summarise(
    plan: Plan | Search, store: Store, data: Location | None = None
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
            raise UserError(f"--set {override}: {fault}") from None
    return settings
