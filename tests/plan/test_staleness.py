"""Test why a result is stale: the nearest older result says what changed.

A changed default never makes an older result match.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import Field

from chexseg.config import study_file
from chexseg.plan import planner, staleness
from chexseg.plan.graph import Node, node_of
from chexseg.stages.configs import FitConfig, SaliencyConfig
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store
from tests.store.places import DATA, commit

STUDY = planner.plan(
    study_file.parse("name: s\naxes: {labels.p: [0.5, 1], trial: [0, 1]}", "x.yaml"), DATA
)
FULL, OTHER = (cell.fit for cell in STUDY.cells if cell.settings.labels.p == 1)


class OlderFit(FitConfig):
    """Describe an older config of `fit`: another default, and one unknown field."""

    clip_norm: float | None = Field(default=5.0, gt=0)


def a_fit(**changes) -> Node:
    node = STUDY.nodes[FULL]
    return node_of("fit", FitConfig(**{**node.config, **changes}), node.inputs)


def reasons(store: Store, key: str = FULL) -> dict[str, str]:
    return staleness.reasons(STUDY.nodes, [key], store)


def test_a_result_from_before_a_default_changed_is_never_found_and_says_what_changed(store):
    now = STUDY.nodes[FULL]
    given = {name: value for name, value in now.config.items() if name != "clip_norm"}
    then = node_of("fit", OlderFit(**given), now.inputs)
    assert FitConfig(**given).clip_norm is None  # not set in the study: only the default differs
    commit(store, then)
    assert store.find("fit", now.key) is None
    assert store.cached(STUDY.nodes.values()) == set()
    assert reasons(store) == {FULL: "fit.clip_norm: 5.0 then, null now"}


def test_a_field_that_an_older_result_did_not_know_is_told(store):
    now = STUDY.nodes[FULL]

    class Unknowing:
        def model_dump(self, mode):
            return {name: value for name, value in now.config.items() if name != "flips"} | {
                "gone": 1
            }

    commit(store, node_of("fit", Unknowing(), now.inputs))
    assert reasons(store) == {
        FULL: "fit.flips: absent then, false now; fit.gone: 1 then, absent now"
    }


def test_settings_that_were_added_since_are_no_difference(tmp_path):
    plan = planner.plan(study_file.parse("name: s\nsettings: {labels: {p: 0}}", "x.yaml"), DATA)
    (now,) = (node for node in plan.nodes.values() if node.stage == "classify")
    added = STAGES["classify"].config.ADDED
    assert len(added) > staleness.FEW

    class Earlier:
        def model_dump(self, mode):
            left = {name: value for name, value in now.config.items() if name not in added}
            return left | {"epochs": 2}

    store = Store(tmp_path / "store")
    commit(store, node_of("classify", Earlier(), now.inputs))
    assert staleness.reasons(plan.nodes, [now.key], store) == {
        now.key: "classify.epochs: 2 then, 3 now"
    }


def test_another_version_other_inputs_and_other_data_are_told(tmp_path, monkeypatch):
    now = STUDY.nodes[FULL]
    with monkeypatch.context() as patch:
        patch.setitem(STAGES, "fit", replace(STAGES["fit"], version=STAGES["fit"].version - 1))
        store = Store(tmp_path / "version")
        commit(store, node_of("fit", FitConfig(**now.config), now.inputs))
    assert reasons(store) == {
        FULL: f"version {STAGES['fit'].version - 1}, now {STAGES['fit'].version}"
    }
    store = Store(tmp_path / "inputs")
    commit(store, node_of("fit", FitConfig(**now.config), now.inputs | {"valid": "0" * 64}))
    assert reasons(store) == {FULL: "other valid"}
    store = Store(tmp_path / "data")
    ingest = STUDY.nodes[next(key for key, node in STUDY.nodes.items() if node.stage == "ingest")]
    commit(store, node_of("ingest", STAGES["ingest"].config(**ingest.config), {}, "other data"))
    assert reasons(store, ingest.key) == {ingest.key: "other data"}


def test_the_nearest_counts_and_of_equals_the_last(tmp_path):
    store = Store(tmp_path)
    commit(store, a_fit(clip_norm=1.0, learning_rate=0.5))
    assert reasons(store) == {
        FULL: "fit.clip_norm: 1.0 then, null now; fit.learning_rate: 0.5 then, null now"
    }
    commit(store, a_fit(learning_rate=0.25))
    assert reasons(store) == {FULL: "fit.learning_rate: 0.25 then, null now"}


def test_what_is_made_of_something_new_is_new_and_of_something_stale_is_stale(tmp_path):
    """Check a segmenter of another mixture: it and its scores are new, not stale."""
    mixed = next(cell for cell in STUDY.cells if cell.settings.labels.p < 1)
    fitted, scored = STUDY.nodes[mixed.fit], STUDY.nodes[mixed.score]
    store = Store(tmp_path)
    older = node_of(
        "score", STAGES["score"].config(**scored.config), scored.inputs | {"segmenter": "0" * 64}
    )
    commit(store, older)
    assert staleness.reasons(STUDY.nodes, [mixed.score, mixed.fit], store) == {}
    commit(store, node_of("fit", FitConfig(**{**fitted.config, "clip_norm": 1.0}), fitted.inputs))
    assert staleness.reasons(STUDY.nodes, [mixed.score, mixed.fit], store) == {
        mixed.fit: "fit.clip_norm: 1.0 then, null now",
        mixed.score: "other segmenter",
    }


@pytest.mark.parametrize(
    "other", ["many settings", "other roles", "of the plan itself", "of another stage"]
)
def test_what_is_another_result_altogether_is_no_reason(tmp_path, other):
    store = Store(tmp_path)
    now = STUDY.nodes[FULL]
    if other == "many settings":
        commit(store, a_fit(clip_norm=1.0, learning_rate=0.5, epochs=3, batch_size=2))
    elif other == "other roles":
        commit(store, node_of("fit", FitConfig(**now.config), now.inputs | {"train": "0" * 64}))
    elif other == "of the plan itself":
        commit(store, STUDY.nodes[OTHER])
    else:
        node = next(node for node in STUDY.nodes.values() if node.stage == "saliency")
        commit(store, node_of("saliency", SaliencyConfig(**node.config), {"valid": "0" * 64}))
    assert reasons(store) == {}


def test_a_setting_added_with_the_earlier_results_is_no_change(store):
    now = STUDY.nodes[FULL]
    earlier = {k: v for k, v in now.config.items() if k not in FitConfig.ADDED}
    commit(store, node_of("fit", {**earlier, "clip_norm": 5.0}, now.inputs))
    assert reasons(store) == {FULL: "fit.clip_norm: 5.0 then, null now"}
