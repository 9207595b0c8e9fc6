"""Properties of study files: any mapping gives a plan, or one line with its file or option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chexseg import resolve
from chexseg.config import study_file, yaml_source
from chexseg.config.settings import setting_names
from chexseg.config.study import StudyFile
from chexseg.errors import UserError
from chexseg.plan import planner
from tests.properties.documents import json_values, numbers, one_line

DATA = {"train": "a", "valid": "b", "test": "c"}
IMPORTED = {("chexpert", "resnet18"): "0" * 64}
#: Words that are values of some setting.
WORDS = ("cam", "irnet", "random", "moco", "imagenet", "otsu", "selection", "auto", "resnet18")
plain = st.one_of(
    numbers.filter(lambda number: abs(number) < 10**100 or isinstance(number, float)),
    st.integers(0, 200).map(lambda number: 32 * number),
    st.floats(0, 1),
    st.sampled_from([*WORDS, True, False, None]),
)
values = st.one_of(plain, st.lists(plain, max_size=3), json_values)
NAMES = sorted(setting_names())
keys = st.one_of(st.sampled_from(NAMES), st.text(max_size=6))
dotted = st.dictionaries(keys, values, max_size=3)


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Return dotted settings as nested mappings."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        inner = out
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = value
    return out


studies = st.fixed_dictionaries(
    {"name": st.one_of(st.just("s"), values)},
    optional={
        "axes": st.one_of(
            st.dictionaries(keys, st.one_of(st.lists(plain, min_size=1, max_size=3), values)),
            values,
        ),
        "also": st.one_of(st.lists(dotted, max_size=2), values),
        "settings": st.one_of(dotted.map(nested), values),
        "resources": st.one_of(
            st.dictionaries(st.sampled_from(["cpu", "gpu", "workers", "stage_workers"]), plain),
            values,
        ),
        "search": st.one_of(
            st.dictionaries(st.sampled_from(["trials", "pruner", "sampler"]), plain), values
        ),
        "studies": st.one_of(st.lists(st.text(max_size=5), max_size=2), values),
    },
)


def plan_or_line(text: str, where: str = "x.yaml") -> None:
    """Check that a study file's text gives a plan, or one line that begins with its name."""
    try:
        study = study_file.parse(text, where)
        if study.search is None:
            planner.plan(study, DATA, IMPORTED)
    except UserError as error:
        assert all(map(one_line, getattr(error, "lines", [error])))


@given(studies)
def test_any_mapping_is_a_plan_or_one_line(document):
    # As JSON would: YAML's own writer has no surrogates, and writes aliases for equal parts.
    plan_or_line(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))


@pytest.mark.parametrize("key", StudyFile.model_fields)
@pytest.mark.parametrize(
    "value", ["", "[]", "{}", "[[]]", "{a: {b: c}}", "~", "1e999", ".nan", "x"]
)
def test_any_type_under_any_key_is_a_plan_or_one_line(key, value):
    plan_or_line(f"name: s\n{key}: {value}\n" if key != "name" else f"name: {value}\n")


@given(st.text())
def test_any_text_is_a_plan_or_one_line(text):
    plan_or_line(text)


@given(st.text(max_size=20), st.sampled_from(NAMES))
def test_any_value_of_set_is_a_plan_or_one_line(text, name):
    settings: Callable[..., Any] = resolve._settings
    try:
        study_file.parse("name: s", "x.yaml", settings([f"{name}={text}"]))
    except UserError as error:
        assert one_line(error)


@given(
    st.recursive(plain, lambda part: st.lists(part) | st.dictionaries(st.text(max_size=3), part))
)
def test_what_is_written_is_read(value):
    text = yaml.safe_dump({"key": value}, allow_unicode=True)
    try:
        document = yaml_source.read(text, "x.yaml")
    except UserError as error:
        assert one_line(error, "x.yaml:")
    else:
        assert repr(document.content) == repr(yaml.safe_load(text))
