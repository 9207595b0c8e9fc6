"""Test the status of a plan against a store: states of cells and stages, and their summary."""

from __future__ import annotations

from chexseg.config import study_file
from chexseg.plan import planner, status
from chexseg.store.store import Store
from tests.store.places import DATA, commit

STUDY = planner.plan(
    study_file.parse("name: s\naxes: {labels.p: [0.5, 1], trial: [0, 1]}", "x.yaml"), DATA
)
MIXED, _, FULL, OTHER = STUDY.cells
IMAGES = {"train": 100, "valid": 20, "test": 10}


def states(store: Store) -> dict[str, str]:
    summary = status.summarise(STUDY, store, explain_stale=True)
    return {cell.name: summary.cell_state(cell.score) for cell in STUDY.cells}


def test_a_cell_is_missing_then_running_then_done(tmp_path):
    store = Store(tmp_path)
    assert set(states(store).values()) == {"missing"}
    with store.working_on(STUDY.nodes[FULL.fit]):
        assert states(store) == {**dict.fromkeys(states(store), "missing"), FULL.name: "running"}
    assert states(store)[FULL.name] == "missing", "a process that has gone runs nothing"
    commit(store, STUDY.nodes[FULL.fit])
    with store.working_on(STUDY.nodes[FULL.score]):
        assert states(store)[FULL.name] == "running"
    commit(store, STUDY.nodes[FULL.score])
    assert states(store)[FULL.name] == "done"


def test_a_stage_that_cells_share_is_under_way_for_itself(tmp_path):
    store = Store(tmp_path)
    shared = next(node for node in STUDY.nodes.values() if node.stage == "saliency")
    with store.working_on(shared):
        summary = status.summarise(STUDY, store)
        assert summary.status_dict()["running"] == ["saliency"]
        assert "\nrunning\n  saliency\n" in summary.status_text()
        assert {summary.cell_state(cell.score) for cell in STUDY.cells} == {"missing"}


def test_what_failed_upstream_fails_its_cells_with_the_reason(tmp_path):
    store = Store(tmp_path)
    shared = next(node for node in STUDY.nodes.values() if node.stage == "classify")
    store.record_failure(shared, "RuntimeError: no memory", "Traceback ...")
    states = {
        cell["name"]: (cell["state"], cell["error"])
        for cell in status.summarise(STUDY, store).status_dict()["cells"]
    }
    assert states[MIXED.name] == ("failed", "classify: RuntimeError: no memory")
    assert states[FULL.name] == ("missing", None)


def test_a_stale_cell_names_the_first_thing_that_changed(tmp_path):
    store = Store(tmp_path)
    older = planner.plan(
        study_file.parse(
            "name: s\naxes: {trial: [0, 1]}\nsettings: {pretrain: {epochs: 9}}", "x.yaml"
        ),
        DATA,
    )
    for node in older.nodes.values():
        commit(store, node)
    summary = status.summarise(STUDY, store, IMAGES, explain_stale=True)
    cells = {
        cell["name"]: (cell["state"], cell["change"]) for cell in summary.status_dict()["cells"]
    }
    assert cells[FULL.name] == cells[OTHER.name] == ("stale", "pretrain.epochs: 9 then, 3 now")
    assert "note: stale: pretrain.epochs: 9 then, 3 now" in summary.plan_text()
    assert summary.plan_dict()["expected_seconds"] > 0


def test_a_plan_says_what_it_leaves_out_and_that_two_trials_have_no_test(tmp_path):
    def notes(axes: str) -> list[str]:
        plan = planner.plan(study_file.parse(f"name: s\naxes: {axes}", "x.yaml"), DATA)
        return status.summarise(plan, Store(tmp_path), IMAGES).warnings()

    unneeded = "won't run, because nothing needs the result: ingest train"
    untested = "with 2 trials no comparison of cells can be tested: a test needs 3"
    encoder = "encoder.init: [random]"
    _, *rest = notes(f"{{fit.epochs: [3, 4], trial: [0, 1], {encoder}}}")
    assert rest == [unneeded, untested]
    _, *rest = notes(f"{{fit.epochs: [3, 4], trial: [0, 1, 2], {encoder}}}")
    assert rest == [unneeded]
    _, *rest = notes(f"{{fit.epochs: [3, 4], draw: [0, 1, 2], {encoder}}}")
    assert rest == [unneeded], "draws are trials too"
    _, *rest = notes(f"{{trial: [0, 1], {encoder}}}")
    assert rest == [unneeded], "one arm, so there is nothing to compare"
    _, *rest = notes("{fit.epochs: [3, 4], trial: [0, 1]}")
    assert rest == [untested], "the encoder is trained on these images"


def test_the_states_of_cells_stand_below_each_other(tmp_path):
    plan = planner.plan(
        study_file.parse(
            "name: s\naxes: {fit.loss: [class-average-dice, cross-entropy], trial: [0],"
            " encoder.architecture: [resnet18, mobilenet_v2]}",
            "x.yaml",
        ),
        DATA,
    )
    lines = status.summarise(plan, Store(tmp_path), IMAGES).plan_text().splitlines()[-4:]
    starts = {line.index(" missing") for line in lines}
    assert len(starts) == 1 and len({len(cell.name) for cell in plan.cells}) > 1


def test_costs_are_counted_for_what_will_run(tmp_path):
    store = Store(tmp_path)
    before = status.summarise(STUDY, store, IMAGES).plan_dict()
    for key, node in STUDY.nodes.items():
        if node.stage != "score":
            commit(store, STUDY.nodes[key])
    after = status.summarise(STUDY, store, IMAGES).plan_dict()
    scores = [stage["expected_seconds"] for stage in after["stages"] if stage["stage"] == "score"]
    assert 0 < after["expected_seconds"] < before["expected_seconds"]
    assert abs(after["expected_seconds"] - sum(scores)) < 0.5
