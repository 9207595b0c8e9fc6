"""Test the limits of a growing cluster: syntax, the room that they make, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from typer.testing import CliRunner

from chexseg import cli
from chexseg.config import study_file
from chexseg.config.study import Resources
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.progress import Quiet
from chexseg.run import scheduler
from chexseg.run.cluster import Capacity
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.store.store import Store

HEAD = Capacity(cpus=7, gpus=0, node_cpus=8, node_gpus=0)
GPUS = Resources(cpu=1, gpu=0.25)


def test_it_is_read_as_it_is_written():
    assert (
        ClusterLimits.parse("GPU=8,CPU=64")
        == ClusterLimits.parse(" CPU=64 , GPU=8")
        == ClusterLimits(cpus=64, gpus=8)
    )
    assert ClusterLimits.parse("GPU=8") == ClusterLimits(gpus=8)
    assert ClusterLimits.parse(None) == CURRENT_SIZE == ClusterLimits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu=8", r"found 'gpu=8'; expected .* such as GPU=8,CPU=64.* \(did you mean 'GPU'\?\)"),
        ("8", "found '8'; expected"),
        ("GPU=8,CPU", "found 'CPU'; expected"),
        ("GPU=0.5", "found 'GPU=0.5'; expected"),
        ("GPU=-1", "found 'GPU=-1'; expected"),
        ("GPU=8,GPU=9", "found GPU twice in 'GPU=8,GPU=9'; expected"),
        ("", "found ''; expected"),
    ],
)
def test_what_is_none_is_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=f"^--max-resources: {message}"):
        ClusterLimits.parse(text)


def test_as_many_cells_are_asked_for_as_the_grown_cluster_holds():
    grown = dataclasses.replace(HEAD, limits=ClusterLimits(cpus=64, gpus=8))
    assert HEAD.cells_at_once(GPUS) == 7, "without GPUs cells train on CPUs"
    assert grown.cells_at_once(GPUS) == 32
    assert grown.cells_at_once(Resources(cpu=4, gpu=0.25)) == 15, (
        "CPUs bound them, less the one for Ray Data"
    )
    assert grown.gpus_of(GPUS) == 0.25 and HEAD.gpus_of(GPUS) == 0
    assert grown.cells_at_once(Resources(cpu=12)) == 5, (
        "a node may come that is larger than those that are there"
    )
    with pytest.raises(UserError, match="resources.cpu: found 12; expected at most 7"):
        HEAD.cells_at_once(Resources(cpu=12))


def test_a_cluster_is_never_taken_for_smaller_than_it_is():
    capacity = Capacity(
        cpus=31, gpus=4, node_cpus=16, node_gpus=2, limits=ClusterLimits(cpus=8, gpus=1)
    )
    assert (capacity.max_cpus, capacity.max_gpus) == (31, 4)
    assert capacity.cells_at_once(Resources(gpu=2)) == 2


def test_one_machine_is_one_node_that_is_not_to_grow():
    assert HEAD.one_node
    assert not dataclasses.replace(HEAD, nodes=2).one_node, (
        "a head without CPUs and a worker with all of them"
    )
    assert not dataclasses.replace(HEAD, limits=ClusterLimits(cpus=64)).one_node


def test_cells_that_want_gpus_are_refused_on_a_cluster_without_and_told_of_on_a_laptop():
    note = HEAD.without_gpus(GPUS, None)
    assert note == "no GPU found: cells run on CPUs and `resources.gpu: 0.25` is ignored"
    with pytest.raises(
        UserError,
        match=r"^--address auto: .* no GPU; .*hint: --max-resources GPU=N.* --set resources.gpu=0",
    ):
        HEAD.without_gpus(GPUS, "auto")
    assert HEAD.without_gpus(Resources(), "auto") is None
    assert (
        dataclasses.replace(HEAD, limits=ClusterLimits(gpus=8)).without_gpus(GPUS, "auto") is None
    )
    assert dataclasses.replace(HEAD, gpus=1, node_gpus=1).without_gpus(GPUS, "auto") is None


@pytest.mark.parametrize("option", ["--max-resources", "--grow-to"])
def test_a_local_ray_can_not_grow(tmp_path, monkeypatch, option):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ran = CliRunner().invoke(
        cli.app, ["study", "run", "x.yaml", "--data", str(tmp_path), option, "GPU=8"]
    )
    assert isinstance(ran.exception, UserError)
    assert str(ran.exception).startswith("--max-resources: found without --address")


@pytest.mark.slow
def test_a_study_finishes_though_the_nodes_it_was_promised_never_come(
    ray_session, phantom_root, tmp_path
):
    """Run cells on all CPUs that exist, and read without a free one."""
    text = (
        "name: promised\naxes: {trial: [0, 1, 2, 3]}\nsettings: {size: 32, encoder: {init: "
        "random, architecture: mobilenet_v2}}\n"
    )
    small = {
        "labels.p": 1,
        "labels.expert_split": {"train": 8, "select": 4},
        "fit.epochs": 1,
        "fit.samples_per_epoch": 8,
    }
    planned = planner.plan(
        study_file.parse(text, "promised.yaml", small), planner.fingerprints(phantom_root)
    )
    outcome = scheduler.run(
        planned, Store(tmp_path / "store"), phantom_root, Quiet(), ClusterLimits(cpus=64)
    )
    assert outcome.failed == {} and set(outcome.computed) == {
        node.key for node in planned.needed(())
    }


def test_more_workers_of_a_stage_than_the_cluster_holds_are_refused():
    """The scheduler would never start such a stage, and end as if there were nothing to do."""
    four = Resources(stage_workers=4)
    with pytest.raises(UserError, match=r"stage_workers: found 4; expected at most 1, .* GPUs$"):
        dataclasses.replace(HEAD, gpus=1, node_gpus=1).workers(four)
    with pytest.raises(UserError, match=r"found 8; expected at most 7, the cluster's free CPUs$"):
        HEAD.workers(Resources(stage_workers=8))
    grown = dataclasses.replace(HEAD, limits=ClusterLimits(gpus=4)).workers(four)
    assert (grown.of("classify"), grown.of("saliency"), grown.on_gpu("classify")) == (4, 1, True)


def test_a_cell_that_fits_on_no_node_is_refused():
    """Its CPUs are on one node and its GPU on another: Ray would wait for ever."""
    mixed = Capacity(cpus=67, gpus=1, node_cpus=64, node_gpus=1, nodes=2, sizes=((64, 0), (4, 1)))
    assert mixed.cells_at_once(Resources(cpu=4, gpu=1)) == 1
    with pytest.raises(
        UserError, match="found cpu 8 and gpu 1 for a cell; .* such as cpu 4 and gpu 1"
    ):
        mixed.cells_at_once(Resources(cpu=8, gpu=1))
    grown = dataclasses.replace(mixed, limits=ClusterLimits(cpus=128, gpus=8))
    assert grown.cells_at_once(Resources(cpu=8, gpu=1)), "nodes of another size may come"
    assert mixed.stage_cpus == 4, "workers of a stage must fit beside the GPUs"
