"""Test the commands as users type them: output and exit codes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.cli import study
from chexseg.cli.options import DEFAULT_STORE

pytestmark = pytest.mark.heavy  # each command in a separate process

ROOT = Path(__file__).resolve().parent.parent


def chexseg(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "chexseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )


def test_nothing_heavy_is_imported_before_a_command_runs():
    code = (
        "import sys, chexseg.cli; print(sorted({'ray', 'torch', 'pandas', 'plotly', 'pyarrow'} & "
        "set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_plan_prints_45_cells_for_the_papers_48_combinations(phantom_root, tmp_path):
    arguments = (
        "study",
        "plan",
        "studies/improved/semi_supervised.yaml",
        "--data",
        phantom_root,
        "--store",
        tmp_path / "store",
    )
    text = chexseg(*arguments)
    # The phantom has fewer images than the paper: the plan is shown, then what is wrong.
    assert text.returncode == 2 and text.stderr.count("\n") == 2
    assert text.stdout.startswith("improved-semi-supervised: 45 distinct cells, 0 of them done")
    assert "48 combinations are 45 distinct cells" in text.stdout
    document = json.loads(chexseg(*arguments, "--json").stdout)
    assert len({cell["key"] for cell in document["cells"]}) == 45
    assert {stage["stage"] for stage in document["stages"]} == {
        "ingest", "classify", "pretrain", "saliency", "irnet", "fit", "score",
    }  # fmt: skip
    assert not (tmp_path / "store").exists()


def test_plan_and_status_of_a_search_that_never_ran(phantom_root, tmp_path):
    arguments = (
        "study",
        "plan",
        "studies/search.yaml",
        "--data",
        phantom_root,
        "--store",
        tmp_path / "store",
    )
    text = chexseg(*arguments).stdout
    assert "search: 8 points, each the mean of 2 trials; sampler tpe, pruner median" in text
    assert "at most 16 fits to come: ~" in text
    document = json.loads(chexseg(*arguments, "--json").stdout)
    assert document["cells"] == [] and document["search"]["space"]["labels.p"]["high"] == 1
    assert {stage["stage"] for stage in document["stages"]} == {
        "ingest",
        "classify",
        "pretrain",
        "saliency",
        "irnet",
    }
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    status = json.loads(chexseg("study", "status", *arguments[2:], "--json").stdout)
    assert not status["complete"] and status["search"]["best"] is None
    refused = chexseg(*arguments, "--set", "distil.fraction=0.5")
    assert refused.returncode == 2 and "studies/search.yaml: axes." in refused.stderr


def test_status_of_what_never_ran(phantom_root, tmp_path):
    arguments = (
        "study",
        "status",
        "studies/demo.yaml",
        "--data",
        phantom_root,
        "--store",
        tmp_path / "store",
    )
    assert "no such directory" in chexseg(*arguments).stderr
    (tmp_path / "store").mkdir()
    assert chexseg(*arguments).stdout.startswith("demo: 16 missing")
    document = json.loads(chexseg(*arguments, "--json").stdout)
    assert document["complete"] is False
    assert {cell["state"] for cell in document["cells"]} == {"missing"}


def test_a_phantom_is_written_whole_checked_and_never_overwritten(tmp_path):
    made = chexseg(
        "data",
        "phantom",
        "set",
        "--train",
        "6",
        "--valid",
        "4",
        "--test",
        "3",
        "--size",
        "64",
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == "set: 6 training, 4 validation and 3 test images\n"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    checked = chexseg("data", "check", "set", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    again = chexseg("data", "phantom", "set", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "chexseg: set: already exists; expected: a new or empty directory\n"


def test_a_phantom_with_a_prevalence_has_its_rare_findings_that_often(tmp_path):
    sizes = ("--train", "30", "--valid", "1", "--test", "1", "--size", "64")
    assert (
        chexseg("data", "phantom", "rich", *sizes, "--prevalence", "0.9", cwd=tmp_path).returncode
        == 0
    )
    with (tmp_path / "rich" / "CheXpert-v1.0-small" / "train.csv").open(newline="") as file:
        assert sum(row["Lung Lesion"] == "1.0" for row in csv.DictReader(file)) > 15
    wrong = chexseg("data", "phantom", "wrong", *sizes, "--prevalence", "1.5", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "prevalence: found 1.5; expected a number between 0 and 1" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def test_evaluate_says_1_for_the_truth_itself(phantom_root, tmp_path):
    truth = phantom_root / "CheXlocalize" / "gt_segmentations_test.json"
    answer = chexseg("evaluate", "--gt", truth, "--pred", truth, "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].endswith(",1.0")
    assert (tmp_path / "iou.csv").read_text().splitlines() == answer.stdout.splitlines()


def test_what_is_left_out_is_on_stderr_and_in_the_json(phantom_root, tmp_path):
    truth = phantom_root / "CheXlocalize" / "gt_segmentations_test.json"
    masks = {
        f"{image_id}.jpg": {"Edema": entry["Edema"]}
        for image_id, entry in json.loads(truth.read_text()).items()
    }
    (tmp_path / "edema.json").write_text(json.dumps(masks))
    answer = chexseg("evaluate", "--gt", truth, "--pred", tmp_path / "edema.json", "--json")
    assert answer.returncode == 0 and "edema.json: doesn't name 9 pathologies" in answer.stderr
    evaluated = json.loads(answer.stdout)
    assert evaluated["rows"][-1] == {"pathology": "mean", "n_images": len(masks), "iou": 1.0}
    assert len(evaluated["left_out"]["not_predicted"]) == 9
    assert answer.stderr == "".join(f"note: {note}\n" for note in evaluated["notes"])
    arguments = (
        "compare",
        truth,
        tmp_path / "edema.json",
        "--gt",
        truth,
        "--out",
        tmp_path / "out",
    )
    compared = json.loads(chexseg(*arguments, "--json").stdout)
    assert [row["difference"] for row in compared["rows"]] == [0, 0] and "+0.000" in compared[
        "sentence"
    ]
    assert Path(compared["page"]).is_file() and any(
        "are matched without" in note for note in compared["notes"]
    )
    masks = {f"x/{image_id}": entry for image_id, entry in masks.items()}
    (tmp_path / "other.json").write_text(json.dumps(masks))
    answer = chexseg("evaluate", "--gt", truth, "--pred", tmp_path / "other.json")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert min(masks) in answer.stderr and min(json.loads(truth.read_text())) in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ("study", "plan", "studies/demo.yaml", "--data", "nowhere"),
            ["nowhere", "no such directory"],
        ),
        (
            ("study", "plan", "studies/nothing.yaml", "--data", "."),
            ["studies/nothing.yaml", "cannot be read"],
        ),
        (
            ("study", "plan", "studies/demo.yaml", "--data", ".", "--set", "fit.epoch=3"),
            ["fit.epoch", "did you mean 'fit.epochs'"],
        ),
        (
            ("study", "run", "studies/demo.yaml", "--data", ".", "--store", "README.md"),
            ["README.md", "found a file"],
        ),
        (("data", "check", "nowhere"), ["nowhere", "no such directory"]),
        (("evaluate", "--gt", "README.md", "--pred", "README.md"), ["README.md", "not JSON"]),
        (("compare", "a.json", "b.json", "--out", "out"), ["neither --gt nor --data"]),
        (
            ("compare", "studies/demo.yaml", "b.json", "--out", "out"),
            ["--data", "studies/demo.yaml"],
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, parts):
    answer = chexseg(*arguments)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    for part in parts:
        assert part in answer.stderr


def test_plan_and_run_tell_all_mistakes_and_run_starts_no_ray(phantom_root, tmp_path):
    study, ray = tmp_path / "many.yaml", tmp_path / "no" / "ray"
    study.write_text(
        "name: many\n"
        "axes: {labels.weak_images: [10, 500]}\n"
        "settings:\n"
        "  size: 64\n"
        "  encoder: {init: moco}\n"
        "  labels: {p: 0.5, expert_split: {train: 20, select: 8}}\n"
        "  classify: {architecture: resnet18, batch_size: 64}\n"
        "  saliency: {layer: before-relu}\n"
        "also:\n"
        "  - {labels.p: 1, encoder.init: imagenet}\n"
    )
    ray.mkdir(parents=True)
    (ray / "__init__.py").write_text("raise SystemExit('Ray was imported')")
    environment = os.environ | {"PYTHONPATH": f"{ray.parent}{os.pathsep}{ROOT}"}
    layer = (
        f"chexseg: {study}:8: settings.saliency.layer: found before-relu for"
        " classify.architecture resnet18; expected after-relu, or densenet121"
    )
    most = "expected at most"
    encoder = (
        f"chexseg: {study}:10: also.0.encoder.init: found imagenet: no imagenet encoder of"
        " resnet18 is in the store; import one first: chexseg encoder import [FILE] --kind"
        f" imagenet --architecture resnet18 --store {tmp_path}/store"
    )
    split = (
        f"chexseg: {study}:6: settings.labels.expert_split: found train 20 + select 8 = 28;"
        f" {most} 14, the validation images with expert masks"
    )
    counts = [
        f"chexseg: {study}:7: settings.classify.batch_size: found 64; {most} 48,"
        " the number of training images",
        split,
        f"chexseg: {study}:2: axes.labels.weak_images: found 500; {most} 48,"
        " the training images with weak labels",
        f"chexseg: --set moco.queue: found 99; {most} 48, the number of training images",
    ]

    def told(command: str) -> list[str]:
        arguments = [study, "--data", phantom_root, "--store", tmp_path / "store"]
        answer = subprocess.run(
            [
                sys.executable,
                "-m",
                "chexseg",
                "study",
                command,
                *arguments,
                "--set",
                "moco.queue=99",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert answer.returncode == 2
        return answer.stderr.splitlines()

    for command in ("plan", "run"):
        assert told(command) == [layer, encoder, split]
    study.write_text(study.read_text().replace("saliency: {layer: before-relu}", "seed: 1"))
    study.write_text(study.read_text().replace("encoder.init: imagenet", "encoder.init: random"))
    for command in ("plan", "run"):
        assert sorted(told(command)) == sorted(counts)
    assert not (tmp_path / "store").exists()


def test_the_command_after_a_run_shows_its_results_or_failures():
    store = "s3://key:secret@bucket/store?endpoint_override=127.0.0.1%3A1"
    overrides = ["resources.cpu=2", "fit.epochs=5", "execution.trackers=[mlflow]"]
    arguments = Path("my study.yaml"), "data", store, overrides
    assert study.next_command(*arguments, failed=False) == (
        "chexseg report 'my study.yaml' --data data --store s3://bucket/store --set fit.epochs=5"
        " --out report"
    )
    assert study.next_command(Path("a.yaml"), "data", DEFAULT_STORE, None, failed=True) == (
        "chexseg study status a.yaml --data data"
    )
