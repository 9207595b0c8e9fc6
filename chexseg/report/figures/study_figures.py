"""All of the paper's figures of a study, by file name, and their export to files."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import plotly.graph_objects as go
import plotly.io

from chexseg.analysis.points.figure2 import further_panels
from chexseg.analysis.points.figure2 import panels as panels2
from chexseg.analysis.points.figure3 import panels as panels3
from chexseg.analysis.points.figure4 import panels as panels4
from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.report.figures import stage_graph, training
from chexseg.report.figures.figure2 import figure2
from chexseg.report.figures.figure3 import figure3
from chexseg.report.figures.figure4 import figure4
from chexseg.report.figures.figure5 import figure5
from chexseg.report.figures.label_efficiency import label_efficiency
from chexseg.report.figures.ranking import ranking


def draw(analysis: StudyAnalysis, legend: bool = True, curves: bool = True) -> dict[str, go.Figure]:
    """Return file name -> figure of all that the study has data for.

    Each panel is a figure. Panels of Figure 2 beyond the paper's four come last and are named after
    their pathology. legend: draw one; the page has switches instead. curves: include those of
    trainings, and the classifiers' ROC curves.
    """
    figures: dict[str, go.Figure] = {}
    if analysis.stage_graph is not None:
        figures["stages"] = stage_graph.draw(analysis.stage_graph)
    if curves:
        figures |= training.panels(analysis.curves, analysis.roc, legend)
    if len(analysis.ranking):
        figures["ranking"] = ranking(analysis.ranking, legend)
    of_p = dict(iter(analysis.figure2.groupby("task", sort=False)))
    letters = dict(zip(panels2(analysis.results.pathologies), "abcd", strict=False))
    for name in [*letters, *further_panels(analysis.results.pathologies)]:
        if name in of_p:
            stem = letters.get(name) or name.lower().replace(" ", "-")
            figures[f"figure2-{stem}"] = figure2(of_p[name], letters.get(name, ""), legend)
    rows = analysis.figure3
    figures |= {f"figure3-{i}": figure3(rows, i, legend=legend) for i in panels3(rows)}
    rows = analysis.figure4
    # Of arms with one encoder initialization, the ranking has the same points.
    inits = {arm.init for arm in analysis.scores.arms}
    for images in panels4(rows) if len(inits) > 1 or not len(analysis.ranking) else ():
        name = f"figure4b-{images}" if images else "figure4a"
        figures[name] = figure4(rows, images, "b" if images else "a", legend)
    rows = analysis.label_efficiency
    for letter, panel in zip("ab", rows["panel"].unique(), strict=False):
        name = f"label-efficiency-{letter}"
        figures[name] = label_efficiency(rows, panel, letter, legend)
    if len(analysis.figure5):
        figures["figure5"] = figure5(analysis.figure5, legend=legend)
    return figures


#: Width of image files, pixels: one and a half columns of a paper at 96 per inch.
WIDTH = 640


def export(figures: Mapping[str, go.Figure]) -> tuple[dict[str, bytes], str | None]:
    """Return file name -> image of figures by names that end in .png or .svg, or {} and a note."""
    try:
        import kaleido  # noqa: F401 - the extra "images"
    except ImportError:
        return {}, (
            "no .png and .svg figures: kaleido isn't installed; hint: pip install 'chexseg[images]'"
        )
    except RuntimeError as error:  # it looks for the home directory when it is imported
        return {}, _failure(error)
    white = {"paper_bgcolor": "white", "plot_bgcolor": "white"}
    drawn = [go.Figure(figure).update_layout(white) for figure in figures.values()]
    # When plotly writes several images, it ignores the sizes in their layouts.
    heights = [figure.layout.height for figure in drawn]
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            paths = [
                Path(directory, f"{number}{Path(name).suffix}")
                for number, name in enumerate(figures)
            ]
            write = partial(plotly.io.write_images, scale=2, width=WIDTH, height=heights)
            _no_logs_of_chrome()
            with _chrome_in_root(directory), _no_mathjax(Path(directory)):
                _in_daemon_thread(partial(write, drawn, paths))
            images = (path.read_bytes() for path in paths)
            return dict(zip(figures, images, strict=True)), None
    except Exception as error:  # kaleido raises many kinds if Chrome is missing, stuck or crashes
        return {}, _failure(error)


def _failure(error: Exception) -> str:
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    return f"no .png and .svg figures: {type(error).__name__}: {reason}"


def _no_logs_of_chrome() -> None:
    """Keep Kaleido and its libraries from printing tracebacks of faults that they ignore.

    One is the word by which choreographer tells its own thread to end, if that reads it together
    with Chrome's last message. What fails is raised, and becomes a note on the page.
    """
    for library in ("kaleido", "choreographer", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


@contextmanager
def _chrome_in_root(temporary: str) -> Iterator[None]:
    """Let Kaleido start Chrome in `/`, where nobody else can have left files.

    Chrome looks for settings of its graphics drivers in the current directory, and loads a library
    that they name. Neither Kaleido nor choreographer has an option for the directory. temporary:
    for Chrome's temporary files, some of which it leaves if it is slow to end.
    """
    from choreographer.browsers import chromium

    browser: Any = chromium.Chromium
    arguments_of, environment_of = browser.get_popen_args, browser.get_env
    browser.get_popen_args = lambda self: {**arguments_of(self), "cwd": "/"}
    browser.get_env = lambda self: {**environment_of(self), "TMPDIR": temporary}
    try:
        yield
    finally:
        browser.get_popen_args, browser.get_env = arguments_of, environment_of


@contextmanager
def _no_mathjax(folder: Path) -> Iterator[None]:
    """Let Kaleido's page load an empty script, and not MathJax from a server on the internet.

    Plotly doesn't pass its setting on if that is False.
    """
    script = folder / "none.js"
    script.touch()
    before, plotly.io.defaults.mathjax = plotly.io.defaults.mathjax, str(script)
    try:
        yield
    finally:
        plotly.io.defaults.mathjax = before


def _in_daemon_thread(function: Callable[[], None]) -> None:
    """Call a function in a thread whose threads don't keep the process from ending.

    If Chrome can't be started, Kaleido leaves one that reads a pipe forever.
    """
    done: Future[None] = Future()

    def call() -> None:
        try:
            function()
            done.set_result(None)
        except BaseException as error:  # raised below, in the caller's thread
            done.set_exception(error)

    Thread(target=call, daemon=True).start()  # threads inherit `daemon`
    done.result()
