"""One node from the store to the store: its inputs and the raw data are what they were when it was planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from chexseg.config import study_file
from chexseg.data import chexlocalize, chexpert, shards
from chexseg.errors import UserError
from chexseg.plan import graph, planner
from chexseg.plan.graph import Node
from chexseg.run.execute import _prepare, execute
from chexseg.stages import fit, ingest, score
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.configs import ClassifyConfig, FitConfig
from chexseg.stages.registry import STAGES
from chexseg.store import manifest
from chexseg.store.store import Store
from tests.run.small_study import CONTEXT, STUDY, node_of, run
from tests.store.places import result_path


@pytest.fixture(scope="module")
def finished(phantom_root, tmp_path_factory) -> Store:
    """The study, run once; to be copied."""
    store = Store(tmp_path_factory.mktemp("finished"))
    planned = planner.plan(
        study_file.parse(STUDY, "small.yaml"), planner.fingerprints(phantom_root)
    )
    for node in planned.nodes.values():
        run(planned, store, phantom_root, node.stage)
    return store


@pytest.fixture
def copy(finished, tmp_path) -> Store:
    shutil.copytree(finished.backend.local, tmp_path / "store")
    return Store(tmp_path / "store")


def change_masks(root: Path) -> None:
    path = root / chexlocalize.FILES["test"]
    path.write_text(path.read_text().replace("Airspace Opacity", "Lung Opacity"))


def change_labels(root: Path) -> None:
    csv, _ = chexpert.locate(root, "test")
    csv.write_text(csv.read_text() + "\n")


def change_image(root: Path) -> None:
    path = Path(chexpert.read(root, "test")["path"].iloc[0])
    path.write_bytes(path.read_bytes() + b" ")


CHANGES = pytest.mark.parametrize("change", [change_masks, change_labels, change_image])


@CHANGES
def test_data_that_changes_between_plan_and_ingest_is_not_kept_under_the_plans_key(
    planned, store, root, change
):
    assert run(planned, store, root, "ingest", "valid")["data"] == planned.data["valid"]
    change(root)
    with pytest.raises(
        UserError, match="found other data in ingest test than this study was planned with"
    ) as caught:
        run(planned, store, root, "ingest", "test")
    assert str(caught.value).startswith(f"data root {root}: ")
    assert store.find("ingest", node_of(planned, "ingest", "test").key) is None
    assert store.backend.partials() == {}, "nothing is left to go on from"


def test_data_that_is_put_back_after_it_was_read_is_not_kept_either(
    planned, store, root, monkeypatch
):
    """Before and after are the same: what counts is what was read."""
    path = root / chexlocalize.FILES["test"]
    right = path.read_bytes()
    change_masks(root)
    read = chexlocalize.read

    def put_back(file):
        masks = read(file)
        path.write_bytes(right)
        return masks

    monkeypatch.setattr(chexlocalize, "read", put_back)
    with pytest.raises(UserError, match="than this study was planned with"):
        run(planned, store, root, "ingest", "test")
    assert path.read_bytes() == right and planner.fingerprints(root) == planned.data


def test_scores_at_the_images_own_size_are_of_the_masks_that_were_planned_with(planned, copy, root):
    shutil.rmtree(result_path(copy, "score", node_of(planned, "score").key))
    change_masks(root)
    with pytest.raises(
        UserError, match="found other data in score than this study was planned with"
    ):
        run(planned, copy, root, "score")
    assert copy.find("score", node_of(planned, "score").key) is None


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def flipped_weights(fitted: Path) -> None:
    flip(fitted / SEGMENTER_WEIGHTS, -5)


def flipped_thresholds(fitted: Path) -> None:
    path = fitted / "segmenter.json"
    flip(path, path.read_text().index('"thresholds"') + 20)


def another_fits_weights(fitted: Path) -> None:
    weights = load_file(fitted / SEGMENTER_WEIGHTS)
    save_file({name: value.flip(0) for name, value in weights.items()}, fitted / SEGMENTER_WEIGHTS)


@pytest.mark.parametrize("damage", [flipped_weights, flipped_thresholds, another_fits_weights])
def test_a_segmenter_that_is_not_what_was_fitted_is_not_scored_and_made_again(
    planned, copy, root, damage
):
    fitted, scored = node_of(planned, "fit"), node_of(planned, "score")
    shutil.rmtree(result_path(copy, "score", scored.key))
    before = (result_path(copy, "fit", fitted.key) / SEGMENTER_WEIGHTS).read_bytes()
    size = {
        path.name: path.stat().st_size for path in result_path(copy, "fit", fitted.key).iterdir()
    }
    damage(result_path(copy, "fit", fitted.key))
    assert {
        path.name: path.stat().st_size for path in result_path(copy, "fit", fitted.key).iterdir()
    } == size
    with pytest.raises(RuntimeError, match="not what its manifest says"):
        run(planned, copy, root, "score")
    assert copy.find("score", scored.key) is None
    assert copy.find("fit", fitted.key) is None, "so that the next run makes it again"
    run(planned, copy, root, "fit")
    run(planned, copy, root, "score")
    assert (result_path(copy, "fit", fitted.key) / SEGMENTER_WEIGHTS).read_bytes() == before


def test_a_classifier_is_not_trained_on_a_damaged_image(planned, copy, root):
    """And the shard is made again, also where it's a map worker that finds the damage."""
    train = node_of(planned, "ingest", "train")
    shard = Path(shards.files(result_path(copy, "ingest", train.key) / "images")[0])
    before = shard.read_bytes()
    flip(shard, len(before) // 2)
    inputs = {split: node_of(planned, "ingest", split).key for split in ("train", "valid")}
    node = graph.node_of("classify", ClassifyConfig(architecture="resnet18", epochs=1), inputs)
    with pytest.raises(RuntimeError, match=f"{shard.name}: not what its manifest says"):
        execute(node, planned.nodes, copy, root, CONTEXT)
    assert copy.find("ingest", train.key) is None
    run(planned, copy, root, "ingest", "train")
    assert shard.read_bytes() == before


def test_a_manifest_that_was_written_but_not_published_binds_no_later_try(
    planned, store, root, monkeypatch
):
    """Its process was killed in between; a file that comes out otherwise now may be read by its own stage."""
    train = node_of(planned, "ingest", "train")
    with store.working_on(train) as partial:
        partial.mkdir(parents=True)
        (partial / "notes.json").write_text("[1]")
        store.commit(train, partial, {}, 1.0)
        result_path(store, "ingest", train.key).rename(partial)

    def write_and_read(config, inputs, out, context):
        (out / "notes.json").write_text("[2]")
        return {
            "data": planned.data["train"],
            "notes": manifest.read_bytes(out / "notes.json").decode(),
        }

    monkeypatch.setattr(ingest, "run", write_and_read)
    assert run(planned, store, root, "ingest", "train")["notes"] == "[2]"


def test_shards_that_a_killed_ingest_left_of_other_data_are_no_part_of_the_result(
    planned, store, root
):
    train = node_of(planned, "ingest", "train")
    with store.working_on(train) as partial:
        (partial / "images").mkdir(parents=True)
        shards.write(
            partial / "images" / shards.part_name(7), shards.table({"image_id": ["stranger"]}, {})
        )
    run(planned, store, root, "ingest", "train")
    assert not any(
        "part-00007" in name for name in store.find("ingest", train.key).manifest["files"]
    )


def test_files_that_a_stage_run_has_not_noted_are_no_part_of_its_result(
    planned, store, root, monkeypatch
):
    """A shard copied from a run that had more of them, say."""
    train = node_of(planned, "ingest", "train")
    seen: list[list[str]] = []

    def write_one(config, inputs, out, context):
        seen.append(sorted(path.name for path in out.glob("images/*.parquet")))
        (out / "images").mkdir(exist_ok=True)
        shards.complete(out / "images" / shards.part_name(0), iter([shards.table({"a": [1]}, {})]))
        if len(seen) == 1:
            (out / "images" / shards.part_name(7)).write_bytes(b"not noted")
            raise OSError("No space left on device")
        return {"data": planned.data["train"]}

    monkeypatch.setattr(ingest, "run", write_one)
    with pytest.raises(RuntimeError, match="No space left"):
        run(planned, store, root, "ingest", "train")
    run(planned, store, root, "ingest", "train")
    assert seen == [[], [shards.part_name(0)]]
    files = store.find("ingest", train.key).manifest["files"]
    assert list(files) == [f"images/{shards.part_name(0)}"]


def test_files_behind_a_link_in_a_partial_directory_are_not_deleted(tmp_path):
    """Whoever may write to the store may place a link there at any time."""
    partial, outside = tmp_path / "partial", tmp_path / "outside"
    (partial / "images").mkdir(parents=True)
    outside.mkdir()
    for folder in (outside, partial / "images"):
        (folder / "thesis.txt").write_text("precious")
    (partial / "x").symlink_to(outside)
    (partial / "images" / "x").symlink_to(outside)
    _prepare(partial, "identity", {})
    assert (outside / "thesis.txt").exists()
    assert not (partial / "images" / "thesis.txt").exists()


@pytest.mark.parametrize(
    "error",
    [
        manifest.UnreadableManifestError("manifest.json", "cannot be read"),
        UserError("weights: cannot be read (Permission denied); expected: a readable file"),
    ],
    ids=["manifest", "weights"],
)
def test_an_input_that_cannot_be_read_now_deletes_no_work(planned, copy, root, monkeypatch, error):
    fitted = node_of(planned, "fit")
    shutil.rmtree(result_path(copy, "fit", fitted.key))

    def fail(config, inputs, out, context):
        (out / "resume.pt").write_bytes(b"hours of work")
        raise error

    monkeypatch.setattr(fit, "run", fail)
    with pytest.raises(UserError, match="cannot be read"):
        run(planned, copy, root, "fit")
    (partial,) = copy.backend.partials().values()
    assert (partial / "resume.pt").read_bytes() == b"hours of work"


@pytest.mark.parametrize(("stage", "written"), [("fit", None), ("ingest", "part")])
def test_an_error_of_the_user_leaves_neither_an_empty_directory_nor_files_of_raw_data(
    planned, copy, root, monkeypatch, stage, written
):
    node = node_of(planned, stage)
    shutil.rmtree(result_path(copy, stage, node.key))

    def refuse(config, inputs, out, context):
        if written:
            (out / written).write_bytes(b"x")
        raise UserError("batch_size: found 8; expected: at most 4")

    monkeypatch.setattr(STAGES[stage].load(), "run", refuse)
    with pytest.raises(UserError, match="batch_size"):
        execute(node, planned.nodes, copy, root, CONTEXT)
    assert not copy.backend.partials()


def test_work_that_does_not_say_what_it_was_made_from_is_begun_anew(
    planned, copy, root, monkeypatch
):
    """Another version of an input may have been read, as after a kill while a result was moved."""
    fitted = node_of(planned, "fit")
    shutil.rmtree(result_path(copy, "fit", fitted.key))
    with copy.working_on(fitted) as partial:
        partial.mkdir(parents=True)
        (partial / "training.json").write_text("{}")
    seen: list[list[str]] = []

    def fail(config, inputs, out, context):
        seen.append([path.name for path in out.glob("[!.]*")])
        raise OSError("No space left on device")

    monkeypatch.setattr(fit, "run", fail)
    with pytest.raises(RuntimeError, match="No space left"):
        run(planned, copy, root, "fit")
    assert seen == [[]]


def test_a_result_that_could_not_be_moved_is_resumed(planned, copy, root, monkeypatch):
    fitted = node_of(planned, "fit")
    shutil.rmtree(result_path(copy, "fit", fitted.key))
    seen: list[list[str]] = []

    def train(config, inputs, out, context):
        seen.append(sorted(path.name for path in out.glob("[!.]*")))
        (out / "weights").write_text("hours of work")
        return {}

    monkeypatch.setattr(fit, "run", train)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr(Path, "rename", fail_to_rename)
        run(planned, copy, root, "fit")
    run(planned, copy, root, "fit")
    assert "weights" not in seen[0] and "weights" in seen[1]
    assert not list(result_path(copy, "fit", fitted.key).glob(".*")), "notes are gone"


def fail_to_rename(self: Path, target: Path) -> Path:
    raise OSError("the disk is full")


def test_work_on_inputs_that_were_made_again_with_other_bits_is_begun_anew(
    planned, copy, root, monkeypatch
):
    """Else one result would be of two networks."""
    scored, fitted = node_of(planned, "score"), node_of(planned, "fit")
    shutil.rmtree(result_path(copy, "score", scored.key))

    def fail(config, inputs, out, context):
        seen.append(sorted(path.name for path in out.glob("[!.]*")))
        (out / "half").write_text("of the network as it is now")
        raise OSError("No space left on device")

    monkeypatch.setattr(score, "run", fail)
    seen: list[list[str]] = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="No space left"):
            run(planned, copy, root, "score")
    shutil.rmtree(result_path(copy, "fit", fitted.key))
    with copy.working_on(fitted) as partial:
        partial.mkdir(parents=True)
        (partial / "segmenter.json").write_text("{}")
        copy.commit(fitted, partial, {}, 1.0)
    with pytest.raises(RuntimeError, match="No space left"):
        run(planned, copy, root, "score")
    assert seen == [[], ["half"], []]


def delete_shard(store: Store, node: Node) -> None:
    next(result_path(store, "ingest", node.key).rglob("*.parquet")).unlink()


def reopen(store: Store, node: Node) -> None:
    with store.working_on(node) as partial:
        store.backend.reopen(f"ingest/{node.key[:20]}", partial, ["none"])


def compute_again(store: Store, node: Node, content: bytes | None = None) -> None:
    """Replace a result by one of the same files, or of other bytes."""
    path, facts = result_path(store, "ingest", node.key), store.find("ingest", node.key).facts
    with store.working_on(node) as partial:
        shutil.copytree(path, partial)
        if content is not None:
            (partial / "more").write_bytes(content)
        shutil.rmtree(path)
        store.commit(node, partial, facts, 1.0)


def delete_and_compute_again(store: Store, node: Node) -> None:
    compute_again(store, node)


def compute_again_with_other_bits(store: Store, node: Node) -> None:
    compute_again(store, node, b"other bits")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "change",
    [delete_shard, reopen, delete_and_compute_again, compute_again_with_other_bits],
)
def test_a_stage_whose_input_changes_while_it_runs_gives_no_result(
    planned, copy, root, monkeypatch, change, fails
):
    """Another cell deletes what is damaged, another run computes it again."""
    scored, tested = node_of(planned, "score"), node_of(planned, "ingest", "test")
    before = copy.find("score", scored.key)
    shutil.rmtree(result_path(copy, "score", scored.key))
    score_images = score.run

    def run_while_input_changes(config, inputs, out, context):
        change(copy, tested)
        if fails:
            (out / "half").write_text("of half an input")
            raise OSError("No space left on device")
        return before.facts

    monkeypatch.setattr(score, "run", run_while_input_changes)
    with pytest.raises(RuntimeError, match="an input was deleted or computed again while"):
        run(planned, copy, root, "score")
    assert copy.find("score", scored.key) is None and copy.backend.partials() == {}
    monkeypatch.setattr(score, "run", score_images)
    run(planned, copy, root, "ingest", "test")
    run(planned, copy, root, "score")
    assert copy.find("score", scored.key).manifest["files"] == before.manifest["files"]


@pytest.mark.parametrize("origin", ["same inputs", "another segmenter", "an earlier version"])
def test_files_of_a_damaged_result_are_reused_only_if_its_inputs_are_the_same(
    planned, copy, root, monkeypatch, origin
):
    """Else one result would be of two networks, and no later check would notice."""
    scored, fitted = node_of(planned, "score"), node_of(planned, "fit")
    path = result_path(copy, "score", scored.key)
    shutil.rmtree(path)
    seen: list[list[str]] = []

    def write_two(config, inputs, out, context):
        seen.append(sorted(path.name for path in out.glob("[!.]*") if manifest.is_noted(path)))
        for name in ("first", "second"):
            (out / name).write_text("by this segmenter")
        return {"data": scored.data}

    monkeypatch.setattr(score, "run", write_two)
    run(planned, copy, root, "score")
    (path / "first").write_text("cut")
    if origin == "another segmenter":
        segmenter = result_path(copy, "fit", fitted.key)
        with copy.working_on(fitted) as partial:
            shutil.copytree(segmenter, partial)
            (partial / "more").write_text("other bits")
            shutil.rmtree(segmenter)
            copy.commit(fitted, partial, {}, 1.0)
    elif origin == "an earlier version":
        document = manifest.load(path)
        del document["inputs_sha256"]
        (path / manifest.MANIFEST).write_text(json.dumps(manifest.seal(document)))
    run(planned, copy, root, "score")
    assert seen == [[], ["second"] if origin == "same inputs" else []]
    assert copy.find("score", scored.key) is not None


def test_a_partial_directory_of_another_stage_run_is_begun_anew(planned, copy, root, monkeypatch):
    """Copy it as a restore that mixes up two names would; its inputs are the same."""
    fitted = node_of(planned, "fit")
    longer = graph.node_of("fit", FitConfig(**{**fitted.config, "epochs": 7}), fitted.inputs)
    longest = graph.node_of("fit", FitConfig(**{**fitted.config, "epochs": 9}), fitted.inputs)

    def write(config, inputs, out, context):
        rows = shards.table({"image_id": ["a"], "epochs": [config.epochs]}, {})
        assert shards.complete(out / shards.part_name(0), [rows]) == 1
        if config.epochs == 7:
            raise OSError("No space left on device")
        return {}

    monkeypatch.setattr(fit, "run", write)
    with pytest.raises(RuntimeError, match="No space left"):
        execute(longer, planned.nodes, copy, root, CONTEXT)
    with copy.working_on(longer) as partial, copy.working_on(longest) as other:
        shutil.copytree(partial, other)
    result, _ = execute(longest, planned.nodes, copy, root, CONTEXT)
    assert shards.read(result.path / shards.part_name(0))["epochs"].to_pylist() == [9]
