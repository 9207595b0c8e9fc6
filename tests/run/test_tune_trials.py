"""Test what Ray Tune is given of a run, without a Ray."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

from ray import cloudpickle, tune
from ray.tune.search import Searcher

from chexseg.config import study_file
from chexseg.run import tune_trials
from chexseg.run.cluster import Capacity


def test_what_tune_pickles_for_each_trial_is_small():
    """A name that was made from the run was pickled with all of its cells, twice for each trial."""
    study, capacity = study_file.parse("name: small\n", "small.yaml"), Capacity(1, 0, 2, 0)
    with mock.patch.object(tune, "Tuner") as tuner:
        tune_trials.run_trials(print, {"job": None}, capacity, study, Searcher())
    config = tuner.call_args.kwargs["tune_config"]
    creators = config.trial_name_creator, config.trial_dirname_creator
    assert all(len(cloudpickle.dumps(creator)) < 100 for creator in creators)
    trial = SimpleNamespace(trial_id="1f", config={"name": "cam p=0.5 trial 1"})
    assert [creator(trial) for creator in creators] == ["cam_p=0.5_trial_1", "1f"]
