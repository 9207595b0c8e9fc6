"""Test journals that Optuna applies although chexseg never writes them: one line, or left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chexseg.errors import UserError
from chexseg.search import journal, status
from chexseg.search.optuna_study import OptunaStudy, TrialCounts
from chexseg.store.store import Store
from tests.search.searches import finish, searched

Record = dict[str, Any]
P = "labels.p"
DONE = "2026-11-26T11:31:08.422675+00:00"


@pytest.fixture
def journal_of(tmp_path) -> Callable[..., Path]:
    """Return a function that writes the journal of a search with one point that was asked for.

    params: name -> value in place of the sampled one. more: records that follow. edit: changes
    each record.
    """

    def write(
        *more: Record,
        params: dict[str, Any] | None = None,
        edit: Callable[[Record], Record] = lambda record: record,
    ) -> Path:
        optuna_study = OptunaStudy(searched(), Store(tmp_path))
        path = journal.path_in(optuna_study.store)
        path.unlink(missing_ok=True)
        optuna_study.open()
        optuna_study.ask()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            if record.get("param_name") in (params or {}):
                record["param_value_internal"] = params[record["param_name"]]
        lines = [json.dumps(edit(record)) for record in (*records, *more)]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def record(kind: int, **content: Any) -> Record:
    return {"op_code": kind, "worker_id": "w", "trial_id": 0, **content}


def told(values: Any) -> Record:
    return record(6, state=1, values=values, datetime_complete=DONE)


def attribute(**values: Any) -> Record:
    return record(8, user_attr=values)


def counts(path: Path) -> TrialCounts:
    return OptunaStudy(searched(), Store(path.parents[1])).trial_counts()


def refused_everywhere(path: Path, words: str) -> None:
    """Check all ways of reading: status, points, and opening to go on."""
    store = Store(path.parents[1])
    for read in (
        lambda: status.summarise(searched(), store),
        lambda: OptunaStudy(searched(), store).points(),
        lambda: OptunaStudy(searched(), store).open(),
    ):
        with pytest.raises(
            UserError, match=r"journal.log: found .*expected an undamaged"
        ) as caught:
            read()
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({P: float("nan")}, "unusable records of trial 0 ("),
        ({P: "x"}, "unusable records of trial 0 ("),
        ({P: [0.5]}, "unusable records of trial 0 ("),
        ({P: None}, "unusable records of trial 0 ("),
        ({"labels.weak": 2}, "found "),
        ({"labels.weak": "x"}, "found "),
    ],
)
def test_settings_that_are_no_values_are_refused(journal_of, params, words):
    refused_everywhere(journal_of(told([0.5]), params=params), words)


@pytest.mark.parametrize("values", ["x", None, [], [0.1, 0.2], ["x"], [None], [True], 5])
def test_values_that_are_not_one_number_are_refused(journal_of, values):
    refused_everywhere(journal_of(told(values)), "")


@pytest.mark.parametrize(
    "values",
    [
        {"fits": 5},
        {"fits": None},
        {"fits": "abc"},
        {"fits": [1]},
        {"fits": [[1]]},
        {"fits": {"a": 1}},
        {"continues": [1]},
        {"continues": {}},
        {"key": [1]},
    ],
    ids=str,
)
def test_attributes_of_another_type_are_refused(journal_of, values):
    refused_everywhere(
        journal_of(attribute(**values), told([0.5])), "unusable records of trial 0 ("
    )


@pytest.mark.parametrize("step", [{"step": 0, "intermediate_value": "x"}, {"step": 0.5}])
def test_epochs_of_another_type_are_refused(journal_of, step):
    epoch = record(7, **{"step": 1, "intermediate_value": 0.5, **step})
    refused_everywhere(journal_of(epoch), "unusable records of trial 0 (")


@pytest.mark.parametrize("fixed", [{P: "x"}, {"labels.weak": "x"}, [1]])
def test_queued_points_of_no_values_are_refused(journal_of, fixed):
    refused_everywhere(
        journal_of(record(9, system_attr={"fixed_params": fixed})), "unusable records of trial 0 ("
    )


@pytest.mark.parametrize("directions", [[1], [], [2, 2]])
def test_a_search_for_anything_but_the_highest_miou_is_refused(journal_of, directions):
    def edit(record: Record) -> Record:
        return record | {"directions": directions} if "directions" in record else record

    refused_everywhere(journal_of(told([0.5]), edit=edit), "a study with the directions")


@pytest.mark.parametrize(
    "distribution",
    [
        {"name": "IntDistribution", "attributes": {"log": False, "step": 1, "low": 0, "high": 1}},
        {"name": "CategoricalDistribution", "attributes": {"choices": [None, True]}},
    ],
    ids=["whole numbers", "choices"],
)
def test_settings_of_another_kind_are_refused(journal_of, distribution):
    def edit(record: Record) -> Record:
        changed = {"param_value_internal": 0, "distribution": json.dumps(distribution)}
        return record | changed if record.get("param_name") == P else record

    refused_everywhere(journal_of(edit=edit), "unusable records of trial 0 (")


def fits_of(path: Path, more: Sequence[Record] = ()) -> list[str]:
    optuna_study = OptunaStudy(searched(), Store(path.parents[1]))
    (point,) = optuna_study.points()
    return [cell.fit for cell in optuna_study.search.plan([point]).cells]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -1])
def test_a_value_that_is_no_miou_is_not_the_best(journal_of, value):
    fits = fits_of(journal_of())
    found = counts(journal_of(attribute(fits=fits), told([value])))
    assert (found.done, found.value, found.point) == (1, None, None)
    assert found.note.endswith("1 trial left out, without fits or an mIoU from 0 to 1")


def test_a_trial_without_fits_is_not_the_best(journal_of):
    found = counts(journal_of(told([0.5])))
    assert (found.value, found.point) == (None, None)
    assert found.note.endswith("1 trial left out, without fits or an mIoU from 0 to 1")


def test_settings_outside_the_space_are_not_the_best(journal_of):
    path = journal_of(attribute(fits=["a" * 64]), told([0.5]), params={P: 5e9})
    found = counts(path)
    assert (found.value, found.point) == (None, None)
    assert found.note.endswith("1 trial left out, with settings of no point")
    assert not OptunaStudy(searched(), Store(path.parents[1])).points()


def test_a_point_outside_the_space_is_not_tried_again(journal_of):
    path = journal_of(params={P: 5e9})
    optuna_study = OptunaStudy(searched(), Store(path.parents[1]))
    optuna_study.open()
    optuna_study.resume()
    _, point = optuna_study.ask()
    assert 0 <= point[P] <= 1


def test_a_value_that_the_store_cannot_confirm_is_said_to_be_the_journals(journal_of):
    fits = fits_of(journal_of())
    path = journal_of(attribute(fits=fits), told([0.5]))
    store = Store(path.parents[1])
    found, text = counts(path), status.summarise(searched(), store).status_text()
    assert (found.value, found.confirmed, found.note) == (0.5, False, None)
    assert (
        "best: mIoU 0.500 on the selection images by the journal alone (its fits are gone)" in text
    )
    planned = searched().plan([found.point])
    for key in fits:
        finish(store, planned, key, 0.25)
    found, text = counts(path), status.summarise(searched(), store).status_text()
    assert (found.value, found.confirmed) == (0.25, True)
    assert "best: mIoU 0.250 on the selection images, a point of this search" in text
