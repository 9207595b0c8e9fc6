"""What study files mean against a store: a grid's plan, or a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chexseg.data.location import Location
from chexseg.errors import UserError
from chexseg.study import cost, document, plan, search_summary, spec, summary
from chexseg.study.plan import Plan
from chexseg.study.search import Search
from chexseg.study.search_summary import SearchSummary
from chexseg.study.store import Store
from chexseg.study.summary import Summary


def read(
    files: Sequence[Path], data: Location, store: Store, overrides: Sequence[str] = (), apart: bool = False, option: str = ""
) -> list[Plan | Search]:
    """What each file means, with ``KEY=VALUE`` laid over it. apart: what a study includes is told instead of it.

    option: what a command for this store needs beside, in the message about a missing encoder. Raises `UserError` as
    `spec.load`, `plan.fingerprints`, `plan.plan` and `Search.check` do.
    """
    laid = _settings(overrides)
    loaded = [(path, spec.load(path, laid)) for path in files]
    if apart:
        loaded = [(path, one) for path, study in loaded for one in study.members or (study,)]
    prints, imported, found = plan.fingerprints(data), store.imported(), []
    for path, study in loaded:
        try:
            if study.search:
                found.append(Search(study, prints, imported))
                found[-1].check()
            else:
                found.append(plan.plan(study, prints, imported))
        except plan.NoEncoderError as error:
            raise UserError(f"{path}: {error}{option}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return found


def planned(meant: Plan | Search, store: Store, every: bool = False) -> Plan:
    """The plan of a grid; of a search, that of its best point so far, or of every point, and of what all of them share."""
    return meant if isinstance(meant, Plan) else search_summary.planned(meant, store, every)


def summarise(meant: Plan | Search, store: Store, data: Location | None = None) -> Summary | SearchSummary:
    """Look it up in a store. data: with it, costs are told."""
    images = None if data is None else cost.images(data)
    if isinstance(meant, Plan):
        return summary.summarise(meant, store, images, explain=True)
    return search_summary.summarise(meant, store, images, explain=True)


def _settings(overrides: Sequence[str]) -> Mapping[str, Any]:
    """Dotted setting -> value of every ``KEY=VALUE``."""
    found = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: allowed: KEY=VALUE, such as fit.epochs=5")
        try:
            found[key] = document.read(value, "--set").content
        except UserError:
            raise UserError(f"--set {override}: the value is not YAML; allowed: such as fit.epochs=5") from None
    return found
