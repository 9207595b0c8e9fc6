"""Check the house rules: names, docstrings, line lengths, sizes, no mutual imports."""

from __future__ import annotations

import ast

import pytest

from chexseg.stages.registry import STAGES
from chexseg.store.store import STAGE_FOLDERS
from tests import house


@pytest.fixture(scope="module")
def violations() -> dict[str, list[str]]:
    return house.violations()


def test_few_variables_have_vague_names(violations):
    assert len(violations["vague names"]) <= house.MOST_VAGUE, violations["vague names"]


@pytest.mark.parametrize(
    "rule",
    ["relative docstrings", "long lines", "long modules", "large packages", "mutual imports"],
)
def test_the_package_keeps_the_rules(violations, rule):
    assert violations[rule] == []


def test_counting_finds_violations():
    source = "def f(found):\n    '''What it does.'''\n    told = 1\n" + "x" * 101
    tree = ast.parse(source)
    assert sorted(house.vague_names(tree)) == [(1, "found"), (3, "told")]
    assert list(house.relative_docstrings(tree)) == [(1, "What it does.")]
    assert [line for line, _ in house.long_lines(source)] == [4]
    assert house.imports(ast.parse("def f():\n    from chexseg.a import b"), {"chexseg.a.b"}) == {
        "chexseg.a.b"
    }


def test_a_store_has_one_folder_per_stage():
    assert tuple(STAGES) == STAGE_FOLDERS
