"""Render single macros, and single sections of a study's page, for tests."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from chexseg.analysis.results import StudyResults
from chexseg.report.page import page
from chexseg.report.page.environment import environment
from chexseg.report.page.table_views import grid
from chexseg.report.page.wide_grids import value_table


def macro(name: str, *arguments: Any, **options: Any) -> str:
    module = environment().get_template("macros.html").module
    return str(getattr(module, name)(*arguments, **options))


def grid_html(rows: pd.DataFrame) -> str:
    """Return a wide grid as the page shows it."""
    return macro("grid", grid(value_table(rows)))


def sections(results: StudyResults) -> dict[str, str]:
    """Return title -> HTML of the sections of a study's page."""
    found = re.findall(
        r"<section [^>]*><h2>(.*?)</h2>(.*?)</section>", page.render([results]), re.S
    )
    return dict(found)
