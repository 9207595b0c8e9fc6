"""Run every fenced block of the documentation, or check that its mark says why not."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from tests.docs import notebook, pages
from tests.docs.pages import Reader

TUTORIAL = "docs/tutorials/first-study.md"
#: Page -> the page that a reader has followed before, besides the tutorial.
AFTER = {"docs/how-to/add-a-weak-label.md": "docs/how-to/add-a-stage.md"}
#: A page that kills a run, whose temporary files then stay. It and the tutorial run on Ray.
KILLING = "docs/how-to/resume-a-killed-run.md"
#: Pages of which another test runs the one block without a mark, with other data.
ELSEWHERE = {"docs/how-to/run-on-a-cluster.md": "tests/cluster/test_one_machine.py"}
ALL = [block for page in pages.pages() for block in pages.blocks(page)]
RUN = ("sh", "bash", "console", "python", "diff")
DATA = {"train": "a", "valid": "b", "test": "c"}
IMPORTED = {("imagenet", "resnet18"): "0" * 64}


def to_run() -> list[str]:
    """Return the pages with blocks to run, without those that are run before another."""
    names = dict.fromkeys(block.page for block in ALL if block.language in RUN and not block.needs)
    return [name for name in names if name not in {TUTORIAL, *AFTER.values(), *ELSEWHERE}]


@pytest.fixture(scope="session")
def finished_tutorial(tmp_path_factory) -> Path:
    """Follow the first tutorial; return its directory."""
    directory = tmp_path_factory.mktemp("tutorial")
    Reader(directory).read(TUTORIAL)
    return directory


@pytest.mark.slow
def test_the_tutorial_runs(finished_tutorial):
    assert (finished_tutorial / "report" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", to_run())
def test_a_page_runs_where_the_tutorial_ends(page, finished_tutorial, tmp_path):
    reader = Reader(tmp_path / "reader", finished_tutorial, ray=page == KILLING)
    if page == KILLING:
        (tmp_path / "tmp").mkdir()
        reader.environment["TMPDIR"] = str(tmp_path / "tmp")
    if page in AFTER:
        reader.read(AFTER[page])
    reader.read(page)


@pytest.mark.slow
def test_every_cell_of_the_notebook_prints_what_it_shows(finished_tutorial, tmp_path):
    reader = Reader(tmp_path / "reader", finished_tutorial)
    script = f"\nprint({notebook.MARK!r})\n".join(code for code, _ in notebook.cells())
    done = subprocess.run(
        ["python", "-"],
        input=script,
        cwd=reader.directory,
        env=reader.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(f"{notebook.MARK}\n")
    for (code, shown), text in zip(notebook.cells(), printed, strict=True):
        assert list(map(pages.comparable, text.splitlines())) == list(
            map(pages.comparable, shown.splitlines())
        ), code


def test_pages_that_are_run_elsewhere_are_named_there():
    for page, test in ELSEWHERE.items():
        assert (pages.ROOT / page).name in (pages.ROOT / test).read_text()
        assert sum(b.page == page and b.language in RUN and not b.needs for b in ALL) == 1


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_a_block_has_a_language_and_a_valid_mark(block):
    assert block.language in pages.LANGUAGES
    assert block.needs is None or block.needs in pages.NEEDS
    # A study has a name, so that commands can use it. Other YAML is for a cluster.
    assert block.language != "yaml" or block.needs or block.path
    assert block.language != "dockerfile" or block.needs == "cloud"
    if block.language == "json":
        json.loads(block.text)


def test_no_mark_is_without_a_block():
    for page in pages.pages():
        text = (pages.ROOT / page).read_text()
        marked = sum(block.needs is not None for block in pages.blocks(page))
        assert text.count("<!-- needs:") == marked and "<!-- run:" not in text, page
        assert text.count("```") == 2 * len(pages.blocks(page)), page


@pytest.mark.parametrize(
    "page",  # the pages in AFTER change the code first
    sorted({block.page for block in ALL if block.language == "yaml"} - AFTER.keys()),
)
def test_studies_of_a_page_plan(page, tmp_path):
    for block in pages.blocks(page):
        if block.language == "yaml" and not block.needs:
            path = tmp_path / block.path
            path.write_text(block.text)
            study = study_file.load(path)
            assert study.search or planner.plan(study, DATA, IMPORTED).cells, block.name


@pytest.mark.parametrize(
    "block",
    [block for block in ALL if block.needs or block.page in ELSEWHERE],
    ids=lambda block: block.name,
)
def test_commands_that_are_not_run_parse(block):
    """Parse with click, which knows the commands and options of chexseg and Ray."""
    from ray.scripts.scripts import cli as ray
    from typer.main import get_command

    from chexseg.cli import app
    from chexseg.run.cluster_limits import ClusterLimits

    for words in pages.commands(block.text) if block.language in RUN else ():
        parse({"ray": ray, "chexseg": get_command(app)}[words[0]], words)
        for option, word in pairwise(words):
            if option == "--max-resources":
                assert ClusterLimits.parse(word).cpus > 1
            if word.startswith("studies/"):
                assert (pages.ROOT / word.partition("#")[0]).is_file(), word


def parse(command, words: list[str]) -> None:
    """Parse a command's arguments without running it; raise its `UsageError`."""
    context = command.make_context(words[0], words[1:])
    if getattr(command, "commands", None):
        rest = [*context._protected_args, *context.args]
        name, inner, more = command.resolve_command(context, rest)
        assert inner is not None, f"{words[0]} has no {rest[0]}"
        parse(inner, [name, *more])
