"""Render single macros, and single sections of a study's page, for tests."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_analysis import analyse
from chexseg.report.page.environment import environment
from chexseg.report.write import WrittenReport, write


def macro(name: str, *arguments: Any, **options: Any) -> str:
    module = environment().get_template("macros.html").module
    return str(getattr(module, name)(*arguments, **options))


def publish(studies: Sequence[StudyResults], out: Path, images: bool = False) -> WrittenReport:
    """Analyse the studies and write their report."""
    return write([analyse(results) for results in studies], out, images)


def repeatable_tables(out: Path) -> dict[str, bytes]:
    """Return file name -> content of a report's tables, except those of the stages' times."""
    return {
        path.name: path.read_bytes()
        for path in (out / "tables").glob("*.csv")
        if not path.stem.endswith(("-stages", "-runs"))
    }


def page_text(results: StudyResults) -> str:
    """Return the page of a study."""
    with tempfile.TemporaryDirectory() as out:
        return publish([results], Path(out)).page.read_text(encoding="utf-8")


def sections(results: StudyResults) -> dict[str, str]:
    """Return name -> HTML of the sections of a study's page."""
    return split_sections(page_text(results))


def split_sections(page: str) -> dict[str, str]:
    """Return name -> HTML of the sections of a page."""
    pattern = r'<section [^>]*data-name="(.*?)"><h2>.*?</h2>(.*?)</section>'
    return dict(re.findall(pattern, page, re.S))
