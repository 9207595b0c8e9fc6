"""Test the comparison of an axis' values: it has the numbers of the study's report."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from chexseg.analysis import axis_comparison
from chexseg.analysis.study_analysis import analyse
from chexseg.cli import app
from chexseg.errors import UserError
from chexseg.report import compare_page
from chexseg.report.page.overview import answer_sentences, effects_sentences
from chexseg.store.store import Store
from tests.analysis import stores
from tests.analysis.test_axis_effects import ADDITIVE, made

LEVELS = ADDITIVE | {("focal", "9"): 0.16}


def test_an_axis_has_the_effect_of_the_report():
    results = made(LEVELS)
    report, one = analyse(results).answer, axis_comparison.compare("made.yaml", "loss", results)
    expected = report.effects[report.effects["axis"] == "loss"].reset_index(drop=True)
    assert len(report.effects) == 2 and len(expected) == 1
    pd.testing.assert_frame_equal(one.answer.effects, expected)
    pd.testing.assert_frame_equal(one.answer.interactions, report.interactions)
    pd.testing.assert_frame_equal(one.answer.ranking, report.ranking)
    # -0.005 is the mean of +0.04 at 5 epochs and -0.05 at 9.
    assert one.answer.effects["difference"].item() == pytest.approx(-0.005, abs=0.01)


def test_the_sentence_is_one_of_the_report(tmp_path):
    results = made(ADDITIVE)
    one = axis_comparison.compare("made.yaml", "loss", results)
    (sentence,) = effects_sentences(one.answer)
    assert sentence.startswith("Resolved over all arms: loss focal is higher than dice, +0.0")
    of_all = " ".join(answer_sentences(analyse(results)))
    assert sentence.removeprefix("Resolved over all arms: ").rstrip(".") in of_all
    page = compare_page.write_axis(one, tmp_path / "out")
    assert sentence in page.read_text().replace("&#39;", "'")
    assert '<button class="runs-button"' not in page.read_text(), "the page has no runs to show"
    (row,) = pd.read_csv(page.with_name("compare.csv")).to_dict("records")
    assert row["difference"] == pytest.approx(one.answer.effects["difference"].item())


def test_a_resolved_interaction_is_told_with_the_effects():
    """The mean effect alone would mislead: focal is better with 5 epochs, and worse with 9."""
    one = axis_comparison.compare("made.yaml", "loss", made(LEVELS))
    (row,) = one.answer.interactions.to_dict("records")
    assert row["difference"] == pytest.approx(-0.09, abs=0.02)
    change = f"{abs(row['difference']):.3f} less with epochs 9 than with epochs 5"
    assert f"But loss focal gains {change}." in effects_sentences(one.answer)
    additive = axis_comparison.compare("made.yaml", "loss", made(ADDITIVE))
    assert not any("gains" in sentence for sentence in effects_sentences(additive.answer))


@pytest.mark.parametrize("axis", ["fit.loss", "loss"])
def test_an_axis_may_have_its_name_or_the_end_of_it(axis):
    results = made(ADDITIVE)
    dotted = dataclasses.replace(results, axes=results.axes.rename(columns="fit.{}".format))
    assert axis_comparison.compare("made.yaml", axis, dotted).axis == "fit.loss"


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("lost", "found 'lost'; expected: an axis .*: 'fit.loss' or 'fit.epochs' .* mean 'loss'"),
        (
            "trial",
            "found 'trial'; expected: an axis .* finished cells: 'fit.loss' or 'fit.epochs'$",
        ),
    ],
)
def test_another_name_is_refused(axis, message):
    results = made(ADDITIVE)
    dotted = dataclasses.replace(results, axes=results.axes.rename(columns="fit.{}".format))
    with pytest.raises(UserError, match=message):
        axis_comparison.compare("made.yaml", axis, dotted)


def test_an_end_that_two_axes_have_is_refused():
    results = made(ADDITIVE)
    axes = results.axes.set_axis(["encoder.architecture", "irnet.architecture"], axis=1)
    with pytest.raises(UserError, match="'encoder.architecture' or 'irnet.architecture'$"):
        both = dataclasses.replace(results, axes=axes)
        axis_comparison.compare("made.yaml", "architecture", both)


def test_too_many_arms_are_refused(monkeypatch):
    monkeypatch.setattr(axis_comparison, "MOST_ARMS", 3)
    with pytest.raises(UserError, match="found 4 arms; expected: at most 3 for --axis"):
        axis_comparison.compare("made.yaml", "loss", made(ADDITIVE))


def test_arms_that_differ_in_more_than_the_axis_are_refused():
    levels = {point: ADDITIVE[point] for point in (("dice", "5"), ("focal", "9"))}
    with pytest.raises(UserError, match="no two finished arms that differ in loss alone"):
        axis_comparison.compare("made.yaml", "loss", made(levels))


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory, phantom_root):
    """Return a function that runs `compare` on a study of two p, of which one cell isn't scored."""
    folder = tmp_path_factory.mktemp("axis")
    study, store = stores.write_study(folder / "small.yaml"), Store(folder / "store")
    plan = stores.plan_of(study, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells[:-1])

    def run(*words):
        options = ["--store", str(folder / "store"), "--out", str(folder / "out")]
        options += ["--data", str(phantom_root)]
        texts = [word.replace("STUDY", str(study)) for word in words]
        result = CliRunner().invoke(app, ["compare", *texts, *options])
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def test_the_command_prints_the_effect_and_what_a_test_lacks(command):
    result = command("STUDY", "--axis", "p")
    assert "3 of 4 cells finished; the others are left out" in result.stderr
    assert "Undecided (1 trial, a test needs 3): labels.p 1 instead of 0.5, +0." in result.stdout
    assert result.stdout.endswith("compare.html\n")


def test_the_command_has_one_json_document(command):
    document = json.loads(command("STUDY", "--axis", "labels.p", "--json").stdout)
    (effect,) = document["effects"]
    assert (effect["axis"], effect["value"], effect["against"]) == ("labels.p", "1", "0.5")
    by_arm = {row["arm"]: row["mIoU"] for row in document["ranking"]}
    assert len(by_arm) == 2 and effect["P"] is None and effect["verdict"] == "undecided"
    assert document["sentence"].startswith("Undecided") and document["interactions"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("STUDY",), "compare: found neither B nor --axis; expected: one of them"),
        (("STUDY", "STUDY", "--axis", "p"), "found both B and --axis; expected: one of them"),
        (("STUDY#full", "--axis", "p"), "#full: found with --axis; expected: a whole study"),
        (("masks.json", "--axis", "p"), "masks.json: found with --axis; expected: a whole study"),
        (("STUDY", "--axis", "p", "--gt", "gt.json"), "--gt: found beside --axis"),
    ],
)
def test_a_command_line_that_does_not_fit_is_refused(command, words, message):
    with pytest.raises(UserError, match=message):
        command(*words)
