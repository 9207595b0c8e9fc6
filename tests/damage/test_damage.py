"""Test that damage is found, mended or harmless: no traceback, no other result without a word."""

from __future__ import annotations

import pytest

from tests.damage.damages import DAMAGES
from tests.damage.kinds import COMMANDS, KINDS, Kind
from tests.damage.matrix import OUTCOMES, Matrix, place_in
from tests.damage.page import PAGE, row
from tests.in_process import in_this_ray, without_ray


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    with without_ray():
        yield Matrix(place_in(tmp_path_factory.mktemp("damage")))


@pytest.fixture(scope="module")
def matrix_on_ray(ray_session, tmp_path_factory):
    with in_this_ray():
        yield Matrix(place_in(tmp_path_factory.mktemp("ray")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damage_is_found_mended_or_harmless(matrix: Matrix, kind: Kind):
    outcomes = matrix.outcomes(kind)
    words = {outcome for of_damage in outcomes.values() for outcome in of_damage.values()}
    assert words <= OUTCOMES.keys(), "\n".join(sorted(words - OUTCOMES.keys()))
    page = PAGE.read_text()
    for command in kind.noticed:
        assert row(kind.name, command, outcomes) in page, "run: python -m tests.damage"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("state of a killed training", "truncated"),
        ("shard of a killed stage", "one bit flipped"),
        ("weights of a segmenter", "another file"),
        ("manifest of a fit", "empty"),
    ],
)
def test_a_run_on_ray_has_the_outcome_of_one_without(matrix_on_ray: Matrix, name: str, how: str):
    kind = next(kind for kind in KINDS if kind.name == name)
    table = PAGE.read_text().partition("\n## `run`")[2]
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} "))
    expected = dict(zip(DAMAGES, map(str.strip, line.strip("|").split("|")[1:]), strict=True))
    assert matrix_on_ray.outcome(kind, how, "run") == expected[how]


def test_the_page_has_a_row_for_each_kind_and_a_table_for_each_command():
    tables = PAGE.read_text().split("\n## ")[1:]
    assert [table.partition("\n")[0] for table in tables] == [f"`{name}`" for name in COMMANDS]
    for command, table in zip(COMMANDS, tables, strict=True):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.splitlines()
            if line.startswith("|")
        ]
        assert head == ["file", *DAMAGES]
        assert [row[0] for row in rows] == [k.name for k in KINDS if command in k.noticed]
        assert {cell for row in rows for cell in row[1:]} <= OUTCOMES.keys()
