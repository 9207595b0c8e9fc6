"""Test YAML that people don't write: refused at once with its line, however large it expands to."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from chexseg import resolve
from chexseg.config import study_file, yaml_source
from chexseg.errors import UserError

CASES = Path(__file__).resolve().parents[2].parent / "shared/cases"
#: Each line has ten times the values of the line before: a list of lists, and merged mappings.
LISTS = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]" for n in range(1, 30))]
MERGED = [
    "a0: &a0 {x: 1}",
    *(f"a{n}: &a{n} {{<<: [{', '.join(10 * [f'*a{n - 1}'])}]}}" for n in range(1, 30)),
]


@pytest.mark.parametrize("lines", [LISTS, MERGED], ids=["lists", "merged"])
def test_aliases_that_expand_without_end_are_refused(lines):
    with pytest.raises(
        UserError,
        match=r"^x.yaml:\d+: found aliases that expand to more than 10,000 values; "
        r"expected: fewer$",
    ):
        yaml_source.read("\n".join(lines), "x.yaml")


def test_the_case_beside_this_checkout_is_refused():
    path = CASES / "bombs/aliases.yaml"
    if not path.is_file():
        pytest.skip("../shared/cases is not beside this checkout")
    with pytest.raises(UserError, match="aliases that expand to more than 10,000 values"):
        study_file.load(path)


def test_aliases_that_people_write_are_read():
    """Check also a file with more values, none of them aliased, than aliases may expand to."""
    text = "base: &base {a: 1, b: [2, 3]}\nuses:\n" + "  - *base\n" * 1000
    assert yaml_source.read(text, "x.yaml").content["uses"] == [{"a": 1, "b": [2, 3]}] * 1000
    values = list(range(yaml_source.MOST_ALIASED + 1))
    assert yaml_source.read(f"values: {values}", "x.yaml").content == {"values": values}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: &b\n  c: [*b]", "x.yaml:2: found an alias of a value that contains it"),
        (
            "a: " + 900 * "[",
            "x.yaml: found lists or mappings nested hundreds deep; expected: fewer levels",
        ),
        (
            "a: " + 900 * "[" + 900 * "]",
            "x.yaml: found lists or mappings nested hundreds deep; expected: fewer levels",
        ),
        ("a: 1\nb: 1" + 400 * "0", "x.yaml:2: found a number of 401 digits; expected: at most 100"),
        ("a: 2026-99-99", "x.yaml: not YAML (month must be in 1..12)"),
        ("a: !!int x", "x.yaml: not YAML (invalid literal for int() with base 10: 'x')"),
        ("a: !!bool x", "x.yaml: not YAML ('x')"),
        ("a: !!int ''", "x.yaml: not YAML (string index out of range)"),
        ("a: !!timestamp x", "x.yaml: not YAML ('NoneType' object has no attribute 'groupdict')"),
    ],
)
def test_what_the_parser_raises_is_one_line(text, message):
    with pytest.raises(UserError) as caught:
        yaml_source.read(text, "x.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        'a: 1\nb: "x \\ud800 y"',
        'a: 1\nb:\n  - "\\uDC00"',
        'a: 1\nb: {"k\\ud800": 1}',
        'a: 1\nb: "\\ud83d\\ude00"',
    ],
)
def test_text_that_no_file_can_contain_is_refused(text):
    with pytest.raises(UserError, match=r"^x.yaml:[23]: found the lone surrogate \\ud"):
        yaml_source.read(text, "x.yaml")
    assert yaml_source.read('a: "\\U0001F600"', "x.yaml").content == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    "number", ["010", "0500", "-010", "0_7", "1:30", "1:30.5", '!!int "010"', "[1, 007]"]
)
def test_numbers_that_yaml_does_not_read_as_decimal_are_refused(tmp_path, number):
    expected = "an octal or sexagesimal number in YAML; expected: a decimal number"
    with pytest.raises(UserError, match=rf"^x.yaml:2: found -?[0-9:._]+, {expected}"):
        yaml_source.read(f"a: 1\nb: {number}", "x.yaml")
    with pytest.raises(UserError, match=rf"^--set seed=.*: found -?[0-9:._]+, {expected}"):
        resolve.read([], tmp_path, None, [f"seed={number}"])


def test_other_numbers_are_read_as_they_were():
    text = "[0, 10, -3, 0.5, 0.05, 1e-3, 0x1f, 1_000, '010', '1:30', 08]"
    values = [0, 10, -3, 0.5, 0.05, "1e-3", 31, 1000, "010", "1:30", "08"]
    assert yaml_source.read(text, "x.yaml").content == values


@pytest.mark.parametrize("value", ["2026-99-99", "!!int x", "{a: 1, a: 2}", "[&a [*a]]"])
def test_values_of_set_are_read_alike(tmp_path, value):
    with pytest.raises(
        UserError,
        match="^--set fit.epochs=.*: found a value that is not YAML; expected KEY=VALUE, such as "
        "fit.epochs=5$",
    ):
        resolve.read([], tmp_path, None, [f"fit.epochs={value}"])


def test_a_grid_without_end_is_refused_before_it_is_gone_through():
    axes = "\n".join(
        f"  {name}: {list(range(2, 102))}"
        for name in ("fit.epochs", "trial", "fit.batch_size", "moco.epochs")
    )
    with pytest.raises(
        UserError,
        match="^x.yaml:2: axes: found 100,000,000 combinations of values; expected: at most "
        "1,000,000$",
    ):
        study_file.parse(f"name: s\naxes:\n{axes}", "x.yaml")


@pytest.mark.parametrize("item", ["{? *k : 1}", "*k", "{a: *k}"])
def test_aliases_of_a_long_text_are_refused_before_they_are_expanded(item):
    text = f"first: &k {'k' * 10_000}\nlist:\n" + f"- {item}\n" * 2_000
    tracemalloc.start()
    with pytest.raises(UserError, match=r"^x.yaml:3: found more than 10,000,000 characters"):
        yaml_source.read(text, "x.yaml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # 20 MB of the first kind's keys


def test_a_long_key_counts_for_each_value_below_it():
    text = f"? {'k' * 100_000}\n:\n" + "".join(f" a{n}: 1\n" for n in range(200))
    with pytest.raises(UserError, match=r"^x.yaml:1: found more than 10,000,000 characters"):
        yaml_source.read(text, "x.yaml")
