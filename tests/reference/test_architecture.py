"""Test docs/explanation/architecture.md: its table, its pictures and its path through the code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.stages.registry import STAGES
from docs import build_pictures
from tests.reference.pages import ROOT, read

PAGE = "explanation/architecture.md"
ALL_STAGES = """
name: all-stages
axes:
  encoder.init: [chexpert, moco, imagenet]
  labels.weak: [cam, irnet]
  labels.p: [0.5, 1]
settings: {irnet: {architecture: resnet18, init: imagenet}}
also:
  - {distil.fraction: 0.5}
"""


def packages() -> Iterator[str]:
    """Yield the dotted names of the packages and top-level modules of chexseg."""
    for path in sorted((ROOT / "chexseg").rglob("__init__.py")):
        if path.parent.name != "chexseg":
            yield ".".join(path.parent.relative_to(ROOT / "chexseg").parts)
    for path in sorted((ROOT / "chexseg").glob("*.py")):
        if not path.name.startswith("__"):
            yield path.stem


def test_the_table_has_every_package_with_its_docstring():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", read(PAGE), re.MULTILINE))
    assert rows == {
        name: build_pictures.sentence(name.replace(".", "/")).replace("|", "\\|")
        for name in packages()
    }


@pytest.mark.parametrize("name", ["packages.svg", "data-flow.svg"])
def test_picture_is_up_to_date(name):
    assert read(f"images/{name}") == build_pictures.pictures()[name], (
        "run: python -m docs.build_pictures"
    )
    assert f"../images/{name}" in read(PAGE)


def test_the_picture_of_the_packages_has_the_layers_of_import_linter():
    order = [
        package for row in build_pictures.ROWS.values() for column in row for package in column
    ]
    layers = build_pictures.layers()
    assert sorted(order) == sorted(set().union(*layers))
    depth = {package: number for number, layer in enumerate(layers) for package in layer}
    assert [depth[package] for package in order] == sorted(depth[package] for package in order)


def test_the_picture_of_the_data_has_the_inputs_of_every_stage():
    study = study_file.parse(ALL_STAGES, "all.yaml")
    data = {"train": "a", "valid": "b", "test": "c"}
    nodes = planner.plan(study, data, {("imagenet", "resnet18"): "0" * 64}).nodes
    assert {node.stage for node in nodes.values()} == set(STAGES)
    inputs = {
        (nodes[key].stage, node.stage) for node in nodes.values() for key in node.inputs.values()
    }
    drawn = {arrow for arrow in build_pictures.ARROWS if set(arrow) <= set(STAGES)}
    assert drawn <= inputs
    assert {arrow for arrow in inputs - drawn if arrow[0] != "ingest"} == set()
    # As the picture's note says.
    readers = {stage for source, stage in inputs if source == "ingest"}
    assert readers == set(STAGES) - {"ingest", "imported"}


def test_the_path_through_the_code_names_files_that_exist():
    path = read(PAGE).partition("## An hour in the code")[2]
    names = re.findall(r"`(\w+(?:/[\w.]+)+\.\w+|cluster\.yaml)`", path)
    assert len(names) >= 12
    for name in names:
        assert (ROOT / name).is_file() or (ROOT / "chexseg" / name).is_file(), name


def test_the_page_is_at_most_two_pages_long():
    assert len(read(PAGE).splitlines()) <= 120
