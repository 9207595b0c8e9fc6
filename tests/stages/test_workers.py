"""A fit on two workers of Ray Train is the fit on one, and goes on after a worker's death."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from chexseg.errors import UserError
from chexseg.stages import fit
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.configs import FitConfig

from .conftest import CONTEXT, EXPERT
from .test_resume import Dying

pytestmark = pytest.mark.slow

MIXED = {**EXPERT, "p": 0.5, "weak": "cam", "weak_images": 12, "init": "random"}
TWO = replace(CONTEXT, train_workers=2, train_failures=1, checkpoint_seconds=0)


def inputs(results) -> dict:
    return {
        "train": results.paths["train"],
        "valid": results.paths["valid"],
        "weak": results.paths["saliency"],
    }


def test_two_workers_of_which_one_dies_are_one_after_ten_steps(ray_session, results, tmp_path):
    """Adam turns the sign of a gradient that is nothing but rounding into a whole step, so in float32 the rate must be low;
    tests/models/test_distributed.py compares at the paper's rate in float64. Running statistics tell at any rate whether
    both workers' images went into them."""
    config = FitConfig(
        **MIXED, epochs=2, samples_per_epoch=40, learning_rate=1e-6, checkpoint="last", flips=True
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    facts = fit.run(config, inputs(results), tmp_path / "one", CONTEXT)
    dying = replace(TWO, progress=Dying(tmp_path / "killed", 40 + 24))
    facts_two = fit.run(config, inputs(results), tmp_path / "two", dying)
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    alone, together = (load_file(tmp_path / name / SEGMENTER_WEIGHTS) for name in ("one", "two"))
    assert alone.keys() == together.keys()
    for name in alone:
        difference = (alone[name].double() - together[name].double()).abs() / (
            1 + alone[name].double().abs()
        )
        assert difference.max().item() < 1e-4, name
    losses = [
        [epoch["loss"] for epoch in json.loads((tmp_path / n / "history.json").read_text())]
        for n in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert facts_two["selection_miou"] == pytest.approx(facts["selection_miou"], abs=1e-3)
    assert facts_two["expert_share"] == facts["expert_share"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


def test_a_mistake_or_a_fault_on_several_workers_ends_all_of_them(ray_session, results, tmp_path):
    with pytest.raises(UserError, match="fit.batch_size: found 3; expected a multiple of 2"):
        fit.run(FitConfig(**MIXED, batch_size=3), inputs(results), tmp_path, TWO)
    with pytest.raises(
        RuntimeError,
        match=r"FloatingPointError: the loss is nan in step \d+, learning rate 1e\+30; images patient",
    ):
        fit.run(FitConfig(**MIXED, learning_rate=1e30), inputs(results), tmp_path, TWO)
