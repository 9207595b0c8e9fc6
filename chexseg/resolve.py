"""From study files and a store to plans: a grid's, or a search's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chexseg.config import study_file, yaml_source
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import cost, planner
from chexseg.plan import status as plan_status
from chexseg.plan.graph import NoEncoderError, Plan
from chexseg.plan.status import Summary
from chexseg.search import status as search_status
from chexseg.search.space_plan import Search
from chexseg.search.status import SearchSummary
from chexseg.store.store import Store


def read(
    files: Sequence[Path],
    data: Location,
    store: Store,
    overrides: Sequence[str] = (),
    apart: bool = False,
    option: str = "",
) -> list[Plan | Search]:
    """What each file means, with ``KEY=VALUE`` laid over it. apart: what a study includes is told instead of it.

    option: what a command for this store needs beside, in the message about a missing encoder. Raises `UserError` as
    `spec.load`, `plan.fingerprints`, `plan.plan` and `Search.check` do.
    """
    overrides_by_key = _settings(overrides)
    loaded = [(path, study_file.load(path, overrides_by_key)) for path in files]
    if apart:
        loaded = [(path, one) for path, study in loaded for one in study.members or (study,)]
    prints, imported, found = planner.fingerprints(data), store.imported(), []
    for path, study in loaded:
        try:
            if study.search:
                found.append(Search(study, prints, imported))
                found[-1].check()
            else:
                found.append(planner.plan(study, prints, imported))
        except NoEncoderError as error:
            raise UserError(f"{path}: {error}{option}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return found


def planned(meant: Plan | Search, store: Store, every: bool = False) -> Plan:
    """The plan of a grid; of a search, that of its best point so far, or of every point, and of what all of them share."""
    return meant if isinstance(meant, Plan) else search_status.planned(meant, store, every)


def summarise(
    meant: Plan | Search, store: Store, data: Location | None = None
) -> Summary | SearchSummary:
    """Look it up in a store. data: with it, costs are told."""
    images = None if data is None else cost.images(data)
    if isinstance(meant, Plan):
        return plan_status.summarise(meant, store, images, explain_stale=True)
    return search_status.summarise(meant, store, images, format_validation_error=True)


def _settings(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Dotted setting -> value of every ``KEY=VALUE``."""
    found = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: allowed: KEY=VALUE, such as fit.epochs=5")
        try:
            found[key] = yaml_source.read(value, "--set").content
        except UserError:
            raise UserError(
                f"--set {override}: the value is not YAML; allowed: such as fit.epochs=5"
            ) from None
    return found
